"""``unireel ask --reflect``: Pyramid Reflection on a film of any length, with roles and endpoints of one's choice."""

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import (
    check_writable,
    load_model,
    print_statement,
    progress_bar,
    quieten_libraries,
    real_number,
    whole_number,
)
from unireel.errors import UsageError

if TYPE_CHECKING:
    from unireel.systems.univid.reflection.loop import PyramidReflection
    from unireel.systems.univid.reflection.talkers import Talker

TALKER = "a model folder or hub id of transformers, or an endpoint such as http://localhost:8000/v1#qwen3"
PREFIX = "transformers:"
MOST_REQUESTS = 1000
_ONLY_WITH = ("ranker", "evaluator", "reflector", "trace", "picture", "mode", "threshold", "budget", "cache")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--reflect`` and the options that need it."""
    group = parser.add_argument_group(
        "reflection",
        "Look at a few frames, answer, judge, and look again at better ones. --model may then also be "
        f"'{PREFIX}NAME', a model folder of transformers, or an endpoint, each of which must take pictures.",
    )
    group.add_argument("--reflect", action="store_true", help="reflect; films may have any length")
    add_loop_options(group)
    group.add_argument(
        "--trace", type=Path, metavar="FILE.json", help="everything that happened; a rerun goes on"
    )
    group.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="the frames of every round on one sheet"
    )


def add_loop_options(group: Any) -> None:
    """Add what :func:`build` reads besides the model."""
    group.add_argument(
        "--ranker",
        metavar="NAME",
        help="image-text dual encoder of transformers that finds frames (default: the model's own; "
        "without any, frames are spread evenly)",
    )
    group.add_argument(
        "--evaluator",
        metavar="NAME",
        help=f"who judges answers (default: the model's own confidence): {TALKER}",
    )
    group.add_argument("--reflector", metavar="NAME", help="who writes search texts (default: the evaluator)")
    group.add_argument("--mode", choices=("static", "dynamic"), help="default: decided by the question")
    group.add_argument(
        "--threshold", type=real_number(0, 1), help="score at which an answer is accepted (default: 0.7)"
    )
    group.add_argument(
        "--budget", type=whole_number(1, 10**6), help="most requests to one endpoint (default: 1000)"
    )
    group.add_argument("--cache", type=Path, metavar="FOLDER", help="default: ~/.cache/unireel/reflection")


def is_asked_for(args: argparse.Namespace) -> bool:
    """Whether to reflect.

    Raises:
        UsageError: an option was given that needs ``--reflect``, without it.
    """
    given = [name for name in _ONLY_WITH if getattr(args, name) is not None]
    if given and not args.reflect:
        raise UsageError(f"--{given[0]} needs --reflect")
    return args.reflect


def run(args: argparse.Namespace, question: str) -> None:
    """Answer with reflection, print the answer, write trace and picture."""
    for path, suffix in ((args.trace, ".json"), (args.picture, ".png")):
        if path is not None and path.suffix != suffix:
            raise UsageError(f"'{path}' must end with {suffix}")
        if path is not None:
            check_writable(path)
    from unireel.systems.univid.reflection.pool import pool_key

    pool_key(args.film)  # a film that is not there is said before models are loaded
    loop = build(args)
    with progress_bar("rounds") as progress:
        result = loop.ask(args.film, question, args.trace, progress)
    if args.picture is not None:
        from unireel.systems.univid.reflection.picture import evidence_sheet

        pool = loop.cache.pool(args.film, loop.config.pool, loop.config.side)
        evidence_sheet(pool, result.trace).save(args.picture)
    print_statement(result, args.json, model=args.model, film=str(args.film), question=question)
    if not args.json:
        spent = result.trace["result"]
        times = ", ".join(f"{each.time:.2f} s" for each in result.evidence)
        print(f"evidence at {times}")
        rounds = "1 round" if spent["rounds"] == 1 else f"{spent['rounds']} rounds"
        print(f"{rounds} in {spent['seconds']:.1f} s")


def build(args: argparse.Namespace) -> "PyramidReflection":
    """The loop that the options ask for."""
    from unireel.systems.univid.reflection.cache import FilmCache
    from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
    from unireel.systems.univid.reflection.rankers import DualEncoder
    from unireel.systems.univid.reflection.roles import Roles

    quieten_libraries()
    cache = FilmCache(args.cache)
    threshold = ReflectionConfig.threshold if args.threshold is None else args.threshold
    evaluator, reflector = (
        None if name is None else load_talker(name, args, sees=False)
        for name in (args.evaluator, args.reflector)
    )
    if is_talker(args.model):
        roles = Roles.prompted(load_talker(args.model, args, sees=True), evaluator, reflector, threshold)
    else:
        roles = Roles.of_model(load_model(args), evaluator, reflector, threshold)
    folder = args.ranker or _own_ranker(args.model)
    if folder is None:
        warnings.warn("there is no ranker, so frames are spread evenly; name one with --ranker", stacklevel=2)
    ranker = None if folder is None else DualEncoder.load(folder, args.device)
    config = ReflectionConfig(
        threshold=threshold, mode=args.mode or "auto", policy="even" if ranker is None else "similarity"
    )
    return PyramidReflection(roles, ranker, config, cache)


def load_talker(name: str, args: argparse.Namespace, sees: bool) -> "Talker":
    """The model behind ``name``; see :data:`TALKER`."""
    from unireel.backbones.remote import Endpoint
    from unireel.systems.univid.reflection import talkers

    if _is_address(name):
        address, _, model = name.partition("#")
        if not model.strip():
            raise UsageError(f"'{name}' does not name its model; write http://host:port/v1#model")
        budget = MOST_REQUESTS if args.budget is None else args.budget
        return talkers.EndpointTalker(Endpoint(address, model.strip(), most_requests=budget), sees)
    with progress_bar(f"loading {name}"):
        talker = talkers.load_talker(name.removeprefix(PREFIX), args.device)
    if sees and not talker.sees:
        raise UsageError(f"'{name}' takes words only; the model that answers must take pictures")
    return talker


def _is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def is_talker(name: str) -> bool:
    """Whether ``--model`` names a talker rather than a Unireel model."""
    folder = Path(name)
    published = any((folder / each).is_file() for each in ("config.json", "llm_config.json"))
    is_ours = (folder / "unireel.json").is_file()
    return _is_address(name) or name.startswith(PREFIX) or (published and not is_ours)


def _own_ranker(name: str) -> Path | None:
    """The ranker in a Unireel model's folder; those of pocket models know the World only, so talkers have none."""
    from unireel.hub import component, find_model

    folder = None if is_talker(name) else component(find_model(name), "ranker")
    return folder if folder is not None and folder.is_dir() else None
