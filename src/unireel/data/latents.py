"""Latents of a film cache, encoded once with a trained autoencoder."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCosmos
from torch import nn

from unireel.backbones.vae import encode
from unireel.data.cache import FilmCache
from unireel.data.world import to_pixels


def encoder_digest(vae: nn.Module) -> str:
    """A digest of what an autoencoder's latents depend on, to tell latents of one from latents of another: weights
    that encode, as float32, and the statistics that normalise. Decoders can go on learning."""
    config: Any = vae.config
    digest = hashlib.sha256(json.dumps([config["latents_mean"], config["latents_std"]]).encode())
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def latents_of(
    films: FilmCache, vae: nn.Module, count: int, batch: int = 32, progress: bool = True
) -> np.ndarray:
    """Normalised latents (``count``, C, T, h, w) float16 of the first films, memory-mapped; made where missing.

    They are kept beside the films under :func:`encoder_digest`; an unfinished or shorter file is gone on with.
    """
    from tqdm import tqdm

    path = films.folder / f"latents-{encoder_digest(vae)}.npy"
    state = path.with_suffix(".json")
    done = json.loads(state.read_text())["done"] if state.exists() else 0
    count = min(count, len(films))
    if done < count:
        vae.eval()
        shape = (len(films), *encode(vae, to_pixels(films.frames[:1])).shape[1:])
        latents = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, None if done else shape)
        for start in tqdm(range(done, count, batch), desc="latents", disable=None if progress else True):
            end = min(start + batch, len(films))
            latents[start:end] = encode(vae, to_pixels(films.frames[start:end])).numpy()
            if start // batch % 20 == 19:
                latents.flush()
                state.write_text(json.dumps({"done": end}))
        latents.flush()
        state.write_text(json.dumps({"done": count}))
    return np.load(path, mmap_mode="r")[:count]


def main() -> None:
    """Make the latents of a cache from the command line, to use all cores before a training that uses one."""
    parser = argparse.ArgumentParser(description="Encode the films of a cache with an autoencoder.")
    parser.add_argument("films", type=Path, help="folder of the film cache")
    parser.add_argument("vae", type=Path, help="folder of the autoencoder")
    parser.add_argument("--count", type=int, default=40_000)
    args = parser.parse_args()
    vae = AutoencoderKLCosmos.from_pretrained(args.vae)
    print(latents_of(FilmCache(args.films), vae, args.count).shape)


if __name__ == "__main__":
    main()
