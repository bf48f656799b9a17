"""Latents of a film cache, encoded once with a trained autoencoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unireel.backbones.vae import encode
from unireel.data.cache import FilmCache
from unireel.data.world import to_pixels


def autoencoder_digest(folder: str | Path) -> str:
    """A digest of the autoencoder in ``folder``, to tell latents of one from latents of another."""
    files = sorted(each for each in Path(folder).iterdir() if each.is_file())
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:16]


@torch.no_grad()
def latents_of(films: FilmCache, vae: nn.Module, digest: str, batch: int = 32, progress: bool = True) -> np.ndarray:
    """Normalised latents (N, C, T, h, w) float16 of all films, memory-mapped; made on the first call.

    They are kept beside the films under the autoencoder's ``digest``; a half-made file is gone on with.
    """
    from tqdm import tqdm

    path = films.folder / f"latents-{digest}.npy"
    state = path.with_suffix(".json")
    done = json.loads(state.read_text())["done"] if state.exists() else 0
    if done < len(films):
        vae.eval()
        shape = (len(films), *encode(vae, to_pixels(films.frames[:1])).shape[1:])
        latents = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, None if done else shape)
        for start in tqdm(range(done, len(films), batch), desc="latents", disable=None if progress else True):
            latents[start : start + batch] = encode(vae, to_pixels(films.frames[start : start + batch])).numpy()
            if start // batch % 50 == 49:
                latents.flush()
                state.write_text(json.dumps({"done": start + batch}))
        latents.flush()
        state.write_text(json.dumps({"done": len(films)}))
    return np.load(path, mmap_mode="r")
