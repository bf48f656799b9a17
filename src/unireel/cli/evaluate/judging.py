"""What commands with a judge share: its options, making it, and what it cost."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import real_number, whole_number
from unireel.errors import UsageError

if TYPE_CHECKING:
    from unireel.backbones.remote import Endpoint
    from unireel.evaluation.editing.eyes import EndpointEyes, LocalEyes
    from unireel.evaluation.videoqa.local_judge import LocalJudge

LANGUAGE_MODEL = "a language model of the transformers library: a folder or a hub id"


def add_judge_options(parser: Any, local: str = LANGUAGE_MODEL) -> None:
    """Add the options of a judge: behind an endpoint, or on this machine (``local`` says what that may be)."""
    parser.add_argument(
        "--judge-url", metavar="URL", help="an OpenAI-compatible endpoint, http://host:port/v1"
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the model there")
    parser.add_argument(
        "--judge-local",
        metavar="MODEL",
        help=f"or {local}",
    )
    parser.add_argument("--judge-device", metavar="DEVICE", help="where that computes (default: CUDA if any)")
    parser.add_argument(
        "--judge-key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="the variable with the key (%(default)s)",
    )
    parser.add_argument(
        "--judge-requests", type=whole_number(1, 10**9), metavar="N", help="ask at most N times"
    )
    parser.add_argument(
        "--judge-tokens", type=whole_number(1, 10**12), metavar="N", help="stop after N tokens"
    )
    parser.add_argument(
        "--judge-price",
        metavar="IN,OUT",
        help="cost of a million tokens read and written, to report the cost",
    )
    parser.add_argument(
        "--judge-timeout", type=real_number(0.1, 3600), default=60.0, metavar="SECONDS", help="default: 60"
    )
    parser.add_argument(
        "--judge-parallel",
        type=whole_number(1, 256),
        default=4,
        metavar="N",
        help="requests at once (default: 4)",
    )


def has_judge(args: argparse.Namespace) -> bool:
    """Whether a judge is asked for, rightly or wrongly."""
    return any((args.judge_url, args.judge_model, args.judge_local))


def check_judge(args: argparse.Namespace) -> None:
    """Raise a :class:`UsageError` if an option is missing or wrong; nothing is sent or loaded."""
    prices(args)
    if args.judge_local:
        for name in ("url", "model", "requests", "tokens", "price"):
            if getattr(args, f"judge_{name}") is not None:
                raise UsageError(f"--judge-{name} is for a judge behind an endpoint, not for --judge-local")
    else:
        endpoint(args)


def make_judge(args: argparse.Namespace) -> "Endpoint | LocalJudge":
    """The judge that the options describe.

    Raises:
        UserError: an option is missing or wrong, or the local judge cannot be loaded.
    """
    check_judge(args)
    if not args.judge_local:
        return endpoint(args)
    from unireel.evaluation.videoqa.local_judge import LocalJudge

    return LocalJudge(args.judge_local, args.judge_device)


def make_eyes(args: argparse.Namespace) -> "EndpointEyes | LocalEyes":
    """The judge that sees, as the options describe it.

    Raises:
        UserError: an option is missing or wrong, or the local judge cannot be loaded.
    """
    from unireel.evaluation.editing.eyes import EndpointEyes, LocalEyes

    check_judge(args)
    if args.judge_local:
        return LocalEyes(Path(args.judge_local), args.judge_device)
    return EndpointEyes(endpoint(args))


def endpoint(args: argparse.Namespace) -> "Endpoint":
    """The judge behind an endpoint; nothing is sent yet."""
    from unireel.backbones.remote import Endpoint

    if not args.judge_url or not args.judge_model:
        raise UsageError("a judge needs --judge-url and --judge-model, or --judge-local")
    return Endpoint(
        args.judge_url,
        args.judge_model,
        key_variable=args.judge_key_env,
        timeout=args.judge_timeout,
        most_requests=args.judge_requests,
        most_tokens=args.judge_tokens,
    )


def prices(args: argparse.Namespace) -> tuple[float, float] | None:
    """The two numbers of ``--judge-price``."""
    if args.judge_price is None:
        return None
    try:
        read, written = map(float, args.judge_price.split(","))
    except ValueError:
        raise UsageError(f"--judge-price '{args.judge_price}': two numbers, for example 0.15,0.60") from None
    return read, written


def cost(
    args: argparse.Namespace, judge: "Endpoint | LocalJudge | EndpointEyes | LocalEyes"
) -> dict[str, Any]:
    """What the judge used in this run."""
    spent: dict[str, Any] = {"url": judge.url, "model": judge.model, **judge.spent.to_dict()}
    both = prices(args)
    if both is not None:
        tokens = judge.spent.prompt_tokens * both[0] + judge.spent.completion_tokens * both[1]
        spent["cost"] = round(tokens / 1e6, 6)
    return spent
