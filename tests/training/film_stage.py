"""A small real video transformer that learns by flow matching, with parameters before and behind it."""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from unireel.training import Stage


@dataclass(frozen=True)
class FilmConfig:
    """``latents``: (T, h, w) of a film."""

    heads: int = 2
    latents: tuple[int, int, int] = (3, 4, 4)


class FilmStage(Stage):
    """Everything random is part of the batch, so that any layout of processes must learn the same."""

    config_class = FilmConfig

    def __init__(self, config: FilmConfig) -> None:
        super().__init__(config)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=config.heads, attention_head_dim=12, in_channels=4,
            out_channels=4, text_dim=8, freq_dim=16, ffn_dim=30, num_layers=2, cross_attn_norm=True,
            rope_max_seq_len=64,
        )  # fmt: skip
        self.module = nn.ModuleDict(
            {"words": nn.Embedding(7, 8), "transformer": transformer, "last": nn.Conv3d(4, 4, 1)}
        )

    def batch(self, index: int) -> dict[str, Tensor]:
        """Two films and noise (B, C, T, h, w), their words (B, L), flow times of their tokens (B, N)."""
        random = torch.Generator().manual_seed(100 + index)
        frames, rows, columns = self.config.latents
        shape = (2, 4, frames, rows, columns)
        tokens = frames * rows * columns // 4
        return {
            "films": torch.randn(shape, generator=random) + 1,
            "noise": torch.randn(shape, generator=random),
            "words": torch.randint(7, (2, 5), generator=random),
            "times": torch.rand(2, 1, generator=random).repeat(1, tokens),
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Squared error of the velocity, and a loss of the words that the transformer has no part in."""
        text = self.module["words"](batch["words"])
        time = batch["times"][:, 0].view(-1, 1, 1, 1, 1)
        state = torch.lerp(batch["films"], batch["noise"], time)
        output = self.module["transformer"](
            hidden_states=state, timestep=1000 * batch["times"], encoder_hidden_states=text, return_dict=False
        )[0]
        error = self.module["last"](output) - (batch["noise"] - batch["films"])
        return error.square().mean() + text.square().mean(), {}

    def export(self, folder: Path) -> None:
        """The transformer as diffusers has it."""
        self.module["transformer"].save_pretrained(folder / "transformer")
