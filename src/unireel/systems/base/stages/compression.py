"""A trained video-language model as another one plus differences of low rank, so that little of it has to be stored."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from unireel.backbones.low_rank import add_low_rank, approximate, as_matrices
from unireel.backbones.understanding.pocket import PocketUnderstanding
from unireel.backbones.vlm import language_states, layout_of, visual_tokens
from unireel.data.cache import epoch_order
from unireel.hub import component, find_model
from unireel.systems.base.stages.understanding import UnderstandingConfig, UnderstandingStage
from unireel.training.stage import ParameterRule
from unireel.world.language import plan_for, prompt_for

RANKS = {"model.language_model.layers.*": 32, "model.visual.*": 32}


@dataclass(frozen=True)
class CompressionConfig(UnderstandingConfig):
    """Films, questions and stories are those of the understanding stage.

    Attributes:
        teacher: the model whose ``vlm`` is to be kept, a packaged one or a folder.
        student: the model from whose ``vlm`` it is to differ little.
        low_rank: ranks of the differences by patterns of linear layers' names; all other weights are the teacher's.
        prompts: prompts of films in a batch, half of them behind a picture, as a connector reads their states.
        divergence: weight of the words' divergence beside the states' error.
    """

    teacher: str = "pocket/univid"
    student: str = "pocket/base"
    low_rank: dict[str, int] = field(default_factory=lambda: dict(RANKS))
    prompts: int = 24
    divergence: float = 0.3


class CompressionStage(UnderstandingStage):
    """The student learns to have the teacher's states, starting from the best approximation of its matrices (SVD)."""

    config_class = CompressionConfig
    config: CompressionConfig

    def __init__(self, config: CompressionConfig) -> None:
        teacher, student = (
            Qwen2VLForConditionalGeneration.from_pretrained(component(find_model(name), "vlm")).float().eval()
            for name in (config.teacher, config.student)
        )
        layout = layout_of(teacher)
        super().__init__(replace(config, patch=layout.patch, merge=layout.merge, tube=layout.tube))
        for vlm in (teacher, student):
            vlm.model.language_model.set_attn_implementation("eager")
            vlm.requires_grad_(False)
        matrices = {
            name: each.weight.clone() for name, each in student.named_modules() if isinstance(each, nn.Linear)
        }
        student.load_state_dict(teacher.state_dict())
        changed = add_low_rank(student, config.low_rank)
        for name in changed:
            approximate(student.get_submodule(name), matrices[name])
        self.teacher, self.student = teacher, student
        self.module = nn.ModuleDict({"vlm": student})

    def parameter_groups(self) -> list[ParameterRule]:
        """Factors are not hidden matrices."""
        return [ParameterRule("*", muon=False)]

    def batch(self, index: int) -> dict[str, Any]:
        """As of the understanding stage, with ``said``, prompts or plans, and ``shown``, a picture or None for each."""
        own = self.config
        batch: dict[str, Any] = super().batch(index)
        random = np.random.default_rng([own.data_seed, 7, index])
        places = [
            epoch_order(own.data_seed + 7, len(self.films), index * own.prompts + i)
            for i in range(own.prompts)
        ]
        said = []
        for place in places:
            scene = self.films.scene(place)
            plan = random.random() < 0.5
            said.append(plan_for(scene) if plan else prompt_for(scene, int(random.integers(2**31))).text)
        shown = [
            np.asarray(self.films.frames[place, :1]) if number % 2 else None
            for number, place in enumerate(places)
        ]
        return batch | {"said": said, "shown": shown}

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Errors of visual tokens and of the last states over the teacher's variance, and the words' divergence."""
        own, logs = self.config, {}
        with torch.no_grad():
            seen, states, heard = self._of(self.teacher, batch)
        own_seen, own_states, own_heard = self._of(self.student, batch)
        there = batch["input_ids"] != self.tokenizer.pad_token_id
        logs["seen"] = _error(own_seen, seen)
        logs["states"] = _error(own_states[there], states[there])
        logs["prompts"] = _error(torch.cat(own_heard), torch.cat(heard))
        said = batch["weights"][:, 1:] > 0
        wanted = self.teacher.lm_head(states[:, :-1][said]).float().log_softmax(-1)
        found = self.student.lm_head(own_states[:, :-1][said]).float().log_softmax(-1)
        logs["divergence"] = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        total = logs["seen"] + logs["states"] + logs["prompts"] + own.divergence * logs["divergence"]
        return total, {name: each.detach() for name, each in logs.items()}

    def _of(self, vlm: Qwen2VLForConditionalGeneration, batch: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Visual tokens (B, N, D), last states (B, L, D), and those of each prompt (L, D)."""
        seen, _ = visual_tokens(vlm, batch["patches"], batch["grid"])
        embeds = vlm.get_input_embeddings()(batch["input_ids"])
        embeds = torch.cat([embeds[:, :1], seen.to(embeds.dtype), embeds[:, 1 + seen.shape[1] :]], dim=1)
        states = language_states(vlm, embeds, batch["position_ids"], batch["attention_mask"])[-1]
        reader = PocketUnderstanding(vlm, self.tokenizer)
        pictures = [[] if each is None else list(each) for each in batch["shown"]]
        heard = reader.hidden_states(batch["said"], pictures)
        return seen, states, [rows[mask] for rows, mask in zip(heard.states, heard.mask, strict=True)]

    def export(self, folder: Path) -> None:
        """Write the ``vlm`` folder with its tokenizer, all matrices whole."""
        with as_matrices(self.student):
            deepcopy(self.student).save_pretrained(folder / "vlm")
        self.tokenizer.save_pretrained(folder / "vlm")


def _error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over the variance of what is wanted (n, ..., D)."""
    wanted = wanted.float().flatten(0, -2)
    return (found.float().flatten(0, -2) - wanted).square().mean() / wanted.var(0, unbiased=False).mean()
