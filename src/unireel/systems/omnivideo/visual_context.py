"""Source films as context: 3D patches of their latents, beside text and visual tokens."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from unireel.errors import UsageError

VISUAL_CONTEXT_PARAMETERS = {"1.3B": 6_690_304, "A14B": 22_291_456}
"""Of the published models: ``hidden`` is the decoder's width, 1536 or 5120."""


class VisualContextAdapter(ModelMixin, ConfigMixin):
    """One token of context for every ``patch`` x ``patch`` latents of a latent frame.

    Args:
        channels: of the latents.
        hidden: width between the two layers; the decoder's in the published models.
        width: of the context.
        patch: latents along the side of a patch, 1 latent frame deep.
        positions: whether a fixed code of each token's place (latent frame, row, column) is added. The published
            models have none: their decoder cannot tell where a token comes from.
        base: longest wavelength of that code, in tokens, over 2 pi.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 16,
        hidden: int = 1536,
        width: int = 4096,
        patch: int = 4,
        positions: bool = True,
        base: float = 10_000.0,
    ) -> None:
        super().__init__()
        size = (1, patch, patch)
        self.patch_embedding = nn.Conv3d(channels, hidden, size, size)
        self.projection = nn.Linear(hidden, width)
        for weight in (self.patch_embedding.weight.flatten(1), self.projection.weight):
            nn.init.xavier_uniform_(weight)
        for layer in (self.patch_embedding, self.projection):
            nn.init.zeros_(layer.bias)

    def forward(self, latents: Tensor) -> Tensor:
        """Tokens (B, T * (h / patch) * (w / patch), ``width``) of latents (B, C, T, h, w), frame by frame, row by row.

        Raises:
            UsageError: the latents are smaller than a patch.
        """
        patch = self.config["patch"]
        if min(latents.shape[-2:]) < patch:
            raise UsageError(
                f"latents of {latents.shape[-1]}x{latents.shape[-2]} are smaller than a patch of {patch}x{patch}"
            )
        grid = self.patch_embedding(latents.to(self.projection.weight.dtype))
        tokens = _normal(grid.flatten(2).mT)
        tokens = _normal(self.projection(tokens))
        if self.config["positions"]:
            frames, rows, columns = (int(each) for each in grid.shape[-3:])
            code = place_code(frames, rows, columns, tokens.shape[-1], self.config["base"])
            tokens = tokens + code.to(tokens)
        return tokens

    def count(self, frames: int, height: int, width: int) -> int:
        """Tokens of a film of so many latent frames, latents in height and in width."""
        patch = self.config["patch"]
        return frames * (height // patch) * (width // patch)


def _normal(tokens: Tensor) -> Tensor:
    """Layer norm without weights, as the released adapter has it."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def place_code(frames: int, rows: int, columns: int, width: int, base: float = 10_000.0) -> Tensor:
    """Sines and cosines of each token's place: (``frames`` * ``rows`` * ``columns``, ``width``) float32.

    A third of the channels for each axis, as in the original transformer (arXiv 1706.03762); what is left of
    ``width`` is zero.
    """
    share = width // 6
    rates = base ** -(torch.arange(share) / max(share, 1))
    axes = torch.meshgrid(*(torch.arange(n).float() for n in (frames, rows, columns)), indexing="ij")
    waves = [axis.flatten()[:, None] * rates for axis in axes]
    code = torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=1)
    return F.pad(code, (0, width - code.shape[1]))
