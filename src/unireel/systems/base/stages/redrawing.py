"""Latents that a generator gets slightly wrong: those of films, with noise, drawn again from there."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from unireel.backbones.text import encode_text, tokenize
from unireel.backbones.wan import MatmulAttention
from unireel.flow.sampling import sample
from unireel.hub import component, find_model, read_card
from unireel.world.language import PLAN_WORDS, plan_for
from unireel.world.scene import Scene


class Redrawing:
    """Draws latents of films again with a base model's generator, from their plans.

    What comes out is the same film with the generator's own mistakes: objects whose motion inside a latent frame is not
    quite that of any film. A decoder that is trained on it learns to mend them.

    Args:
        model: a packaged base model or a folder.
        least, most: flow times between which noise is added, drawn anew for each batch.
        steps: of the sampler, without guidance.
    """

    def __init__(self, model: str, least: float, most: float, steps: int) -> None:
        folder = find_model(model)
        card = read_card(folder)["settings"]
        self._prediction, self._shift = card["prediction"], card["shift"]
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(component(folder, "tokenizer"))
        self._text = _frozen(UMT5EncoderModel, component(folder, "text_encoder"))
        self._transformer = _frozen(WanTransformer3DModel, component(folder, "transformer"))
        self._transformer.set_attn_processor(MatmulAttention())
        self._times, self._steps = (least, most), steps

    def words(self, scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) of the scenes' plans."""
        return tokenize(self._tokenizer, [plan_for(scene) for scene in scenes], PLAN_WORDS + 1)

    @torch.no_grad()
    def __call__(self, latents: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Normalised latents (B, C, T, h, w) of films, drawn again; every second time their first frame is kept."""
        for part in (self._text, self._transformer):
            part.to(latents.device)
        states = encode_text(self._text, ids, mask)
        draw, keep = torch.rand(2).tolist()
        start = self._times[0] + draw * (self._times[1] - self._times[0])
        return sample(
            self._transformer,
            (1 - start) * latents + start * torch.randn_like(latents),
            text=states,
            empty=states,
            steps=self._steps,
            guidance=1.0,
            shift=self._shift,
            first=latents[:, :, :1] if keep < 0.5 and latents.shape[2] > 1 else None,
            prediction=self._prediction,
            start=start,
        )


def _frozen(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)
