"""Who looks at edits: any OpenAI-compatible endpoint that takes pictures, or a vision-language model right here."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unireel.backbones.remote import Endpoint, RemoteError, Reply, Spent, image_part, text_part
from unireel.errors import UserError
from unireel.evaluation.fingerprint import fingerprint


@dataclass(frozen=True)
class Look:
    """What is shown and asked: frames (H, W, 3) uint8 of before and after, all of one size, and words."""

    before: Sequence[np.ndarray]
    after: Sequence[np.ndarray]
    told: str
    asked: str


class Eyes(Protocol):
    """A model that sees.

    Attributes:
        url, model: where and what it is; verdicts of models of other names do not count.
        spent: requests, tokens and seconds so far.
    """

    url: str
    model: str
    spent: Spent

    def look(self, look: Look, max_tokens: int) -> Reply:
        """What it says.

        Raises:
            RemoteError: it does not answer, or cannot take so much.
        """
        ...


class EndpointEyes:
    """A chat model behind an endpoint, see :class:`~unireel.backbones.remote.Endpoint`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.url, self.model, self.spent = endpoint.url, endpoint.model, endpoint.spent

    def look(self, look: Look, max_tokens: int) -> Reply:
        """One request: the instruction, the frames between words that say which they are, and what is asked."""
        shown: list[dict[str, Any]] = [text_part("Before:"), *map(image_part, look.before)]
        shown += [text_part("After:"), *map(image_part, look.after), text_part(look.asked)]
        told = {"role": "system", "content": look.told}
        return self.endpoint.chat([told, {"role": "user", "content": shown}], max_tokens=max_tokens)


class LocalEyes:
    """A vision-language model of the transformers library, or BAGEL, that answers greedily, one question at a time.

    Only safetensors are read, and no code that comes with a model is run.
    """

    url = "local"

    def __init__(self, folder: Path, device: str | None = None) -> None:
        """Load the model of ``folder``, on CUDA if there is any unless ``device`` says otherwise.

        Raises:
            UserError: there is none, or it cannot be loaded.
        """
        import torch

        from unireel.backbones.understanding import load_understanding

        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} with a vision-language model")
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float32 if place == "cpu" else torch.bfloat16
        self.model = f"{folder.name}@{fingerprint(folder)}"
        self.spent = Spent()
        self._lock = threading.Lock()
        self._network = load_understanding(folder, dtype, place)

    def look(self, look: Look, max_tokens: int) -> Reply:
        """All frames are shown as one film; words say where the edit begins. Threads take turns."""
        from unireel.backbones.understanding import Request

        count, both = len(look.before), len(look.before) + len(look.after)
        where = (
            f"Of the {both} frames, the first {count} are from before the edit, the others from after it.\n"
        )
        request = Request(where + look.asked, np.stack([*look.before, *look.after]), look.told)
        with self._lock:
            begun = time.monotonic()
            try:
                (spoken,) = self._network.chat([request], max_new_tokens=max_tokens)
            except UserError as error:
                raise RemoteError(str(error)) from error
            seconds = time.monotonic() - begun
            self.spent.requests += 1
            self.spent.attempts += 1
            self.spent.completion_tokens += len(spoken.probabilities)
            self.spent.seconds += seconds
        return Reply(spoken.text.strip(), 0, len(spoken.probabilities), seconds)
