"""Several servers behind one address, on one machine or on many, run by Ray Serve; stops with Ctrl-C or SIGTERM.

    pip install 'unireel[serve,ray]'
    python recipes/serve/ray.py --replicas 2                       # both on this machine

The HTTP address and Ray are on the loopback then, but Ray Serve opens a port in each of its processes on all addresses,
which it has no setting for: have a firewall before the machine's other ports.

On several machines, Ray is started first, and each machine is told which members it is to have:

    export RAY_USAGE_STATS_ENABLED=0
    ray start --head --resources '{"unireel-0": 1}'                # on the first
    ray start --address FIRST:6379 --resources '{"unireel-1": 1}'  # on the second
    UNIREEL_KEY=... python recipes/serve/ray.py --cluster --replicas 2 --gpus 1 --host 0.0.0.0 --api-key-env UNIREEL_KEY

The options of ``unireel serve`` hold for each member. See docs/serving.md, "More than one".
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

# A script's folder is the first place in which Python looks for modules, and there `ray` is this file.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [each for each in sys.path if Path(each or os.curdir).resolve() != _HERE]

from unireel.cli.options import real_number, whole_number  # noqa: E402
from unireel.cli.serve import add_serving_options, default_folder, settings_of  # noqa: E402
from unireel.errors import UserError  # noqa: E402

STORE_BYTES = 2**29
"""Of shared memory for what is on its way between processes, on a machine that is not in a cluster."""


def main() -> int:
    """Start the members and their front, and wait for a signal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=whole_number(1, 64), default=2, help="members (default: 2)")
    parser.add_argument(
        "--cluster", action="store_true", help="use the cluster that this machine is in, with members pinned"
    )
    parser.add_argument("--cpus", type=real_number(0, 1024), default=1.0, help="of each member (default: 1)")
    parser.add_argument("--gpus", type=real_number(0, 64), default=0.0, help="of each member (default: 0)")
    add_serving_options(parser)
    args = parser.parse_args()
    try:
        serve_until_told(args)
    except UserError as error:
        print(f"unireel: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def serve_until_told(args: argparse.Namespace) -> None:
    """Check the options, start, and stop at a signal.

    Raises:
        UserError: the options cannot be, the model is not there, or Ray is not installed.
    """
    from unireel.hub import find_model

    settings = settings_of(args)
    find_model(args.model)
    # Both are read when Ray is imported: it would tell its makers about every start, and a machine that is in no
    # cluster has no reason to be reached from outside (Ray's word for that is about other systems).
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not args.cluster:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
        from ray import serve

        from unireel.serving.replicas.member import Spec
        from unireel.serving.replicas.on_ray import QUIET, application
    except ModuleNotFoundError as error:
        raise UserError(
            f"this needs {error.name}, which is not installed: pip install 'unireel[serve,ray]'"
        ) from None
    spec = Spec(
        model=args.model,
        device=args.device,
        jobs=(args.jobs or default_folder()).resolve(),
        batch=args.batch,
        queue=args.queue,
        keep=args.keep,
        quota=args.quota,
        grace=args.grace,
        settings=settings,
    )
    if args.cluster:
        ray.init(address="auto")
    else:
        processors = max(os.cpu_count() or 1, int(args.replicas * args.cpus) + 1)
        ray.init(
            address="local", include_dashboard=False, num_cpus=processors, object_store_memory=STORE_BYTES
        )
    told = threading.Event()
    try:
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": args.host, "port": args.port},
            logging_config=QUIET,
        )
        app = application(spec, args.replicas, args.cpus, args.gpus, pinned=args.cluster)
        serve.run(app, name="unireel", route_prefix="/")
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: told.set())
        print(f"unireel: {args.replicas} x {args.model} on http://{args.host}:{args.port}", flush=True)
        told.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
