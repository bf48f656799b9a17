"""``unireel data``: tools for the films that full-scale trainings learn from."""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import check_writable, real_number, whole_number
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.backbones.remote import Endpoint

EPILOG = """examples:
  unireel data caption films.csv --folder videos/ --captioner http://localhost:8000/v1#qwen3-vl
  unireel data caption films.csv --folder videos/ --captioner URL#NAME --requests 10000 --price 0.15,0.60

The list (CSV, JSON, JSON lines) has a column video and may have caption, the short words that the film was found with.
What is written is a table with video, caption and detailed, beside the list unless -o says otherwise; every description
is kept at once in a file of the same name that ends in .jsonl, and the same command goes on from there.
"""
SHOWN = 3
"""How many films of each kind of failure are printed; all are in the JSON."""


def add_parser(subparsers: Any) -> None:
    """Register the command and its tools."""
    parser = subparsers.add_parser(
        "data",
        help="tools for the films that full-scale trainings learn from",
        description="Tools for the films that full-scale trainings learn from.",
    )
    tools = parser.add_subparsers(dest="tool", metavar="TOOL", title="tools", required=True)
    caption = tools.add_parser(
        "caption",
        help="detailed descriptions of films from any OpenAI-compatible model that sees",
        description="Have films described by any OpenAI-compatible model that sees.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    caption.add_argument("films", type=Path, metavar="LIST", help="the films, with captions if there are any")
    caption.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where the films are (default: beside the list)"
    )
    caption.add_argument("--captioner", required=True, metavar="URL#NAME", help="who describes them")
    caption.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: LIST-detailed.csv")
    caption.add_argument(
        "--frames", type=whole_number(1, 64), default=8, metavar="N", help="shown of each film (default: 8)"
    )
    caption.add_argument(
        "--key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="the variable with the key (%(default)s)",
    )
    caption.add_argument("--requests", type=whole_number(1, 10**9), metavar="N", help="ask at most N times")
    caption.add_argument("--tokens", type=whole_number(1, 10**12), metavar="N", help="stop after N tokens")
    caption.add_argument(
        "--price", metavar="IN,OUT", help="cost of a million tokens read and written, to report the cost"
    )
    caption.add_argument(
        "--timeout", type=real_number(0.1, 3600), default=60.0, metavar="SECONDS", help="default: 60"
    )
    caption.add_argument(
        "--parallel",
        type=whole_number(1, 256),
        default=4,
        metavar="N",
        help="requests at once (default: 4)",
    )
    caption.add_argument("--json", action="store_true", help="print one JSON object")
    caption.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Describe what has no description yet, write the table, and say what was passed over."""
    captioner, price = captioner_of(args), prices(args.price)
    output = args.output or args.films.with_name(f"{args.films.stem}-detailed.csv")
    if output.suffix != ".csv":
        raise UsageError(f"'{output}': what is written is a table that ends in .csv")
    check_writable(output)

    from unireel.data.captioned import read_captioned
    from unireel.data.captioning import describe_films, instruction_hash, write_list
    from unireel.evaluation.journal import Journal

    folder = args.folder or args.films.parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    films, bad = read_captioned(args.films, needs=("video",))
    journal = Journal(output.with_suffix(".jsonl"))

    def advance(done: int) -> None:
        if done % 50 == 0 or done == len(films):
            print(f"{done} of {len(films)} films done", file=sys.stderr)

    try:
        said, tally, passed = describe_films(
            films, folder, captioner, journal, args.frames, args.parallel, advance
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {journal.path}", file=sys.stderr)
        raise
    finally:
        journal.close()
    if not said:
        raise UserError(f"no film could be described: {passed[0].video}: {passed[0].what}")
    write_list(output, films, said)
    spent = captioner.spent
    cost: dict[str, Any] = {
        "captioner": captioner.model,
        "instruction": instruction_hash(),
        **spent.to_dict(),
    }
    if price is not None:
        tokens = spent.prompt_tokens * price[0] + spent.completion_tokens * price[1]
        cost["cost"] = round(tokens / 1e6, 6)
    problems = [{"kind": "bad row", "video": where, "what": what} for where, what in bad]
    problems += [asdict(each) for each in passed]
    counts = {"films": len(films), **asdict(tally), "bad_rows": len(bad)}
    if args.json:
        document = {"output": str(output), "counts": counts, "cost": cost, "problems": problems}
        print(json.dumps(document, ensure_ascii=False))
        return
    print(f"{output}  {len(said)} of {len(films)} films are described")
    print(", ".join(f"{name} {value}" for name, value in (counts | cost).items()))
    for kind, number in Counter(each["kind"] for each in problems).items():
        print(f"{kind}: {number}")
        for each in [each for each in problems if each["kind"] == kind][:SHOWN]:
            print(f"    {each['video']}: {each['what']}")


def captioner_of(args: argparse.Namespace) -> "Endpoint":
    """The model behind ``--captioner``; nothing is sent yet."""
    from unireel.backbones.remote import Endpoint

    url, mark, name = args.captioner.partition("#")
    if not mark or not name:
        raise UsageError(f"'{args.captioner}' lacks the model's name: write URL#NAME")
    return Endpoint(
        url,
        name,
        key_variable=args.key_env,
        timeout=args.timeout,
        most_requests=args.requests,
        most_tokens=args.tokens,
    )


def prices(text: str | None) -> tuple[float, float] | None:
    """The two numbers of ``--price``."""
    if text is None:
        return None
    try:
        read, written = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--price '{text}': two numbers, for example 0.15,0.60") from None
    return read, written
