"""Stage 1: text head and vision head; the model learns to answer, to route, to think and to put out visual tokens."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.systems.omnivideo.heads import Alignment, vision_loss
from unireel.systems.omnivideo.stages.common import OmniVideoConfig, OmniVideoStage, heard_of
from unireel.systems.omnivideo.stages.mixture import MAKING


@dataclass(frozen=True)
class HeadsConfig(OmniVideoConfig):
    """Of stage 1.

    Attributes:
        train: "heads" is the paper's (the language model stays as it is); "language" trains its layers too, which a
            pocket model needs that has never seen an instruction.
        alignment: of visual tokens to the ViT's embeddings of what is to be made, see
            :func:`~unireel.systems.omnivideo.heads.vision_loss`.
        vision: weight of that loss beside the cross-entropy.
    """

    train: Literal["heads", "language"] = "heads"
    alignment: Alignment = "l2"
    vision: float = 1.0


class HeadsStage(OmniVideoStage):
    """Cross-entropy on what is said (eq. 2) plus alignment of visual tokens (eq. 1)."""

    config_class = HeadsConfig
    config: HeadsConfig

    def trains(self) -> dict[str, nn.Module]:
        """Vision head and text head, or the vision head and all of the language model but its ViT."""
        vlm = self.model.vlm
        language = vlm.lm_head if self.config.train == "heads" else vlm
        return {"vision_head": self.model.vision_head, "language": language}

    def batch(self, index: int) -> dict[str, Any]:
        """Requests with what follows them, which of them make something (M,), and the frames of that."""
        samples, group = self.mixture.batch(index), self.mixture.group(index)
        making = [row for row, sample in enumerate(samples) if sample.task in MAKING]
        frames = [self.mixture.wanted_frames(samples[row], group) for row in making]
        wanted = (
            torch.from_numpy(np.stack(frames)) if frames else torch.zeros(0, 1, 1, 1, 3, dtype=torch.uint8)
        )
        return {
            **self.heard(samples, index),
            "making": torch.tensor(making, dtype=torch.long),
            "wanted": wanted,
        }

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See the class."""
        mllm, head = self.model.mllm, self.model.vlm.lm_head
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train == "language"):
            states, mask, begins = mllm.states(heard_of(batch))
        # The state before each token of a turn predicts it.
        places = begins[:, None] - 1 + torch.arange(batch["ids"].shape[1], device=states.device)
        rows = torch.arange(len(states), device=states.device)[:, None].expand_as(places)
        weights, said = batch["weights"], batch["weights"] > 0
        logits = head(states[rows[said], places[said]]).float()
        entropy = F.cross_entropy(logits, batch["ids"][said], reduction="none")
        text = (entropy * weights[said]).sum() / weights[said].sum().clamp_min(1)
        right = (logits.argmax(-1) == batch["ids"][said]).float().mean()
        logs: dict[str, Tensor | float] = {"text": text.detach(), "right_tokens": right.detach()}
        making = batch["making"]
        if not len(making):
            return text, logs
        with torch.no_grad():
            wanted = mllm.embeddings(batch["wanted"].cpu().numpy())
        tokens = self.model.vision_head(states[making], mask[making])
        tokens = tokens[:, :1] if wanted.shape[1] == 1 else tokens
        aligned = vision_loss(tokens.float(), wanted.float(), self.config.alignment).mean()
        logs["vision"] = aligned.detach()
        return text + self.config.vision * aligned, logs
