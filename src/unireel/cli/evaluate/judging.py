"""What commands with a judge share: its options, making it, and what it cost."""

import argparse
from typing import TYPE_CHECKING, Any

from unireel.cli.options import real_number, whole_number
from unireel.errors import UsageError

if TYPE_CHECKING:
    from unireel.backbones.remote import Endpoint


def add_judge_options(parser: Any) -> None:
    """Add the options of a judge behind an endpoint."""
    parser.add_argument(
        "--judge-url", metavar="URL", help="an OpenAI-compatible endpoint, http://host:port/v1"
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the model there")
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


def make_judge(args: argparse.Namespace) -> "Endpoint":
    """The judge that the options describe; nothing is sent yet.

    Raises:
        UsageError: an option is missing or wrong.
    """
    from unireel.backbones.remote import Endpoint

    if not args.judge_url or not args.judge_model:
        raise UsageError("the metric 'judge' needs --judge-url and --judge-model")
    prices(args)
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


def cost(args: argparse.Namespace, judge: "Endpoint") -> dict[str, Any]:
    """What the judge used in this run."""
    spent: dict[str, Any] = {"url": judge.url, "model": judge.model, **judge.spent.to_dict()}
    both = prices(args)
    if both is not None:
        tokens = judge.spent.prompt_tokens * both[0] + judge.spent.completion_tokens * both[1]
        spent["cost"] = round(tokens / 1e6, 6)
    return spent
