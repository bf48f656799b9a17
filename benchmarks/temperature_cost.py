"""What temperature alignment costs a sampling step: the same transformer with and without it, in turns, in one run.

Progress runs from 0 to 1 over the pairs, with a reference picture, so that both gains have their turn; setting them is
timed too.

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
from unireel.systems.univid.temperature import TemperatureAlignment, align


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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--latents", default="5x12x12", help="frames x height x width")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--control", action="store_true", help="compare the model with itself")
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

    # Two copies, so that neither has to be changed between the measurements.
    models = {False: model, True: copy.deepcopy(model)}
    gains = align(models[True], TemperatureAlignment("none" if args.control else "cosine"), reference=True)

    def step(aligned: bool, progress: float) -> float:
        start = time.process_time()
        if aligned:
            gains.set(progress)
        models[aligned](**values)
        return time.process_time() - start

    for aligned in (False, True):
        step(aligned, 0.0)
    ratios, plain = [], []
    for number in range(args.pairs):
        order = (False, True) if number % 2 else (True, False)
        times = {aligned: step(aligned, number / args.pairs) for aligned in order}
        ratios.append(times[True] / times[False])
        plain.append(times[False])
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, 1), (0.025, 0.975))
    print(
        f"step {1000 * np.median(plain):.1f} ms; with alignment x {np.median(ratios):.4f} "
        f"(95 % {low:.4f} to {high:.4f}), {len(ratios)} pairs"
    )


if __name__ == "__main__":
    main()
