"""Needle questions about stories: Pyramid Reflection against the same model on 16 even frames.

    python benchmarks/needles.py --model pocket/base --stories 20

Stories are of the test split; what a question is about shows in a few frames only. Beside the two, the model is shown
16 frames of the evidence alone: what it could answer if exactly the right frames were found. Prints right answers with
95 % intervals, how often the evidence was among the frames that were looked at, and processor time.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import unireel
from unireel.clip import Clip
from unireel.evaluation.intervals import rate
from unireel.evaluation.paired import compare_items
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
from unireel.systems.univid.reflection.rankers import DualEncoder
from unireel.systems.univid.reflection.roles import Roles, View
from unireel.world.needles import needle_questions
from unireel.world.render import render
from unireel.world.scene import FPS
from unireel.world.stories import sample_story

EVEN = 16


@dataclass(frozen=True)
class Row:
    """One question: what was said each way, whether right, and what it cost in seconds of processor time."""

    story: int
    question: str
    answer: str
    even: str
    reflected: str
    shown: str
    found: bool
    rounds: int
    even_seconds: float
    reflect_seconds: float


def view(clip: Clip, first: int, last: int, count: int) -> View:
    """``count`` even frames from ``first`` to ``last``."""
    numbers = np.unique(np.linspace(first, last, min(count, last - first + 1)).round().astype(int))
    return View(clip.frames[numbers], np.asarray(clip.times)[numbers], clip.duration)


def ask(loop: PyramidReflection, number: int, args: argparse.Namespace) -> list[Row]:
    """The questions of story ``number``, each way."""
    story = sample_story(args.seed, number, "test", args.frames, args.size)
    clip = Clip(render(story).frames, FPS)
    rows = []
    for question in needle_questions(story, number)[: args.questions]:
        first, last = question.evidence or (0, len(clip) - 1)
        start = time.process_time()
        even = loop.roles.actor.answer(view(clip, 0, len(clip) - 1, EVEN), question.text, "").text
        middle = time.process_time()
        found = loop.ask(clip, question.text)
        end = time.process_time()
        shown = loop.roles.actor.answer(view(clip, first, last, EVEN), question.text, "").text
        seen = any(first <= each.frame <= last for each in found.evidence)
        rounds = len(found.trace["rounds"])
        rows.append(
            Row(
                *(number, question.text, question.answer, even, found.text, shown, seen, rounds),
                *(middle - start, end - middle),
            )
        )
    return rows


def main() -> None:
    """Ask, and print the table."""
    parser = argparse.ArgumentParser(description="Needle questions with and without Pyramid Reflection.")
    parser.add_argument("--model", default="pocket/base")
    parser.add_argument(
        "--ranker", type=Path, help="folder of a dual encoder; frames are spread evenly without"
    )
    parser.add_argument("--stories", type=int, default=20)
    parser.add_argument("--questions", type=int, default=5, help="of each story, at most")
    parser.add_argument("--frames", type=int, default=257)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--mode", choices=("auto", "static", "dynamic"), default="auto")
    parser.add_argument("--cache", type=Path, default=Path("runs/needles-cache"))
    parser.add_argument("--out", type=Path, help="also one line of JSON for each question")
    args = parser.parse_args()
    ranker = DualEncoder.load(args.ranker) if args.ranker else None
    config = ReflectionConfig(
        threshold=args.threshold, mode=args.mode, policy="similarity" if ranker else "even"
    )
    loop = PyramidReflection(Roles.of_model(unireel.load(args.model)), ranker, config, FilmCache(args.cache))
    rows: list[Row] = []
    for number in range(args.stories):
        rows += ask(loop, number, args)
        if args.out:
            args.out.write_text("".join(json.dumps(asdict(each)) + "\n" for each in rows))
    print(table(rows))


def table(rows: list[Row]) -> str:
    """What was measured."""
    names = {"16 even frames": "even", "reflection": "reflected", "16 frames of the evidence": "shown"}
    right = {name: [getattr(each, key) == each.answer for each in rows] for name, key in names.items()}
    lines = [f"{len(rows)} questions about {len({each.story for each in rows})} stories"]
    lines += [f"{name}: {rate(values)}" for name, values in right.items()]
    pair = compare_items(
        [float(each) for each in right["16 even frames"]],
        [float(each) for each in right["reflection"]],
        [str(each.story) for each in rows],
    )
    lines.append(f"reflection minus even: {pair.difference}, p {pair.p:.3g}")
    lines.append(f"evidence among the frames of the answer: {rate([each.found for each in rows])}")
    cost = [float(np.mean([getattr(each, f"{key}_seconds") for each in rows])) for key in ("even", "reflect")]
    lines.append(
        f"processor time a question: {cost[0]:.3f} s even, {cost[1]:.3f} s with reflection "
        f"({cost[1] / cost[0]:.1f} times), {np.mean([each.rounds for each in rows]):.2f} rounds"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
