"""``unireel evaluate videoqa``: answers to questions about videos, from a model or from a file of predictions."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate.judging import add_judge_options, cost, make_judge
from unireel.cli.evaluate.making import prepare_folder
from unireel.cli.evaluate.output import add_json_option, check_json, plain, table, write
from unireel.errors import UsageError

if TYPE_CHECKING:
    from unireel.evaluation.intervals import Score
    from unireel.evaluation.videoqa.datasets import Dataset
    from unireel.evaluation.videoqa.formats import Problem, Question
    from unireel.evaluation.videoqa.metrics import Named

EPILOG = """examples:
  unireel evaluate videoqa --predictions P --questions val_q.json --answers val_a.json --metric exact --json -
  unireel evaluate videoqa --predictions P --questions Test_count_question.csv --metric l2
  unireel evaluate videoqa --predictions P --questions Q --metric exact,judge --out runs/qa \\
      --judge-url http://localhost:8000/v1 --judge-model qwen3 --judge-requests 20000

Questions and predictions are joined on their ids. What does not fit together, cannot be read or is not judged is
counted and listed; a question without prediction counts as answered wrong.
"""
SHOWN = 3
"""How many problems of each kind are printed; all are in the JSON."""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    from unireel.evaluation.videoqa.datasets import DATASETS

    parser = benchmarks.add_parser(
        "videoqa",
        help="questions about videos: MSVD-QA, MSRVTT-QA, TGIF-QA, ActivityNet-QA, multiple choice and others",
        description="Score answers to questions about videos.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="what was answered")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE", help="as the benchmark gives them"
    )
    parser.add_argument("--answers", type=Path, metavar="FILE", help="if the questions' file has none")
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        default="any",
        help="names the types of questions (default: as in the file)",
    )
    parser.add_argument(
        "--metric",
        metavar="NAMES",
        help="exact, normalized, f1, wups, l2, choice, judge, separated by commas (default: the dataset's own)",
    )
    parser.add_argument("--wordnet", type=Path, metavar="FOLDER", help="WordNet's database files, for wups")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep scores, every question's record and the judge's verdicts",
    )
    add_judge_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, join, score, print."""
    from unireel.evaluation.videoqa.datasets import DATASETS
    from unireel.evaluation.videoqa.formats import read_annotations, read_predictions
    from unireel.evaluation.videoqa.scoring import join

    dataset = DATASETS[args.dataset]
    names, metrics = chosen_metrics(args, dataset)
    check_json(args.json)
    if args.predictions is None:
        raise UsageError("name the --predictions to score")
    annotations = read_annotations(args.questions, args.answers, dataset)
    problems = list(annotations.problems)
    predictions = read_predictions(args.predictions, problems)
    joined = join(annotations, predictions)
    said = sum(each is not None for _, each in joined.pairs)
    if not said:
        raise UsageError(
            f"no prediction has the id of a question: {args.predictions} has '{next(iter(predictions))}', "
            f"{args.questions} has '{next(iter(annotations.questions))}'"
        )
    finish(args, joined.pairs, problems + joined.problems, names, metrics)


def chosen_metrics(args: argparse.Namespace, dataset: "Dataset") -> "tuple[list[str], list[Named]]":
    """The names that were asked for and the metrics that need no judge.

    Raises:
        UsageError: a name is unknown, or something that it needs is missing.
    """
    from unireel.evaluation.videoqa.metrics import NAMES, metrics_of
    from unireel.evaluation.videoqa.wordnet import WordNet

    names = [each.strip() for each in (args.metric or dataset.metric).split(",")]
    for name in names:
        if name not in NAMES:
            raise UsageError(f"there is no metric '{name}'; accepted: {', '.join(NAMES)}")
    if "judge" in names:
        make_judge(args)
        if args.out is None:
            raise UsageError("the metric 'judge' needs --out, where the verdicts are kept")
    if args.out is not None:
        prepare_folder(args.out)
    if "wups" in names and args.wordnet is None:
        raise UsageError(
            "the metric 'wups' needs --wordnet, a folder with WordNet's index.noun and data.noun"
        )
    return names, metrics_of(names, WordNet(args.wordnet).similarity if "wups" in names else None)


def finish(
    args: argparse.Namespace,
    pairs: "Sequence[tuple[Question, str | None]]",
    problems: "list[Problem]",
    names: list[str],
    metrics: "list[Named]",
    further: dict[str, Any] | None = None,
) -> None:
    """Score, write what ``--out`` and ``--json`` ask for, and print the rest.

    Args:
        further: what else belongs into the document; its ``scores`` are added to the scores.
    """
    from unireel.evaluation.videoqa.datasets import DATASETS
    from unireel.evaluation.videoqa.scoring import add_up, judge_all

    dataset = DATASETS[args.dataset]
    records, unreadable = judge_all(pairs, metrics)
    problems = problems + unreadable
    further = dict(further or {})
    scores: dict[str, Score] = {}
    for metric in metrics:
        scores |= add_up(records, metric.name, dataset)
    if "judge" in names:
        further["judge"], failures = judged(args, pairs, records)
        problems += failures
        scores |= add_up(records, "judge", dataset) | add_up(records, "judge_score", dataset)
    scores |= further.pop("scores", {})
    kinds = Counter(each.kind for each in problems)
    counts = {"questions": len(pairs), "answered": sum(said is not None for _, said in pairs)}
    document = {
        "benchmark": "videoqa",
        "dataset": args.dataset,
        "scores": plain(scores),
        "counts": counts,
        "problem_counts": dict(kinds),
        "problems": [asdict(each) for each in problems],
        **further,
    }
    if args.out is not None:
        keep(args.out, document, records)
    if write(document, args.json):
        return
    print(table(scores))
    print(f"{counts['answered']} of {counts['questions']} questions have a prediction")
    say_problems(problems, kinds)
    if "judge" in further:
        print("judge: " + ", ".join(f"{name} {value}" for name, value in further["judge"].items()))


def judged(args: argparse.Namespace, pairs: Any, records: Any) -> "tuple[dict[str, Any], list[Problem]]":
    """Have the judge grade the answers; what it did and cost, and what it did not do."""
    from unireel.evaluation.journal import Journal
    from unireel.evaluation.videoqa.judge import instruction_hash, judge_answers

    judge = make_judge(args)
    args.out.mkdir(exist_ok=True)
    cache = Journal(args.out / "judge.jsonl")

    def advance(asked: int, left: int) -> None:
        if asked % 50 == 0 or not left:
            print(f"judge: {asked} asked, {left} left", file=sys.stderr)

    try:
        tally, problems = judge_answers(
            pairs, records, judge, judge.model, cache, args.judge_parallel, advance
        )
    finally:
        cache.close()
    return {**cost(args, judge), "instruction": instruction_hash(), **asdict(tally)}, problems


def keep(folder: Path, document: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Write ``scores.json`` and ``items.jsonl``."""
    from unireel.media.atomic import replacing_file

    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    for name, content in (("items.jsonl", lines), ("scores.json", text)):
        with replacing_file(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def say_problems(problems: "Sequence[Problem]", kinds: "Counter[str]") -> None:
    """Print how many problems of each kind there were, and the first few."""
    for kind, count in kinds.items():
        print(f"{kind}: {count}")
        for each in [each for each in problems if each.kind == kind][:SHOWN]:
            print(f"    {each.where}{': ' if each.what else ''}{each.what}")
