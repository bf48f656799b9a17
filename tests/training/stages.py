"""Small real stages that the trainer's tests train."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from unireel.training import ParameterRule, Stage


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of the regression problem."""

    batch_size: int = 8
    width: int = 16
    noise: float = 0.1
    pause: float = 0.0
    dropout: float = 0.1


class Network(nn.Module):
    """Embedding, convolution, hidden matrices, norm, head: each kind that the optimisers tell apart."""

    _no_split_modules = ("Block",)

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.conv = nn.Conv1d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(2))
        self.head = nn.Linear(width, 1)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """x (B, 6) float32, label (B,) int64 -> (B,)."""
        if self.training:
            self.calls += 1
        hidden = self.conv(x[:, None]).mean(-1) + self.embedding(label)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden).sum(-1)


class Block(nn.Module):
    """Residual two-layer block with dropout, which draws from torch's global generator."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, D)."""
        return x + self.down(
            nn.functional.dropout(torch.relu(self.up(self.norm(x))), self.dropout, self.training)
        )


class RegressionStage(Stage):
    """Regress a fixed function of six numbers and a label, under noise from every global generator."""

    config_class = RegressionConfig

    def __init__(self, config: RegressionConfig) -> None:
        super().__init__(config)
        self.module = Network(config.width, config.dropout)
        self.samples_per_batch = config.batch_size

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """x (B, 6) float32, label (B,) int64, y (B,) float32."""
        rng = np.random.default_rng((7, index))
        x = rng.standard_normal((self.config.batch_size, 6), dtype=np.float32)
        label = rng.integers(0, 5, self.config.batch_size)
        y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + label / 5
        return {
            "x": torch.from_numpy(x),
            "label": torch.from_numpy(label),
            "y": torch.from_numpy(y.astype(np.float32)),
        }

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Mean squared error of noisy inputs."""
        time.sleep(self.config.pause)
        noise = torch.randn_like(batch["x"]) * self.config.noise * float(np.random.uniform(0.5, 1.5))  # noqa: NPY002 - global, as a stage may
        difference = self.module(batch["x"] + noise, batch["label"]) - batch["y"].to(batch["x"].dtype)
        return difference.square().mean(), {"absolute": difference.abs().mean()}

    def samples(self) -> dict[str, np.ndarray]:
        """A grey picture of the predictions."""
        batch = self.batch(0)
        values = (
            torch.randn(())
            + self.module(batch["x"].to(self.device), batch["label"].to(self.device)).float().cpu()
        )
        row = (values.sigmoid() * 255).byte().numpy()
        return {"predictions": np.repeat(np.repeat(row[None, :, None], 8, 0), 3, 2)}

    def evaluate(self) -> dict[str, float]:
        """Mean squared error on held-out batches; the generator is used, which training must not notice."""
        batch = self.batch(10**6)
        prediction = self.module(batch["x"].to(self.device), batch["label"].to(self.device))
        return {
            "mse": float((prediction.float().cpu() - batch["y"]).square().mean()),
            "draw": float(torch.rand(())),
        }

    def export(self, folder: Path) -> None:
        """One safetensors file."""
        from safetensors.torch import save_file

        save_file(
            {name: t.clone() for name, t in self.module.state_dict().items()}, folder / "weights.safetensors"
        )


class GroupedStage(RegressionStage):
    """With exceptions to the learning rate."""

    def parameter_groups(self) -> tuple[ParameterRule, ...]:
        """A slow embedding and a frozen head."""
        return (ParameterRule("embedding.*", lr=0.5), ParameterRule("head.*", lr=0.0))


class MixedStage(RegressionStage):
    """With two kinds of batches that log different things."""

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """Also the batch's number."""
        return {**super().batch(index), "index": torch.tensor(index)}

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Every third batch logs its number as "third", the others as "other"."""
        loss, _ = super().loss(batch)
        index = int(batch["index"])
        return loss, {"third" if index % 3 == 0 else "other": float(index)}
