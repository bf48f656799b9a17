"""Rankers: dual encoders that put frames and words into one space, where cosine similarity finds frames."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from unireel.errors import UserError

BATCH = 64
"""Frames that are encoded at a time."""


class Ranker(Protocol):
    """What reflection needs of a ranker.

    Attributes:
        name: for people and traces.
        key: changes with the weights, so that vectors kept on disk are never another model's.
    """

    name: str
    key: str

    def frame_vectors(self, frames: np.ndarray) -> np.ndarray:
        """Frames (N, H, W, 3) uint8 as vectors (N, D) float32 of length 1."""
        ...

    def text_vector(self, text: str) -> np.ndarray:
        """A text as a vector (D,) float32 of length 1."""
        ...


class DualEncoder:
    """An image-text dual encoder of transformers: SigLIP, SigLIP2 (also NaFlex), CLIP and their kin.

    A :class:`Ranker`.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, image_processor: Any, name: str
    ) -> None:
        for method in ("get_image_features", "get_text_features"):
            if not hasattr(model, method):
                raise UserError(f"'{name}' is no dual encoder of pictures and words: {type(model).__name__}")
        self.model: Any = model.eval()
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.name, self.key = name, fingerprint(model)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str | None = None) -> DualEncoder:
        """Load a model folder (or hub id) of transformers with its tokenizer and picture processor.

        Raises:
            UserError: there is no such model, or it is not a dual encoder.
        """
        try:
            parts = [
                each.from_pretrained(str(folder)) for each in (AutoModel, AutoTokenizer, AutoImageProcessor)
            ]
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"ranker '{folder}' cannot be loaded: {reason}") from None
        place = torch.device(device or "cpu")
        model = parts[0].float() if place.type == "cpu" else parts[0]  # processors are slow in half precision
        return cls(model.to(place), parts[1], parts[2], str(folder))

    @torch.no_grad()
    def frame_vectors(self, frames: np.ndarray) -> np.ndarray:
        """See :meth:`Ranker.frame_vectors`."""
        parts = []
        for start in range(0, len(frames), BATCH):
            pictures = [Image.fromarray(frame) for frame in frames[start : start + BATCH]]
            inputs = self.image_processor(images=pictures, return_tensors="pt")
            parts.append(self._unit(self.model.get_image_features(**self._moved(inputs))))
        return np.concatenate(parts)

    @torch.no_grad()
    def text_vector(self, text: str) -> np.ndarray:
        """See :meth:`Ranker.text_vector`; warns if the model reads only the beginning of so long a text."""
        config = getattr(self.model.config, "text_config", self.model.config)
        most = config.max_position_embeddings
        if len(self.tokenizer(text)["input_ids"]) > most:
            warnings.warn(f"the ranker reads the first {most} tokens of the search text only", stacklevel=2)
        # SigLIP was trained with padding to its full length; others take a mask.
        padding = "max_length" if "siglip" in self.model.config.model_type else True
        inputs = self.tokenizer(
            [text], padding=padding, max_length=most, truncation=True, return_tensors="pt"
        )
        return self._unit(self.model.get_text_features(**self._moved(inputs)))[0]

    def _moved(self, inputs: Any) -> dict[str, Tensor]:
        first = next(self.model.parameters())
        return {
            name: each.to(first.device, first.dtype if each.is_floating_point() else each.dtype)
            for name, each in inputs.items()
        }

    @staticmethod
    def _unit(features: Any) -> np.ndarray:
        tensor = features if isinstance(features, Tensor) else features.pooler_output
        return F.normalize(tensor.float(), dim=-1).cpu().numpy()


def fingerprint(model: nn.Module) -> str:
    """What changes when weights do: a hash of the names, shapes and first numbers of all tensors, 16 digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
        digest.update(tensor.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()
