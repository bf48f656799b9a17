"""``unireel evaluate videoqa``: answers to questions about videos, from a model or from a file of predictions."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate.judging import add_judge_options, check_judge, cost, make_judge
from unireel.cli.evaluate.making import prepare_folder
from unireel.cli.evaluate.output import (
    add_json_option,
    check_json,
    command_line,
    plain,
    table,
    write,
    write_page,
)
from unireel.cli.options import load_model, whole_number
from unireel.cli.reflect import add_loop_options, is_talker
from unireel.cli.reflect import build as build_loop
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.evaluation.intervals import Score
    from unireel.evaluation.page import Strip
    from unireel.evaluation.videoqa.askers import Asker
    from unireel.evaluation.videoqa.datasets import Dataset
    from unireel.evaluation.videoqa.formats import Problem, Question
    from unireel.evaluation.videoqa.metrics import Named

EPILOG = """examples:
  unireel evaluate videoqa --predictions P --questions val_q.json --answers val_a.json --metric exact --json -
  unireel evaluate videoqa --predictions P --questions Test_count_question.csv --metric l2
  unireel evaluate videoqa --model pocket/base --videos films/ --questions Q --metric normalized --out runs/qa
  unireel evaluate videoqa --model http://localhost:8000/v1#qwen3-vl --videos V --questions Q --out runs/qa
  unireel evaluate videoqa --model pocket/univid --reflect --videos films/ --questions Q --out runs/qa-reflect
  unireel evaluate videoqa --predictions P --questions Q --metric exact,judge --out runs/qa \\
      --judge-url http://localhost:8000/v1 --judge-model qwen3 --judge-requests 20000
  unireel evaluate videoqa --predictions P --questions Q --metric judge --out runs/qa --judge-local models/qwen3

Questions and predictions are joined on their ids. What does not fit together, cannot be read or is not judged is
counted and listed; a question without prediction counts as answered wrong. Every fourth question is asked again about
the film reversed, frozen at its first frame, blank, and (where the model takes it) about no film at all.
A run that was stopped goes on when it is started again with the same arguments.
"""
FRAMES, POOL = 17, 64
"""Frames that are shown of each video: all at once, or as the pool of which reflection looks at some."""

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
    parser.add_argument("--model", help="or who is to answer: a model, or an endpoint's URL#NAME")
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps (default: CUDA if there is any, else the CPU)"
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="where the videos are")
    parser.add_argument(
        "--video-names",
        type=Path,
        metavar="FILE",
        help="names of the files, such as MSVD's youtube_mapping.txt",
    )
    parser.add_argument(
        "--frames",
        type=whole_number(1, 4096),
        metavar="N",
        help="shown of each video (default: 17; with --reflect the pool of frames, 64)",
    )
    parser.add_argument(
        "--control-every",
        type=whole_number(0, 10**6),
        default=4,
        metavar="N",
        help="ask every N-th question about control films too; 0: none (default: 4)",
    )
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
        help="keep scores, a report, every question's record and the judge's verdicts",
    )
    group = parser.add_argument_group(
        "reflection",
        "Look at a few frames, answer, judge, and look again at better ones (docs/reflection.md).",
    )
    group.add_argument("--reflect", action="store_true", help="answer by Pyramid Reflection")
    add_loop_options(group)
    add_judge_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, join, score, print."""
    from unireel.evaluation.videoqa.datasets import DATASETS
    from unireel.evaluation.videoqa.formats import read_annotations, read_predictions
    from unireel.evaluation.videoqa.scoring import join

    dataset = DATASETS[args.dataset]
    if (args.predictions is None) == (args.model is None):
        raise UsageError("name either the --predictions to score, or the --model that is to answer")
    if args.model is not None and (args.videos is None or args.out is None):
        raise UsageError(
            "--model needs --videos, the folder of the videos, and --out, where the answers are kept"
        )
    check_reflection(args)
    args.frames = args.frames or (POOL if args.reflect else FRAMES)
    names, metrics = chosen_metrics(args, dataset)
    check_json(args.json)
    annotations = read_annotations(args.questions, args.answers, dataset)
    problems = list(annotations.problems)
    if args.model is not None:
        answer_all(args, list(annotations.questions.values()), problems, names, metrics)
        return
    predictions = read_predictions(args.predictions, problems)
    joined = join(annotations, predictions)
    if not any(said is not None for _, said in joined.pairs):
        raise UsageError(
            f"no prediction has the id of a question: {args.predictions} has '{next(iter(predictions))}', "
            f"{args.questions} has '{next(iter(annotations.questions))}'"
        )
    finish(args, joined.pairs, problems + joined.problems, names, metrics)


def answer_all(
    args: argparse.Namespace,
    questions: "list[Question]",
    problems: "list[Problem]",
    names: list[str],
    metrics: "list[Named]",
) -> None:
    """Ask the model what it has not answered yet, then score everything."""
    from unireel.evaluation.journal import Journal, claim
    from unireel.evaluation.progress import resumable
    from unireel.evaluation.videoqa.datasets import DATASETS
    from unireel.evaluation.videoqa.running import (
        Setting,
        control_scores,
        find_video,
        read_names,
        results,
    )
    from unireel.evaluation.videoqa.running import run as ask

    if not args.videos.is_dir():
        raise UserError(f"there is no folder {args.videos}")
    files = read_names(args.video_names) if args.video_names else {}
    setting = Setting(args.frames, args.control_every)
    identity = {"benchmark": "videoqa", "model": args.model, "weights": weights(args.model)}
    if args.reflect:
        options = ("ranker", "evaluator", "reflector", "mode", "threshold")
        identity["reflect"] = {
            each: getattr(args, each) for each in options if getattr(args, each) is not None
        }
    claim(args.out, identity | {"frames": args.frames, "control_every": args.control_every})
    journal = Journal(args.out / "answers.jsonl")
    todo = sum(each.id not in journal or "error" in journal[each.id] for each in questions)
    if todo < len(questions):
        print(
            f"going on in {args.out}: {len(questions) - todo} questions are answered, {todo} are left",
            file=sys.stderr,
        )

    def find(name: str) -> Path:
        return find_video(name, args.videos, DATASETS[args.dataset], files)

    with ExitStack() as stack, resumable({"questions": todo}, args.out, journal) as progress:
        if todo:
            ask(
                asker_of(args, stack),
                questions,
                find,
                setting,
                journal,
                lambda done, left, seconds: progress.advance("questions", done, left, seconds),
            )
    pairs, failed = results(questions, journal)
    if not pairs:
        raise UserError(f"no question could be asked: {failed[0].what}")
    further: dict[str, Any] = {"model": args.model}
    if metrics:
        further |= {"scores": control_scores(pairs, journal, metrics[0]), "control_metric": metrics[0].name}
    by_id = {question.id: question for question in questions}

    def traced(name: str) -> "tuple[Strip, ...]":
        rounds = journal.get(name, {}).get("rounds")
        return looked_at(by_id[name], rounds, find, args.frames) if rounds else ()

    finish(args, pairs, problems + failed, names, metrics, further, traced)


def looked_at(
    question: "Question", rounds: list[dict[str, Any]], find: "Callable[[str], Path]", frames: int
) -> "tuple[Strip, ...]":
    """The frames of every round, drawn from the video again; none if it is not there any more."""
    from unireel.clip import Clip
    from unireel.evaluation.strips import strips

    try:
        clip = Clip.load(find(question.video), num_frames=frames, start=question.start, end=question.end)
    except UserError:
        return ()
    return strips(rounds, clip.frame)


def check_reflection(args: argparse.Namespace) -> None:
    """Raise a :class:`UsageError` if reflection is asked for without a model, or an option of it without itself."""
    if args.reflect and args.model is None:
        raise UsageError("--reflect needs --model: predictions are answers already")
    options = ("ranker", "evaluator", "reflector", "mode", "threshold", "budget", "cache")
    given = [each for each in options if getattr(args, each) is not None]
    if given and not args.reflect:
        raise UsageError(f"--{given[0]} needs --reflect")


def weights(model: str) -> str | None:
    """What tells versions of a model apart; nothing does for one behind an endpoint, and its folder does for others."""
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.hub import find_model

    return None if is_talker(model) else fingerprint(find_model(model))


def asker_of(args: argparse.Namespace, stack: ExitStack) -> "Asker":
    """The model behind ``--model``; what reflection keeps of films goes when ``stack`` is closed."""
    from unireel.backbones.remote import Endpoint
    from unireel.evaluation.videoqa.askers import ChatModel, Pipeline, Reflecting

    if args.reflect:
        # Pools of a benchmark's videos would push a person's own films out of the usual cache.
        args.cache = args.cache or Path(stack.enter_context(TemporaryDirectory(prefix="unireel-videoqa-")))
        return Reflecting(build_loop(args), is_talker(args.model))
    if not args.model.startswith("http"):
        return Pipeline(load_model(args))
    url, mark, name = args.model.partition("#")
    if not mark or not name:
        raise UsageError(f"'{args.model}' lacks the model's name: write URL#NAME")
    return ChatModel(Endpoint(url, name))


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
        check_judge(args)
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
    traced: "Callable[[str], tuple[Strip, ...]]" = lambda question: (),
) -> None:
    """Score, write what ``--out`` and ``--json`` ask for, and print the rest.

    Args:
        further: what else belongs into the document; its ``scores`` are added to the scores.
        traced: see :func:`unireel.evaluation.reports.videoqa_page`.
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
        show(args, document, scores, records, traced)
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


def show(
    args: argparse.Namespace,
    document: dict[str, Any],
    scores: "dict[str, Score]",
    records: Sequence[dict[str, Any]],
    traced: "Callable[[str], tuple[Strip, ...]]",
) -> None:
    """Write ``report.html``."""
    from unireel.evaluation.reports import videoqa_page
    from unireel.evaluation.videoqa.datasets import DATASETS
    from unireel.evaluation.videoqa.running import find_video, read_names

    names = read_names(args.video_names) if args.video_names else {}
    dataset = DATASETS[args.dataset]
    find = None if args.videos is None else lambda name: find_video(name, args.videos, dataset, names)
    options = ["predictions", "model", "videos", "video_names", "frames", "questions", "answers", "dataset"]
    options += ["metric", "wordnet", "judge_url", "judge_model", "judge_local"]
    options += ["reflect", "ranker", "evaluator", "reflector", "mode", "threshold", "out"]
    command = command_line(["evaluate", "videoqa"], args, options)
    name = args.model or args.predictions.name
    write_page(args.out / "report.html", videoqa_page(document, scores, records, name, command, find, traced))


def say_problems(problems: "Sequence[Problem]", kinds: "Counter[str]") -> None:
    """Print how many problems of each kind there were, and the first few."""
    for kind, count in kinds.items():
        print(f"{kind}: {count}")
        for each in [each for each in problems if each.kind == kind][:SHOWN]:
            print(f"    {each.where}{': ' if each.what else ''}{each.what}")
