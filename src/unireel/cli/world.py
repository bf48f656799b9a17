"""``unireel world``: look at the World that the pocket models are trained on, or take scenes from it."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import check_writable, whole_number
from unireel.errors import UsageError

if TYPE_CHECKING:
    from unireel.world.scene import Scene

SPLITS = ("train", "test", "compositional")
SIZES = (64, 48, 32)
MOST_SCENES = 100_000
MOST_ROWS = 40


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "world",
        help="look at the World that the pocket models are trained on",
        description="Look at the World: short films with exact descriptions, questions and answers.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    preview = actions.add_parser("preview", help="a picture of film strips with their prompts")
    preview.add_argument("-o", "--output", type=Path, default=Path("preview.png"), metavar="PNG")
    preview.add_argument(
        "--rows", type=whole_number(1, MOST_ROWS), default=8, help="films (default: %(default)s)"
    )
    sample = actions.add_parser("sample", help="scenes with prompt, caption, questions and edits")
    sample.add_argument(
        "--n", type=whole_number(1, MOST_SCENES), default=5, help="scenes (default: %(default)s)"
    )
    sample.add_argument("--category", default="mixture", help="kind of scene (default: %(default)s)")
    sample.add_argument("--json", action="store_true", help="print one JSON object a line")
    for each, run in ((preview, run_preview), (sample, run_sample)):
        each.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0)
        each.add_argument("--size", type=int, choices=SIZES, default=SIZES[0], help="canvas side in pixels")
        each.add_argument("--split", choices=SPLITS, default=SPLITS[0])
        each.set_defaults(run=run)


def run_preview(args: argparse.Namespace) -> None:
    """Write a picture of some films, each with its prompt above it."""
    if args.output.suffix.lower() != ".png":
        raise UsageError(f"cannot write {args.output}: a preview is a .png")
    check_writable(args.output)
    from unireel.media.pictures import contact_sheet
    from unireel.world.language import prompt_for
    from unireel.world.render import render
    from unireel.world.sampling import CATEGORIES, sample_scene

    films, prompts = [], []
    for index in range(args.rows):
        category = CATEGORIES[index % len(CATEGORIES)]
        scene = sample_scene(args.seed, index, args.split, category, args.size)
        films.append(render(scene))
        prompts.append(prompt_for(scene, args.seed, category).text)
    title = f"The World, {args.split} split"
    contact_sheet(films, prompts, title=title).save(args.output, format="PNG")
    print(f"{args.output}: {args.rows} films with their prompts")


def run_sample(args: argparse.Namespace) -> None:
    """Print scenes and what can be said about them."""
    for record in records(args):
        if args.json:
            print(json.dumps(record, separators=(",", ":")))
            continue
        print(f"prompt   {record['prompt']}\ncaption  {record['caption']}")
        for question in record["questions"]:
            print(f"         {question['text']} {question['answer']}")
        print("".join(f"edit     {edit['instruction']}\n" for edit in record["edits"]))


def records(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The sampled scenes with their texts, as plain dictionaries."""
    from unireel.world.sampling import sample_scene

    for index in range(args.n):
        yield describe(sample_scene(args.seed, index, args.split, args.category, args.size), index, args)


def describe(scene: "Scene", index: int, args: argparse.Namespace) -> dict[str, Any]:
    """One scene: its prompt with the facts it requests, caption, questions with answers, one edit."""
    from unireel.world.edits import edit_for
    from unireel.world.language import caption_for, prompt_for, questions_for

    prompt = prompt_for(scene, args.seed, args.category)
    edit = edit_for(scene, None, args.seed)
    return {
        "index": index,
        "split": args.split,
        "scene": scene.to_dict(),
        "prompt": prompt.text,
        "facts": [_without_none(vars(each)) for each in prompt.facts],
        "caption": caption_for(scene, args.seed),
        "questions": [
            {"type": each.type, "text": each.text, "answer": each.answer}
            for each in questions_for(scene, args.seed)
        ],
        "edits": [
            {"operation": each.operation, "instruction": each.instruction, "target": each.target.to_dict()}
            for each in (edit,)
            if each
        ],
    }


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that are set; referents as dictionaries too."""
    plain = {name: vars(each) if hasattr(each, "shape") else each for name, each in fields.items()}
    return {
        name: _without_none(each) if isinstance(each, dict) else each
        for name, each in plain.items()
        if each is not None
    }
