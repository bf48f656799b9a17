"""``unireel bench``: side by side with stock diffusers and transformers on the same weights, in turns, in one run."""

import argparse
import json
from pathlib import Path
from typing import Any

from unireel.cli.options import check_writable, progress_bar, quieten_libraries, whole_number
from unireel.errors import UsageError

POCKET = "pocket/base"

EPILOG = """examples:
  unireel bench                                         films of pocket/base, end to end
  unireel bench --shape wan2.1-1.3b --layers 2 --latents 2x60x104
  unireel bench --ask                                   captions by pocket/base, beside transformers
  unireel bench --json bench.json --picture bench.svg
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "bench",
        help="speed side by side with stock diffusers",
        description="Speed side by side with stock diffusers: the same weights and noise, in turns, in one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--shape",
        default=POCKET,
        metavar="NAME",
        help="pocket/base (films, end to end; default), or one guided step of wan2.1-1.3b, wan2.2-5b or wan2.1-14b "
        "with random weights",
    )
    parser.add_argument(
        "--ask",
        action="store_true",
        help="what pocket/base says of films, not films: beside plain transformers",
    )
    parser.add_argument(
        "--layers", type=whole_number(1, 100), metavar="N", help="of a shape, if memory asks (default: all)"
    )
    parser.add_argument(
        "--latents", type=_size, metavar="TxHxW", help="of a shape (default: those of its paper's films)"
    )
    parser.add_argument("--rounds", type=whole_number(1, 1000), default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts this process's own time: for machines that do other things too (default: wall)",
    )
    parser.add_argument("--threads", type=whole_number(1, 1024), metavar="N", help="default: torch's choice")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="of a shape (default: cpu)")
    parser.add_argument(
        "--precision",
        choices=("keep", "auto", "bfloat16"),
        default="auto",
        help="of ours: keep is float32, auto is bfloat16 where the machine has it (default: auto)",
    )
    parser.add_argument("--compile", action="store_true", help="compile our blocks first (not counted)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the medians (.svg)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Race, and say what came out."""
    if args.picture and args.picture.suffix.lower() != ".svg":
        raise UsageError(f"the picture is an .svg, not '{args.picture.name}'")
    if args.shape == POCKET and (args.layers or args.latents or args.device != "cpu"):
        raise UsageError(
            "--layers, --latents and --device are for shapes; pocket/base is what it is, on the cpu"
        )
    if args.ask and (args.shape != POCKET or args.compile):
        raise UsageError("--ask is for pocket/base, uncompiled")
    for path in filter(None, (args.json, args.picture)):
        check_writable(path)
    import torch

    from unireel.bench.report import picture, table

    quieten_libraries()
    if args.device != "cpu" and not (args.device.startswith("cuda") and torch.cuda.is_available()):
        raise UsageError(f"there is no device '{args.device}' here")
    if args.threads:
        torch.set_num_threads(args.threads)
    summary = _measure(args)
    print(table(summary))
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if args.picture:
        args.picture.write_text(picture(summary), encoding="utf-8")


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from unireel.bench import ask, dit, measure, pocket
    from unireel.bench.report import summarise

    stage, tokens = ("denoise", None) if not args.ask else (ask.PREFILL, ask.words_said)
    if args.ask:
        from unireel.hub import load

        contestants = ask.contestants(load(POCKET, device="cpu", fast=False))
        subject = "pocket/base: the caption of a film of 17 frames of 48x48, greedily"
    elif args.shape == POCKET:
        from unireel.hub import load

        contestants = pocket.contestants(load(POCKET, device="cpu", fast=False), args.precision, args.compile)
        subject = "pocket/base: a film of 17 frames of 48x48 from words, end to end"
    else:
        shape = dit.find_shape(args.shape)
        layers, latents = args.layers or shape.layers, args.latents or shape.latents
        contestants = dit.contestants(shape, layers, latents, args.device, args.precision, args.compile)
        size = "x".join(map(str, latents))
        subject = f"{args.shape}, {layers} layer(s), latents {size}: one step with guidance, random weights"
    operations = measure.operations(contestants[0], stage)
    with progress_bar("rounds") as progress:
        results = measure.race(contestants, args.rounds, args.clock, args.device, progress)
    rates = measure.machine_rates(args.clock, args.device)
    return summarise(contestants, results, rates, operations, args.clock, subject, stage, tokens)


def _size(text: str) -> tuple[int, int, int]:
    """An argparse type: latents as TxHxW."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 21x60x104")
    frames, height, width = map(int, parts)
    if height % 2 or width % 2:
        raise argparse.ArgumentTypeError(
            f"latents are cut into patches of 2x2, which {height}x{width} are not"
        )
    return frames, height, width
