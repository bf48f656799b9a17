"""``unireel evaluate worldbench``: films, first frames, answers and captions of the World, with a report."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate.making import add_sampling_options, add_shard_option
from unireel.cli.evaluate.output import add_json_option, check_json, table, write
from unireel.cli.options import (
    add_model_options,
    check_writable,
    chosen_speed,
    load_model,
    whole_number,
)
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.evaluation.worldbench import Ledger, Plan, Result
    from unireel.evaluation.worldbench.task import Model

SPLITS = ("test", "compositional")
MOST_ITEMS = 1_000_000
DEFAULT_FOLDER = Path("worldbench")
SCORES, REPORT = "scores.json", "report.html"

EPILOG = """examples:
  unireel evaluate worldbench --n 500 --split compositional
  unireel evaluate worldbench --categories qa,caption --n 200 --json scores.json
  unireel evaluate worldbench --categories motion,qa/direction --json -
  unireel evaluate worldbench --categories t2i --n 100  (GenEval's six questions, of pictures of the World)
  unireel evaluate worldbench --categories needle       (moments in long stories, with Pyramid Reflection)
  unireel evaluate worldbench --model world:oracle      (the renderer itself: proves the benchmark)
  unireel evaluate worldbench ... --shard 1/4 --device cuda:0     (and 2/4 to 4/4 on other devices; the last one
                                                                   to be done writes scores and report)

A run that was stopped goes on where it was when it is started again with the same arguments; a larger --n or
more --categories add to it.
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    bench = benchmarks.add_parser(
        "worldbench",
        help="films, first frames, answers and captions against the World's exact ground truth",
        description="Judge films, first frames, answers and captions against the World's exact ground truth.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(bench)
    bench.add_argument(
        "--categories",
        metavar="NAMES",
        help="what to measure, separated by commas: t2v, t2i, i2v, joint, edit, qa, needle, caption, a category "
        "such as motion, or a type of question such as qa/direction (default: everything that the model does)",
    )
    bench.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: %(default)s")
    bench.add_argument(
        "--n",
        type=whole_number(1, MOST_ITEMS),
        default=100,
        metavar="N",
        help="items per figure (default: 100)",
    )
    add_sampling_options(bench, batch=16)
    bench.add_argument(
        "--best-of",
        type=whole_number(1, 64),
        default=1,
        metavar="N",
        help="make N films of each prompt, judge the one that the model itself believes in (default: 1)",
    )
    bench.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="records, scores and report (default: worldbench/MODEL-SPLIT-SEED)",
    )
    add_shard_option(bench)
    add_json_option(bench)
    bench.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check the request, measure what is missing, print the scores and write the report."""
    from unireel.evaluation.worldbench import all_tasks, chosen_parts

    tasks = all_tasks()
    names = [task.name for task in tasks] if args.categories is None else args.categories.split(",")
    parts = tuple(chosen_parts(names, tasks))
    folder = prepared_folder(args)
    check_json(args.json)
    model, plan, ledger = opened(args, parts, folder)
    measure(args, model, plan, ledger)


def prepared_folder(args: argparse.Namespace) -> Path:
    """The folder to write.

    Raises:
        UserError: nothing can be written there.
    """
    if args.out is None:
        name = re.sub(r"[^A-Za-z0-9]+", "-", args.model).strip("-")
        check_writable(DEFAULT_FOLDER)
        return DEFAULT_FOLDER / f"{name}-{args.split}-{args.seed}"
    if args.out.is_file():
        raise UserError(f"cannot write {args.out}: it is a file; name a new folder")
    if not args.out.is_dir():
        check_writable(args.out.parent / "new")
    return args.out


def made_room(folder: Path) -> Path:
    """``folder``, whose parent was made if it is the default one."""
    if folder.parent == DEFAULT_FOLDER:
        DEFAULT_FOLDER.mkdir(exist_ok=True)
    return folder


def opened(args: argparse.Namespace, parts: tuple, folder: Path) -> "tuple[Model, Plan, Ledger]":
    """The model, what it is to do, and the ledger of what it has done."""
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.evaluation.shards import Shard
    from unireel.evaluation.worldbench import Ledger, Plan, Setting
    from unireel.evaluation.worldbench.reference import NAMES, SIZE, Reference
    from unireel.hub import find_model
    from unireel.world.scene import RADII

    def plan_of(size: int, parts: tuple = parts) -> Plan:
        setting = Setting(args.split, args.seed, size, args.steps, args.guidance, args.batch, args.best_of)
        return Plan(parts, args.n, setting)

    shard = None if args.shard is None else Shard.read(args.shard)
    identity = {name: getattr(args, name) for name in ("model", "split", "seed", "steps", "guidance")}
    if args.best_of > 1:
        identity["best_of"] = args.best_of
    if chosen_speed(args):
        identity["fast"] = chosen_speed(args)
    if args.model.startswith("world:"):
        if args.model not in NAMES:
            raise UsageError(
                f"there is no model '{args.model}'; accepted: {', '.join(NAMES)}, or a real model"
            )
        if args.best_of > 1:
            raise UsageError(f"{args.model} makes one film of each prompt; leave --best-of out")
        plan = plan_of(SIZE)
        ledger = Ledger(made_room(folder), identity, shard)
        return Reference(plan, NAMES[args.model]), plan, ledger
    # The ledger comes before the weights are loaded: that a folder is taken is said at once.
    identity["weights"] = fingerprint(find_model(args.model))
    ledger = Ledger(made_room(folder), identity, shard)
    model = load_model(args)
    if args.best_of > 1 and not hasattr(model, "best_of_many"):
        raise UserError(f"'{args.model}' cannot judge its own films; leave --best-of out")
    if model.size not in RADII:
        accepted = ", ".join(map(str, RADII))
        raise UserError(
            f"'{args.model}' makes films of {model.size} pixels; WorldBench's sizes are {accepted}"
        )
    return model, plan_of(model.size, doable(args, model, parts)), ledger


def doable(args: argparse.Namespace, model: "Model", parts: tuple) -> tuple:
    """The parts that the model can do.

    Raises:
        UserError: it cannot do one that was asked for.
    """
    unable = dict.fromkeys(task.name for task, _ in parts if not hasattr(model, task.needs))
    if unable and args.categories is not None:
        raise UserError(
            f"the model '{args.model}' cannot do '{next(iter(unable))}'; leave it out of --categories"
        )
    return tuple(each for each in parts if each[0].name not in unable)


def measure(args: argparse.Namespace, model: "Model", plan: "Plan", ledger: "Ledger") -> None:
    """Do what is to be done here with its progress on the standard error; the last shard adds up and reports."""
    from unireel.evaluation.progress import resumable
    from unireel.evaluation.worldbench.runner import result, work

    todo: dict[str, int] = {}
    for task, part in plan.parts:
        todo[task.name] = todo.get(task.name, 0) + len(ledger.missing(part, plan.n))
    mine = plan.n if ledger.shard is None else len(range(plan.n)[ledger.shard.items])
    kept = mine * len(plan.parts) - sum(todo.values())
    if kept:
        print(
            f"going on in {ledger.folder}: {kept} items are done, {sum(todo.values())} are left",
            file=sys.stderr,
        )
    with resumable(todo, ledger.folder, ledger) as progress:
        left = work(model, plan, ledger, progress.advance)
    if not left:
        finish(args, result(args.model, plan, ledger), plan, ledger)
        return
    counts = {"items": plan.n * len(plan.parts) - left, "missing": left}
    if not write({"scores": {}, "counts": counts}, args.json):
        print(f"this shard is done; {left} items of others are still to be done, so there are no scores yet")


def finish(args: argparse.Namespace, result: "Result", plan: "Plan", ledger: "Ledger") -> None:
    """Write scores and report, and print the scores."""
    from unireel.evaluation.worldbench.report import page
    from unireel.media.atomic import replacing_file

    text = json.dumps(result.to_dict(), indent=2) + "\n"
    files = {ledger.folder / SCORES: text, ledger.folder / REPORT: page(result, plan, ledger, command(args))}
    if args.json not in (None, "-"):
        files[Path(args.json)] = text
    for path, content in files.items():
        with replacing_file(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    if args.json == "-":
        print(text, end="")
        return
    print(table(result.scores))
    checker = "; ".join(f"{name} {score}" for name, score in result.checker.items())
    print(f"checker, measured in this run: {checker}")
    print(f"report: {ledger.folder / REPORT}")


def command(args: argparse.Namespace) -> str:
    """The command line that gives these figures again, wherever it is started."""
    words = ["unireel", "evaluate", getattr(args, "benchmark", "worldbench"), "--model", args.model]
    words += ["--split", args.split, "--n", str(args.n), "--seed", str(args.seed)]
    if getattr(args, "best_of", 1) > 1:
        words += ["--best-of", str(args.best_of)]
    words += ["--fast"] if args.fast else []
    for name in ("categories", "alignment", "views", "steps", "guidance", "profile"):
        if getattr(args, name, None) is not None:
            words += [
                f"--{name}",
                f"{getattr(args, name):g}" if name == "guidance" else str(getattr(args, name)),
            ]
    return shlex.join(words)
