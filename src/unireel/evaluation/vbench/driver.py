"""Driving a VBench that is installed in an environment of its own: its pins and ours exclude each other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from unireel.errors import UserError
from unireel.evaluation.vbench.dimensions import DIMENSIONS, LOCAL

SCRIPT = """
import json, sys
request = json.load(sys.stdin)
import torch
from vbench import VBench
if request["device"].startswith("cuda") and hasattr(torch.distributed, "is_available"):
    try:
        from vbench.distributed import dist_init
        dist_init()
    except ImportError:
        pass
bench = VBench(torch.device(request["device"]), request["suite"], request["output"])
bench.evaluate(videos_path=request["films"], name=request["name"], dimension_list=[request["dimension"]],
               local=False, read_frame=False, mode="vbench_standard")
"""
"""Runs in the other environment, with its libraries; the request comes on its standard input, never as shell words."""


def drive(
    python: Path, dimensions: Sequence[str], suite: Path, samples: Path, output: Path, device: str
) -> None:
    """Have an installed VBench compute the dimensions that need networks, one process for each.

    A dimension whose results are in ``output`` already is not computed again.

    Args:
        python: the interpreter of the environment that VBench is in.
        suite: ``VBench_full_info.json``.
        samples: folder of the films, one folder below it for each group of prompts.
        output: where ``{dimension}_eval_results.json`` goes.

    Raises:
        UserError: the interpreter or VBench is not there, or a dimension failed.
    """
    for name in dimensions:
        result = output / f"{name}_eval_results.json"
        if name in LOCAL or result.exists():
            continue
        request = {
            "suite": str(suite.resolve()),
            "films": str((samples / DIMENSIONS[name].folder).resolve()),
            "output": str(output.resolve()),
            "name": name,
            "dimension": name,
            "device": device,
        }
        try:
            done = subprocess.run(
                [str(python), "-c", SCRIPT],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                cwd=output,
                check=False,
            )
        except OSError as error:
            raise UserError(f"cannot run {python}: {error.strerror or error}") from None
        if done.returncode or not result.exists():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
            raise UserError(f"VBench could not compute {name}: {last}")
