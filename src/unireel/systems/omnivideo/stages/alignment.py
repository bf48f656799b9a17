"""Stage 2, first part: the adapter learns to put out what the decoder's text encoder would."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.backbones.text import tokenize
from unireel.systems.omnivideo.stages.common import OmniVideoStage, heard_of
from unireel.systems.omnivideo.stages.mixture import MAKING


class AlignmentStage(OmniVideoStage):
    """Mean squared error between the adapter's tokens and the text's states, stretched to their number.

    The paper aligns "with the textual embedding space" without saying how two lengths meet; states in their order,
    linearly interpolated, keep all that the text encoder says.
    """

    def trains(self) -> dict[str, nn.Module]:
        """The adapter alone."""
        return {"adapter": self.model.adapter}

    def batch(self, index: int) -> dict[str, Any]:
        """Requests to make something, and the tokens of their texts."""
        samples = [each for each in self.mixture.batch(index) if each.task in MAKING]
        ids, mask = tokenize(
            self.model.tokenizer, [each.text for each in samples], self.model.settings.prompt_length
        )
        picture = torch.full((len(samples),), self.mixture.group(index) == "image")
        return {**self.heard(samples, index), "text": ids, "text_mask": mask, "picture": picture}

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The error over the variance of the states: 1 is what their mean would have."""
        own = self.model.conditioner
        with torch.no_grad():
            states, mask, _ = self.model.mllm.states(heard_of(batch))
            kinds = ["image" if picture else "video" for picture in batch["picture"].tolist()]
            visual = own.visual_tokens(states, mask, kinds)
            texts = own.texts(batch["text"], batch["text_mask"])
        tokens = torch.stack(own.adapted(visual))
        wanted = torch.stack([stretched(text.float(), tokens.shape[1]) for text in texts])
        variance = wanted.flatten(0, 1).var(0, unbiased=False).mean().clamp_min(1e-6)
        loss = (tokens.float() - wanted).square().mean() / variance
        return loss, {"picture_error" if kinds[0] == "image" else "film_error": loss.detach()}


def stretched(states: Tensor, count: int) -> Tensor:
    """States (L, D) linearly interpolated along their order to (``count``, D), first and last kept."""
    if count == 1 or len(states) == 1:
        return states[:1].expand(count, -1)
    return F.interpolate(states.T[None], size=count, mode="linear", align_corners=True)[0].T
