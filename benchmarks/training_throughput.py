"""Training steps of the pocket DiT on films: a plain diffusers/PyTorch loop, and what our trainer does, in turns.

    python benchmarks/training_throughput.py --clock cpu --threads 1
    python benchmarks/training_throughput.py --compile          # compiling takes minutes and is not counted

The plain loop encodes each batch's films with the autoencoder, computes in float32 with diffusers' attention, and steps
torch's AdamW as it comes. Ours reads cached latents, computes under bfloat16 autocast with attention as products of
matrices, clips all gradients at once, steps the fused AdamW, and with --compile has its blocks compiled, as
recipes/pocket/generator.yaml does.
Prints films a second, and the median ratio with its quartiles.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import unireel
from unireel.backbones.vae import encode
from unireel.backbones.wan import MatmulAttention, predict
from unireel.bench.measure import Contestant, Stopwatch, race, ratio
from unireel.training.distributed import Parallel, clip_gradients
from unireel.training.precision import autocast, resolve

PLAIN, OURS = "plain loop", "unireel"


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: str,
    clip: Callable[[list[torch.nn.Parameter]], Tensor],
) -> Callable[[Tensor], Tensor]:
    """One update by flow matching on the given latents (B, C, T, h, w); returns the loss."""
    parameters = list(model.parameters())
    text = torch.randn(1, 50, model.config["text_dim"])

    def update(data: Tensor) -> Tensor:
        time, noise = torch.rand(len(data)), torch.randn_like(data)
        state = torch.lerp(data, noise, time.view(-1, 1, 1, 1, 1))
        with torch.enable_grad(), autocast(precision, torch.device("cpu")):
            output = predict(model, state, 1000 * time, text.expand(len(data), -1, -1))
            loss = (output.float() - data).square().mean()
        loss.backward()
        clip(parameters)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return update


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps: a plain loop, and what our trainer does.")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipeline = unireel.load("pocket/base", device="cpu", fast=False)
    pixels = torch.rand(args.batch, 3, 17, 48, 48) * 2 - 1
    with torch.no_grad():
        cached = encode(pipeline.vae, pixels)
    plain, fast = (copy.deepcopy(pipeline.transformer).train() for _ in range(2))
    fast.set_attn_processor(MatmulAttention())
    if args.compile:
        fast.compile_repeated_blocks(dynamic=False)
    slow = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    slow_step = step(plain, slow, "fp32", partial(torch.nn.utils.clip_grad_norm_, max_norm=1.0))
    alone = Parallel(0, 1, torch.device("cpu"), sharded=False)
    precision = resolve("auto", torch.device("cpu"))
    fused = torch.optim.AdamW(fast.parameters(), lr=1e-4, fused=True)
    fast_step = step(fast, fused, precision, partial(clip_gradients, limit=1.0, parallel=alone))

    def run_plain(number: int, watch: Stopwatch) -> Tensor:
        with watch.stage("encode"):
            data = encode(pipeline.vae, pixels)
        with watch.stage("step"):
            return slow_step(data)

    def run_ours(number: int, watch: Stopwatch) -> Tensor:
        with watch.stage("step"):
            return fast_step(cached)

    contestants = [Contestant(PLAIN, run_plain, 0, "float32"), Contestant(OURS, run_ours, 0, "bfloat16")]
    results = race(contestants, args.rounds, args.clock)
    for name, runs in results.items():
        stages = ", ".join(f"{stage} {runs.median(stage):.3f} s" for stage in runs.seconds)
        print(f"{name:12} {args.batch / runs.median():7.1f} films a second ({stages})")
    for stage in ("whole", "step"):
        middle, low, high = ratio(results[PLAIN], results[OURS], stage)
        print(f"{stage}: {middle:.2f} times faster ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
