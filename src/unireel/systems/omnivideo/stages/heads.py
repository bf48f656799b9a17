"""Stage 1: text head and vision head; the model learns to answer, to route, to think and to put out visual tokens."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.data.lessons import Lessons
from unireel.data.turns import names_asked
from unireel.systems.base.stages.grounding import Grounding
from unireel.systems.omnivideo.heads import Alignment, vision_loss
from unireel.systems.omnivideo.stages.common import OmniVideoConfig, OmniVideoStage, heard_of
from unireel.systems.omnivideo.stages.looking import repeated, told_of
from unireel.systems.omnivideo.stages.mixture import MAKING, Sample


@dataclass(frozen=True)
class HeadsConfig(OmniVideoConfig):
    """Of stage 1.

    Attributes:
        train: "heads" is the paper's (the language model stays as it is); "language" trains its layers too, which a
            pocket model needs that has never seen an instruction.
        alignment: of visual tokens to the ViT's embeddings of what is to be made, see
            :func:`~unireel.systems.omnivideo.heads.vision_loss`.
        vision: weight of that loss beside the cross-entropy.
        prose: weight of a word of plans, thoughts and captions, where an answer's or a mark weighs 1; 1 is the paper's.
        looking: weight of the losses on where the words of plans and thoughts look, see
            :mod:`~unireel.systems.omnivideo.stages.looking`; 0 is the paper's.
    """

    train: Literal["heads", "language"] = "heads"
    alignment: Alignment = "l2"
    vision: float = 1.0
    prose: float = 1.0
    looking: float = 0.0


class HeadsStage(OmniVideoStage):
    """Cross-entropy on what is said (eq. 2) plus alignment of visual tokens (eq. 1)."""

    config_class = HeadsConfig
    config: HeadsConfig

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__(config)
        if config.looking:
            self._lessons = Lessons(self.mixture.seen)
            self._grounding = Grounding(self.model.vlm, [], config.mixture.size, 1.0)

    def to(self, device: torch.device) -> None:
        """Move the whole model, and what tells its attention where to look."""
        super().to(device)
        if self.config.looking:
            self._grounding.to(device)

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
        heard: dict[str, Any] = self.heard(samples, index)
        prose = torch.tensor([sample.task in ("plan", "think", "caption") for sample in samples])
        heard["weights"] = torch.where(prose[:, None], self.config.prose, 1.0) * heard["weights"]
        looks = self._looks(samples, heard) if self.config.looking else {}
        return {**heard, **looks, "making": torch.tensor(making, dtype=torch.long), "wanted": wanted}

    def _looks(self, samples: list[Sample], heard: dict[str, Any]) -> dict[str, Tensor]:
        """Where words should look: objects' states (B, O, T, S, 5) in each tube, and rows of ``looking``."""
        layout = self.model.mllm.layout
        tubes = 1 if heard["grid"] is None else int(heard["grid"][0, 0])
        length = max((len(each.source) for each in samples if each.source is not None), default=1)
        frames = np.minimum(np.arange(tubes * layout.tube), length - 1)
        states = self._lessons.states[[max(each.shown, 0) for each in samples]][:, :, frames]
        count = 0 if heard["grid"] is None else int(heard["grid"][0].prod()) // layout.merge**2
        begins = [1 + (count if each.source is not None else 0) for each in samples]
        asked = [told_of(samples, begins)]
        for row, (sample, begin) in enumerate(zip(samples, begins, strict=True)):
            if sample.task == "caption":
                turn = self.model.mllm.answer_turn("", sample.answer)
                asked.append(names_asked(self._lessons, [sample.shown], [[turn]], begin))
                asked[-1][:, 0] = row
        return {
            "states": torch.from_numpy(states).unflatten(2, (tubes, -1)),
            "asked": torch.cat(asked),
            "copied": repeated(samples, begins),
        }

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See the class."""
        own, mllm, head = self.config, self.model.mllm, self.model.vlm.lm_head
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train == "language"):
            inputs, positions, mask, begins = mllm.inputs(heard_of(batch))
            layers = mllm.layers(inputs, positions)
        states = layers[-1]
        # The state before each token of a turn predicts it.
        places = begins[:, None] - 1 + torch.arange(batch["ids"].shape[1], device=states.device)
        rows = torch.arange(len(states), device=states.device)[:, None].expand_as(places)
        weights, said = batch["weights"], batch["weights"] > 0
        logits = head(states[rows[said], places[said]]).float()
        entropy = F.cross_entropy(logits, batch["ids"][said], reduction="none")
        text = (entropy * weights[said]).sum() / weights[said].sum().clamp_min(1)
        right = (logits.argmax(-1) == batch["ids"][said]).float().mean()
        logs: dict[str, Tensor | float] = {"text": text.detach(), "right_tokens": right.detach()}
        loss = text
        if own.looking:
            for name, missed in self._missed(layers, positions, batch).items():
                loss, logs[name] = loss + own.looking * missed, missed.detach()
        making = batch["making"]
        if not len(making):
            return loss, logs
        with torch.no_grad():
            wanted = mllm.embeddings(batch["wanted"].cpu().numpy())
        tokens = self.model.vision_head(states[making], mask[making])
        tokens = tokens[:, :1] if wanted.shape[1] == 1 else tokens
        aligned = vision_loss(tokens.float(), wanted.float(), own.alignment).mean()
        logs["vision"] = aligned.detach()
        return loss + own.vision * aligned, logs

    def _missed(
        self, layers: Sequence[Tensor], positions: Tensor, batch: dict[str, Any]
    ) -> dict[str, Tensor]:
        """How words miss the objects that they tell of, and the words that they repeat; none where there are none."""
        vlm, count = self.model.vlm, layers[0].shape[1]
        middle, last = (len(layers) - 1) // 2 + 1, len(layers) - 2
        causal = torch.ones(count, count, dtype=torch.bool, device=positions.device).tril()
        batch = {
            **batch,
            "position_ids": positions,
            "attention_mask": causal.expand(len(positions[0]), 1, -1, -1),
        }
        missed = {}
        if len(batch["asked"]):
            missed["found"] = self._grounding.attention(vlm, middle, layers[middle], batch)
        if len(batch["copied"]):
            missed["repeated"] = self._grounding.copying(vlm, last, layers[last], batch)
        return missed
