"""``unireel serve``: an HTTP API that the clients of OpenAI and of other video servers speak."""

import argparse
import ipaddress
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import add_model_options, quieten_libraries, real_number, whole_number
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.serving.settings import Settings

EPILOG = """examples:
  unireel serve
  UNIREEL_KEY=... unireel serve --host 0.0.0.0 --api-key-env UNIREEL_KEY
  curl -F prompt="a red star jumps twice" http://127.0.0.1:8000/v1/videos/sync -o star.mp4
"""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model over HTTP",
        description="Serve a model over HTTP, in the shape that OpenAI's clients speak.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--no-page", dest="page", action="store_false", help="serve the API only, without the web page at /"
    )
    add_serving_options(parser)
    parser.set_defaults(run=run)


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """What every server takes: the model, where it listens, who may come, how jobs are kept."""
    add_model_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=8000, help="0 lets the system choose (default: 8000)"
    )
    access = parser.add_argument_group("who may come")
    access.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the key that clients must send"
    )
    access.add_argument(
        "--open", action="store_true", help="serve everybody who can reach this machine, without a key"
    )
    access.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that the server goes by"
    )
    access.add_argument(
        "--allow-remote",
        action="append",
        default=[],
        metavar="HOST",
        help="a host that media may be fetched from over https (default: none)",
    )
    jobs = parser.add_argument_group("jobs")
    jobs.add_argument(
        "--jobs",
        type=Path,
        metavar="FOLDER",
        help="where jobs and films are kept (default: ~/.local/state/unireel/jobs)",
    )
    jobs.add_argument(
        "--batch", type=whole_number(1, 256), default=4, metavar="N", help="films made together (default: 4)"
    )
    jobs.add_argument(
        "--queue",
        type=whole_number(1, 10**6),
        default=256,
        metavar="N",
        help="jobs that may wait (default: 256)",
    )
    jobs.add_argument(
        "--keep", type=real_number(0.001, 10**6), default=24.0, metavar="HOURS", help="default: 24"
    )
    jobs.add_argument(
        "--quota", type=real_number(0.001, 10**6), default=4.0, metavar="GIB", help="of films (default: 4)"
    )
    jobs.add_argument(
        "--grace",
        type=real_number(0, 3600),
        default=30.0,
        metavar="SECONDS",
        help="what is running has this long to end when the server is stopped (default: 30)",
    )


def run(args: argparse.Namespace) -> None:
    """Check the options, open the port and the jobs, and serve until a signal comes."""
    settings = settings_of(args)
    try:
        from unireel.serving.app import create_app
        from unireel.serving.engine import Engine
        from unireel.serving.model import ServedModel
        from unireel.serving.server import Server, listen
        from unireel.serving.store import JobStore
    except ModuleNotFoundError as error:
        raise UserError(
            f"serving needs {error.name}, which is not installed: pip install 'unireel[serve]'"
        ) from None
    from unireel.hub import find_model

    find_model(args.model)  # a name that does not exist is said before anything is opened
    store = JobStore(
        args.jobs or default_folder(), args.queue, ttl=3600 * args.keep, quota=int(2**30 * args.quota)
    )

    def load() -> ServedModel:
        quieten_libraries()
        return ServedModel.load(args.model, args.device)

    engine = Engine(store, load, max_batch=args.batch)
    app = create_app(engine, settings, args.grace, page=args.page and _page_is_there())
    try:
        listening = listen(args.host, args.port)
    except OSError as error:
        raise UserError(f"cannot listen on {args.host}:{args.port}: {error.strerror or error}") from None
    host, port = listening.getsockname()[:2]
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("unireel.serving").setLevel(logging.INFO)
    print(f"unireel: {args.model} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    Server(app, engine, settings, host, port, args.grace).run([listening])
    if engine.alive:
        # It is in the middle of a step that takes too long, which is made again after the next start.
        logging.shutdown()
        os._exit(0)


def _page_is_there() -> bool:
    """Whether the web page's library is installed; says on the standard error what to do if not."""
    if find_spec("gradio") is not None:
        return True
    print("unireel: no web page: pip install 'unireel[page]' (or --no-page)", file=sys.stderr, flush=True)
    return False


def settings_of(args: argparse.Namespace) -> "Settings":
    """Who may come, from the options.

    Raises:
        UsageError: others than this machine's users could come without a key, by oversight.
    """
    from unireel.serving.intake import Limits
    from unireel.serving.settings import Settings

    key = None
    if args.api_key_env is not None:
        key = os.environ.get(args.api_key_env, "").strip()
        if not key:
            raise UsageError(f"the environment variable {args.api_key_env} holds no key")
    local = _is_local(args.host)
    if key is None and not local and not args.open:
        raise UsageError(
            f"on {args.host} others can come: name the variable of a key with --api-key-env,"
            " or say --open to serve everybody"
        )
    names = {name.lower() for name in args.allow_host}
    hosts = frozenset(names | LOCAL_NAMES | {args.host.lower()}) if local or names else frozenset()
    return Settings(api_key=key, hosts=hosts, intake=Limits(remote=tuple(args.allow_remote)))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def default_folder() -> Path:
    """``$XDG_STATE_HOME/unireel/jobs``, by default in ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unireel" / "jobs"
