"""What temperature alignment costs a sampling step: the same transformer with and without it, in turns, in one run.

Progress runs from 0 to 1 over the pairs, so that each gain has its turn; setting it is timed too.

    python benchmarks/temperature_cost.py                    # pocket/base's transformer, 17 frames, both branches
    python benchmarks/temperature_cost.py --width 1536 --layers 2 --latents 5x30x52    # two layers of Wan2.1 1.3B

Prints the median and the 95 % bootstrap interval of the ratio of processor times of neighbouring pairs.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import argparse
import copy
import time

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from unireel.hub import ASSETS
from unireel.systems.univid.temperature import AlignedAttention, align


def transformer(args: argparse.Namespace) -> WanTransformer3DModel:
    """Pocket/base's, or a Wan transformer of random weights with heads of 128."""
    if args.width == 0:
        return WanTransformer3DModel.from_pretrained(ASSETS / "pocket" / "base" / "transformer").eval()
    return WanTransformer3DModel(
        num_attention_heads=args.width // 128,
        attention_head_dim=128,
        in_channels=16,
        out_channels=16,
        ffn_dim=14 * args.width // 3,
        num_layers=args.layers,
        cross_attn_norm=True,
    ).eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--latents", default="5x12x12", help="frames x height x width")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument(
        "--picture", action="store_true", help="with a reference picture, so that both gains act"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = transformer(args)
    frames, height, width = map(int, args.latents.split("x"))
    batch = 2  # both branches of guidance
    values = {
        "hidden_states": torch.randn(batch, model.config.in_channels, frames, height, width),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, 50 if args.width == 0 else 512, model.config.text_dim),
    }

    models = [model, copy.deepcopy(model)]

    def step(which: int, gains: AlignedAttention | None, progress: float) -> float:
        start = time.process_time()
        if gains:
            gains.set(progress)
        models[which](**values)
        return time.process_time() - start

    # Two copies are never equally fast, so each is the aligned one for half of the measurements.
    halves: list[list[float]] = []
    plain: list[float] = []
    for aligned in (0, 1):
        ratios = []
        with align(models[aligned], reference=args.picture) as gains:
            for number in range(-2, args.pairs):
                progress = max(0, number) / args.pairs
                first = (aligned, 1 - aligned) if number % 2 else (1 - aligned, aligned)
                times = {which: step(which, gains if which == aligned else None, progress) for which in first}
                if number >= 0:
                    ratios.append(times[aligned] / times[1 - aligned])
                    plain.append(times[1 - aligned])
        halves.append(ratios)
    random = np.random.default_rng(0)
    draws = np.stack([random.choice(np.log(each), (2000, len(each))) for each in halves])
    low, high = np.exp(np.quantile(np.median(draws, 2).mean(0), (0.025, 0.975)))
    ratio = np.exp(np.mean([np.median(np.log(each)) for each in halves]))
    print(
        f"step {1000 * np.median(plain):.1f} ms; with alignment x {ratio:.4f} "
        f"(95 % {low:.4f} to {high:.4f}), 2 x {args.pairs} pairs"
    )


if __name__ == "__main__":
    main()
