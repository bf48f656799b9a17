"""Reconstruction scores: a perfect autoencoder against one that forgets."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unireel.evaluation.reconstruction import reconstruction_scores


class Identity(nn.Module):
    """An autoencoder that keeps everything, or only every film's first frame."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.config = {"latents_mean": [0.0] * 3, "latents_std": [1.0] * 3}
        self.frozen = frozen

    def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
        kept = pixels[:, :, :1].expand_as(pixels) if self.frozen else pixels
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: kept))

    def decode(self, latents: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_kept_and_what_is_not(frozen):
    scores = reconstruction_scores(Identity(frozen), 24, 48)
    assert scores["agreement/background"].value == 1.0 and scores["agreement"].n == 24
    assert scores["statements"].n > 24 * 5 and scores["statements"].value >= scores["agreement"].value
    if frozen:
        assert scores["agreement"].value < 0.5
        assert scores["agreement/motion: move"].value == 0.0
    else:
        assert scores["psnr"].value > 90 and scores["agreement"].value >= 0.95
