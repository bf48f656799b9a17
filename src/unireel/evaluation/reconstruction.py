"""How well a video autoencoder keeps the World: PSNR, and whether the checker still sees what is true.

``python -m unireel.evaluation.reconstruction FOLDER`` prints both for the autoencoder in ``FOLDER``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKLCosmos
from torch import nn

from unireel.backbones.vae import decode, encode
from unireel.clip import Clip
from unireel.data.world import films, psnr, scenes, to_frames, to_pixels
from unireel.evaluation.intervals import Score, mean, rate
from unireel.world.checker import CATEGORIES, observe, scene_facts, shows
from unireel.world.scene import FPS
from unireel.world.splits import SPLITS

BATCH = 20


@torch.no_grad()
def reconstruction_scores(
    vae: nn.Module, n: int, size: int, seed: int = 0, split: str = "test"
) -> dict[str, Score]:
    """Encode and decode ``n`` films of the World's mixture and check what comes back.

    Returns:
        ``psnr`` (dB, mean over films), ``statements`` (true statements about the films that the checker still accepts),
        ``agreement`` (films in which it accepts all of them) and ``agreement/<category>`` (films in which it accepts
        all of the category's).
    """
    quality: list[float] = []
    kept: dict[str, list[bool]] = {category: [] for category in CATEGORIES}
    whole: list[bool] = []
    statements: list[bool] = []
    for start in range(0, n, BATCH):
        batch = scenes(seed, start, min(BATCH, n - start), size, split)
        originals = films(batch)
        rebuilt = to_frames(decode(vae, encode(vae, to_pixels(originals))))
        quality += psnr(originals, rebuilt).tolist()
        for scene, frames in zip(batch, rebuilt, strict=True):
            seen = observe(Clip(frames, FPS))
            holds = {"objects": [bool(shows(seen, scene))]}
            for category, fact in scene_facts(scene):
                holds.setdefault(category, []).append(bool(seen.holds(fact)))
            for category, outcomes in holds.items():
                kept[category].append(all(outcomes))
            said = [outcome for outcomes in holds.values() for outcome in outcomes]
            statements += said
            whole.append(all(said))
    parts = {f"agreement/{category}": rate(outcomes) for category, outcomes in kept.items() if outcomes}
    return {"psnr": mean(quality), "statements": rate(statements), "agreement": rate(whole)} | parts


def main() -> None:
    """Measure an autoencoder on fresh films of the World."""
    parser = argparse.ArgumentParser(
        prog="python -m unireel.evaluation.reconstruction", description=main.__doc__
    )
    parser.add_argument("vae", type=Path, help="folder of the autoencoder")
    parser.add_argument("--n", type=int, default=500, help="films")
    parser.add_argument("--size", type=int, default=48, choices=(32, 48, 64), help="canvas side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    vae = AutoencoderKLCosmos.from_pretrained(options.vae).eval()
    found = reconstruction_scores(vae, options.n, options.size, options.seed, options.split)
    if options.json:
        print(json.dumps({key: asdict(score) for key, score in found.items()}))
        return
    for key, score in found.items():
        print(f"{key:24s} {score.value:8.3f}  ({score.low:.3f} to {score.high:.3f}, n = {score.n})")


if __name__ == "__main__":
    main()
