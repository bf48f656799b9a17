"""Stage I from features: what the understanding model, the text encoder and the autoencoder make of films, read back.

A film's features, in the models' own format: ``latents`` (C, T, h, w); ``text`` (L, d_c) of its caption; Z_u of the
caption alone (``plain``), of the caption with the first frame (``seen``) and of no caption with the first frame
(``blind``), each as states (n, D) and kinds (n,). A prefill reads pictures before words, so that ``blind`` is kept as
its words alone. Both for no caption are ``nothing`` and ``no_text``.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unireel.backbones.understanding.interface import Features, Kind, Picture, Understanding
from unireel.backbones.vae import encode
from unireel.data.cache import epoch_order
from unireel.data.features import FeatureCache, Item
from unireel.data.world import to_pixels
from unireel.errors import UsageError
from unireel.systems.univid.conditioning import Conditioner, EncodeTexts
from unireel.systems.univid.context import Condition
from unireel.systems.univid.stages.common import FilmTask


class FilmEncoder:
    """Makes the features of a film.

    Args:
        understanding: gives Z_u.
        vae: the decoder's autoencoder.
        texts: the decoder's text encoder.
        read: from a file to frames (F, H, W, 3) uint8.
    """

    def __init__(
        self,
        understanding: Understanding,
        vae: torch.nn.Module,
        texts: EncodeTexts,
        read: Callable[[Path], np.ndarray],
    ) -> None:
        self.understanding, self.vae, self.texts, self.read = understanding, vae, texts, read

    @torch.no_grad()
    def __call__(self, item: Item) -> dict[str, Tensor]:
        """The tensors, on the CPU.

        Raises:
            UserError: the film cannot be read, or the caption is too long.
        """
        frames = self.read(item.path)
        weight = next(self.vae.parameters())
        pixels = to_pixels(frames[None]).to(weight.device, weight.dtype)
        prompts, images = [item.text, item.text, "", ""], [[], [frames[0]], [frames[0]], []]
        found = {"latents": encode(self.vae, pixels)[0].to(weight.dtype)}
        for name, prompt, image in zip(("plain", "seen", "blind", "nothing"), prompts, images, strict=True):
            features = self.understanding.hidden_states([prompt], [image])
            kept = features.kinds[0] == Kind.TEXT if name == "blind" else features.mask[0]
            found |= {f"{name}.states": features.states[0][kept], f"{name}.kinds": features.kinds[0][kept]}
        for name, text in (("text", item.text), ("no_text", "")):
            states, mask = self.texts([text])
            found[name] = states[0][mask[0].bool()]
        return {name: each.cpu() for name, each in found.items()}


class Prepared(tuple[str, ...]):
    """Prompts whose condition was made before."""

    condition: Condition

    @classmethod
    def of(cls, prompts: Sequence[str], condition: Condition) -> Prepared:
        """Prompts with their condition."""
        made = cls(prompts)
        made.condition = condition
        return made


class CachedFilms:
    """The films of a feature cache as batches of stage I; draws are those of training without a cache.

    Args:
        folder: of the cache.
        batch: films of a batch.
        given, empty, unread, seed: see :class:`~unireel.systems.univid.stages.full.FullConfig`.
    """

    def __init__(self, folder: str, batch: int, given: float, empty: float, unread: float, seed: int) -> None:
        self.cache = FeatureCache(folder)
        self.batch, self.given, self.empty, self.unread, self.seed = batch, given, empty, unread, seed

    def task(self, index: int) -> FilmTask:
        """Batch ``index``: its data are latents, its prompts are :class:`Prepared`."""
        random = np.random.default_rng([self.seed, index])
        rows, states, latents, given, prompts, texts = [], [], [], [], [], []
        for number in range(index * self.batch, (index + 1) * self.batch):
            place = epoch_order(self.seed, len(self.cache), number)
            found = self.cache[place]
            clean, dropped = bool(random.random() < self.given), random.random()
            is_read = dropped >= self.empty
            rows.append(_features(found, clean, is_read))
            states.append(found["no_text" if dropped < self.empty + self.unread else "text"])
            caption = self.cache.rows[place].text
            prompts.append(caption if is_read else "")
            texts.append("" if dropped < self.empty + self.unread else caption)
            latents.append(found["latents"])
            given.append(clean)
        condition = Condition(
            Features.of(rows),
            pad_sequence(states, batch_first=True),
            pad_sequence([torch.ones(len(each), dtype=torch.int64) for each in states], batch_first=True),
        )
        words = Prepared.of(prompts, condition)
        return FilmTask(words, tuple(texts), (None,) * self.batch, torch.stack(latents), torch.tensor(given))


def _features(found: dict[str, Tensor], clean: bool, is_read: bool) -> tuple[Tensor, Tensor]:
    """States and kinds of a film whose first frame is seen or not, and its caption read or not."""
    if clean and not is_read:
        picture = found["seen.kinds"] != Kind.TEXT
        return (
            torch.cat([found["seen.states"][picture], found["blind.states"]]),
            torch.cat([found["seen.kinds"][picture], found["blind.kinds"]]),
        )
    name = {(True, True): "seen", (False, True): "plain", (False, False): "nothing"}[clean, is_read]
    return found[f"{name}.states"], found[f"{name}.kinds"]


class CachedConditioner(Conditioner):
    """Takes conditions as they were made before."""

    def encode(
        self,
        prompts: Sequence[str],
        pictures: Sequence[Picture | None] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Condition:
        """The condition of :class:`Prepared` prompts, where the connector is."""
        if not isinstance(prompts, Prepared):
            raise UsageError("a training from features takes its films from there")
        where: Any = next(self.connector.parameters()).device
        found = prompts.condition
        assert found.text is not None and found.text_mask is not None
        return Condition(found.features.to(where), found.text.to(where), found.text_mask.to(where))
