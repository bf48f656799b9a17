"""Registers a Unireel model, then runs VLMEvalKit's ``run.py``, whose arguments follow it:

python -m unireel.adapters.vlmevalkit --unireel pocket/base VLMEvalKit/run.py --data MVBench_8frame --model unireel
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from unireel.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Register the model, then run VLMEvalKit as if its ``run.py`` had been started."""
    parser = argparse.ArgumentParser(
        prog="python -m unireel.adapters.vlmevalkit", description="Run VLMEvalKit with a Unireel model."
    )
    parser.add_argument(
        "--unireel", default="pocket/base", metavar="MODEL", help="the model (default: %(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: CUDA if there is any)")
    parser.add_argument("program", type=Path, metavar="RUN.PY", help="VLMEvalKit's run.py")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    args = parser.parse_args(arguments)
    if not args.program.is_file():
        raise UserError(f"there is no {args.program}; name VLMEvalKit's run.py")
    try:
        from unireel.adapters.vlmevalkit.model import register
    except ImportError as error:
        raise UserError(
            f"VLMEvalKit cannot be imported ({error}); install it in this environment: pip install -e VLMEvalKit"
        ) from None
    register(args.unireel, device=args.device)
    sys.argv = [str(args.program), *args.rest]
    runpy.run_path(str(args.program), run_name="__main__")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"unireel: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
