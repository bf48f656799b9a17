"""The projector that UniVid's authors released, for loading its weights; it knows neither time nor convolution."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unireel.backbones.understanding.interface import Features
from unireel.backbones.weights import KeyReport
from unireel.errors import UserError
from unireel.systems.univid.connector import WHOLE, Conditions, Mix

RELEASED_PARAMETERS = 62_951_424
ENTRY = "context_projector"
"""Key of the projector's weights in the released ``training_state.pt``."""


class ReleasedProjector(nn.Module):
    """Two layers on each token, then the tokens stretched or squeezed linearly to a fixed number.

    Called as :class:`~unireel.systems.univid.connector.Connector` is; time, latents and shares change nothing.
    """

    def __init__(
        self, width: int = 3584, hidden: int = 8192, context_width: int = 4096, length: int = 512
    ) -> None:
        super().__init__()
        self.length = length
        self.bagel_to_t5_projector = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, context_width),
            nn.LayerNorm(context_width),
        )

    def forward(
        self,
        features: Features,
        time: Tensor | None = None,
        latents: Tensor | None = None,
        mix: Mix = WHOLE,
        given: Tensor | None = None,
    ) -> Conditions:
        """(B, ``length``, context width), all of it there; each row is interpolated without its padding."""
        dtype = self.bagel_to_t5_projector[0].weight.dtype
        rows = []
        for states, mask in zip(features.states, features.mask, strict=True):
            projected = self.bagel_to_t5_projector(states[mask].to(dtype))  # type: ignore[arg-type]
            rows.append(
                F.interpolate(projected.T[None], size=self.length, mode="linear", align_corners=False)[0].T
            )
        tokens = torch.stack(rows)
        return Conditions(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))


def load_released_projector(path: str | Path) -> ReleasedProjector:
    """The projector from a released ``training_state.pt``, or from a safetensors file with its tensors.

    A pickle is read by PyTorch's restricted reader, which runs no code.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    path = Path(path)
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}'") from None
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read as weights: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict) and isinstance(content.get(ENTRY), dict):
        content = content[ENTRY]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"'{path}' holds no '{ENTRY}'")
    names = [f"bagel_to_t5_projector.{number}.weight" for number in (0, 4)]
    if not all(name in content and content[name].ndim == 2 for name in names):
        raise UserError(f"'{path}' holds no '{ENTRY}': it lacks {' or '.join(names)}")
    first, second = (content[name] for name in names)
    with torch.device("meta"):
        projector = ReleasedProjector(first.shape[1], first.shape[0], second.shape[0])
    wanted = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
    KeyReport.compare(wanted, {name: tuple(value.shape) for name, value in content.items()}).require(path)
    projector.load_state_dict(content, assign=True)
    return projector.eval()
