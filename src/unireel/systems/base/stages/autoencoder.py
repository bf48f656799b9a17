"""Training the causal 3D autoencoder: reconstruction of World films, first on crops, then whole."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unireel.backbones.linear_start import linear_start
from unireel.backbones.vae import pocket_autoencoder, statistics
from unireel.backbones.widen import with_wider_decoder
from unireel.data.world import changing, films, foreground, psnr, scenes, to_frames, to_pixels
from unireel.systems.base.stages.redrawing import Redrawing
from unireel.training.stage import Stage
from unireel.world.sampling import CATEGORIES, MIXTURE


@dataclass(frozen=True)
class AutoencoderConfig:
    """What the autoencoder is and what it sees.

    ``crop`` is the side of the square crops in pixels (0: whole films), ``frames`` their length; ``noise`` the standard
    deviation of the noise on latents, whose own root mean square is held near 1 by ``penalty``; ``most_noise``, in the
    latents' own standard deviations, more noise of a strength that differs from film to film, so that a decoder mends
    what generators get slightly wrong (arXiv 2510.11690); ``foreground`` the extra weight of pixels that are not
    background, ``change`` that of pixels that change within a block of four frames.
    ``decoder_only`` keeps the encoder, and with it the latent space, of ``start_from``; its decoder is widened to
    ``decoder_width`` if it is narrower (:mod:`unireel.backbones.widen`). Such a decoder can learn to mend what a
    generator gets slightly wrong: a share ``redrawn`` of the batches are whole films whose latents were drawn again by
    the ``generator``, a base model, in ``redrawing_steps`` steps from a flow time between the two of ``redrawn_from``.
    """

    size: int = 48
    crop: int = 0
    frames: int = 17
    batch_size: int = 16
    encoder_width: int = 48
    decoder_width: int = 64
    latent_channels: int = 16
    layers: int = 1
    noise: float = 0.05
    most_noise: float = 0.0
    penalty: float = 1e-3
    foreground: float = 3.0
    change: float = 5.0
    data_seed: int = 1
    start_from: str = ""
    decoder_only: bool = False
    generator: str = ""
    redrawn: float = 0.0
    redrawn_from: tuple[float, float] = (0.2, 0.7)
    redrawing_steps: int = 3

    def __post_init__(self) -> None:
        if self.redrawn and not (self.generator and self.decoder_only and not self.crop):
            raise ValueError("redrawn: needs a generator, decoder_only, and whole films (crop 0)")


class AutoencoderStage(Stage):
    """Reconstruction with a smooth L1 loss; latents are kept near unit scale and made robust by noise."""

    config_class = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.module = pocket_autoencoder(
            config.encoder_width, config.decoder_width, config.latent_channels, config.layers
        )
        if config.start_from:
            self.module = type(self.module).from_pretrained(config.start_from)
            if config.decoder_only:
                own = self.module.config["decode_block_out_channels"][0]
                self.module = with_wider_decoder(self.module, max(config.decoder_width, own))
                self.module.encoder.requires_grad_(False)
                self.module.quant_conv.requires_grad_(False)
        else:
            linear_start(self.module, to_pixels(films(scenes(config.data_seed, 0, 256, config.size))))
        self.samples_per_batch = config.batch_size
        self._redraw = None
        if config.redrawn:
            self._redraw = Redrawing(config.generator, *config.redrawn_from, config.redrawing_steps)
        self._test = films(scenes(7, 0, 24, config.size, "test"))

    def batch(self, index: int) -> dict[str, Tensor]:
        """``pixels`` (B, 3, F, S, S) in [-1, 1] and ``weight`` (B, 1, F, S, S) of crops or whole films; of those to be
        drawn again also their plans' ``ids`` and ``mask`` (B, L)."""
        own = self.config
        per_film = 2 if own.crop and own.frames <= 9 else 1
        count = own.batch_size // per_film
        category = CATEGORIES[index % len(CATEGORIES)] if index % 3 == 0 else MIXTURE
        drawn = scenes(own.data_seed, index * count, count, own.size, category=category)
        whole = films(drawn)
        mask = own.foreground * foreground(whole) + own.change * changing(whole)
        if own.crop or own.frames < whole.shape[1]:
            random = np.random.default_rng([own.data_seed, index])
            pieces = [_crop(whole[i], mask[i], own, random) for i in range(count) for _ in range(per_film)]
            whole, mask = np.stack([p[0] for p in pieces]), np.stack([p[1] for p in pieces])
        batch = {"pixels": to_pixels(whole), "weight": torch.from_numpy(1 + mask[:, None]).float()}
        if self._redraw is not None and int((index + 1) * own.redrawn) > int(index * own.redrawn):
            ids, there = self._redraw.words(drawn)
            batch |= {"ids": ids, "mask": there}
        return batch

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted smooth L1 on pixels plus a small pull of the latents towards unit scale."""
        pixels, weight = batch["pixels"], batch["weight"]
        latents = self.module.encode(pixels).latent_dist.mode()
        seen = latents
        if self._redraw is not None and "ids" in batch:
            mean, std = statistics(self.module, latents)
            seen = std * self._redraw((latents - mean) / std, batch["ids"], batch["mask"]) + mean
        noisy = seen + self._noise(latents) * torch.randn_like(latents)
        output = self.module.decode(noisy).sample
        error = F.smooth_l1_loss(output, pixels, beta=0.1, reduction="none")
        reconstruction = (error * weight).sum() / (3 * weight.sum())
        scale = latents.float().pow(2).mean()
        loss = reconstruction + self.config.penalty * (scale - 1).clamp_min(0)
        quality = 10 * torch.log10(4 / F.mse_loss(output.detach(), pixels))
        name = "redrawn_psnr" if "ids" in batch else "psnr"
        return loss, {name: quality, "latent_rms": scale.detach().sqrt()}

    def _noise(self, latents: Tensor) -> Tensor | float:
        """Standard deviation of the noise on ``latents``: the same for all, or (B, C, 1, 1, 1)."""
        own = self.config
        if not own.most_noise:
            return own.noise
        each = latents.detach().std(dim=(0, 2, 3, 4), keepdim=True)
        share = torch.rand(len(latents), 1, 1, 1, 1, device=latents.device)
        return own.noise + own.most_noise * share * each

    @torch.no_grad()
    def _reconstruct(self, frames: np.ndarray) -> tuple[np.ndarray, Tensor]:
        latents = self.module.encode(to_pixels(frames).to(self.device)).latent_dist.mode()
        return to_frames(self.module.decode(latents).sample), latents

    def evaluate(self) -> dict[str, float]:
        """PSNR in dB on whole test films, its worst film, and on the first frame alone as a picture."""
        whole, latents = self._reconstruct(self._test)
        picture, _ = self._reconstruct(self._test[:, :1])
        score = psnr(self._test, whole)
        return {
            "test_psnr": float(score.mean()),
            "test_psnr_worst": float(score.min()),
            "picture_psnr": float(psnr(self._test[:, :1], picture).mean()),
            "latent_std": float(latents.std()),
        }

    def samples(self) -> dict[str, np.ndarray]:
        """Test films over their reconstructions, every fourth frame."""
        whole, _ = self._reconstruct(self._test[:8])
        rows = [
            np.concatenate(list(film[::4]), axis=1)
            for pair in zip(self._test, whole, strict=False)
            for film in pair
        ]
        return {"reconstruction": np.concatenate(rows, axis=0)}

    def export(self, folder: Path) -> None:
        """Measure the latents' statistics (unless the encoder is as it was), configure them and save ``folder/vae``."""
        if self.config.decoder_only:
            self.module.save_pretrained(folder / "vae")
            return
        latents = torch.cat(
            [self._reconstruct(films(scenes(11, i * 32, 32, self.config.size)))[1] for i in range(8)]
        )
        values = latents.transpose(0, 1).flatten(1)
        self.module.register_to_config(
            latents_mean=values.mean(1).tolist(), latents_std=values.std(1).tolist()
        )
        self.module.save_pretrained(folder / "vae")


def _crop(frames: np.ndarray, mask: np.ndarray, config: AutoencoderConfig, random: np.random.Generator):
    """A piece of one film of the wanted side and length that, if it can, holds some foreground."""
    side = config.crop or config.size
    start = int(random.integers(0, (frames.shape[0] - config.frames) // 4 + 1)) * 4
    top, left = random.integers(0, config.size - side + 1, 2)
    places = np.argwhere(mask[start : start + config.frames].max(0) > 0)
    if len(places) and side < config.size:
        y, x = places[random.integers(len(places))]
        top, left = (int(np.clip(v - random.integers(4, side - 4), 0, config.size - side)) for v in (y, x))
    part = slice(start, start + config.frames), slice(top, top + side), slice(left, left + side)
    return frames[part], mask[part]
