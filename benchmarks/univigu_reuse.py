"""What reading a film once is worth: the same description of a film, with the film read once or at every step.

    python benchmarks/univigu_reuse.py                 # the pocket model's sizes, random weights, 32 slots

Prints the largest difference of probabilities (0 but for rounding, as nothing given reads what is being made), whether
the words are the same, and the ratio of processor times with its 95 % bootstrap interval.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from unireel.backbones.text import word_tokenizer
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.wan import MatmulAttention
from unireel.flow.formulations import text_flow
from unireel.hub import ASSETS
from unireel.systems.univigu.pages import caption_text, page_of
from unireel.systems.univigu.writing import write
from unireel.world.language import vocabulary


@torch.no_grad()
def main() -> None:
    """Time both ways in turns, each on the same noise."""
    parser = argparse.ArgumentParser(description="Compare reading a film once with reading it at every step.")
    parser.add_argument("--films", type=int, default=1)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = word_tokenizer(vocabulary())
    video = WanTransformer3DModel.from_pretrained(ASSETS / "pocket" / "base" / "transformer").float()
    model = with_text(video, len(tokenizer), text_slots=96).eval()
    model.set_attn_processor(MatmulAttention())
    model.text_head.weight.normal_(std=0.3)
    flow = text_flow("uniform", len(tokenizer))
    page = page_of(tokenizer, [caption_text(None)] * args.films, args.slots, 96)
    latents = torch.randn(args.films, video.config["out_channels"], 5, 12, 12)
    context = torch.zeros(args.films, 50, video.config["text_dim"])
    seconds: dict[bool, list[float]] = {True: [], False: []}
    said = {}
    for _ in range(args.rounds):
        for reuse in (True, False):
            start = time.process_time()
            generator = torch.Generator().manual_seed(0)
            said[reuse] = write(
                model, flow, page, context, tokenizer.eos_token_id, latents, reuse=reuse, generator=generator
            )
            seconds[reuse].append(time.process_time() - start)
    once, every = said[True], said[False]
    difference = float((once.probabilities - every.probabilities).abs().max())
    print(
        f"the same words: {torch.equal(once.ids, every.ids)}; largest difference of probabilities {difference:.1e}"
    )
    ratios = np.array(seconds[False][1:]) / np.array(seconds[True][1:])
    draws = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    print(
        f"{args.slots} evaluations: read once {np.median(seconds[True]):.3f} s, at every step "
        f"{np.median(seconds[False]):.3f} s, ratio {np.median(ratios):.2f} ({low:.2f}-{high:.2f})"
    )


if __name__ == "__main__":
    main()
