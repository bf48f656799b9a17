"""What the stages share: where a training starts from, and batches as the language model takes them."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unireel.backbones.low_rank import add_low_rank, approximate, as_matrices
from unireel.config import from_dict, to_dict
from unireel.errors import UsageError
from unireel.hub import load
from unireel.systems.omnivideo.building import Sizes
from unireel.systems.omnivideo.pipeline import OmniVideo, trained_parts
from unireel.systems.omnivideo.pocket_mllm import Heard
from unireel.systems.omnivideo.settings import Settings
from unireel.systems.omnivideo.speech import as_heard
from unireel.systems.omnivideo.stages.mixture import MAKING, Mixture, MixtureConfig, Sample
from unireel.training.stage import ParameterRule, Stage


@dataclass(frozen=True)
class OmniVideoConfig:
    """What every stage has.

    Attributes:
        start_from: a base model, or what an earlier stage exported.
        parts: exports whose component of that name takes the place of the model's own, such as the editor of a training
            that went on beside that of the language model.
        sizes: of the new parts, where it starts from a base model.
        settings: entries of :class:`~unireel.systems.omnivideo.settings.Settings` that replace the model's own.
        mixture: of the data.
        new_seed: of the new parts' weights.
        tensors: shell-style patterns of the names of the parameters that learn, such as "editor.blocks.7.*"; of the
            trained parts, what matches none stays as it is.
        low_rank: ranks of what is learnt in linear layers whose names match a pattern, instead of whole matrices; see
            :mod:`unireel.backbones.low_rank`.
        low_rank_of: parts whose low-rank differences are those to another part, such as ``{"editor": "transformer"}``,
            or to one of another model, ``{"language": "pocket/base:vlm"}``: what earlier trainings changed then counts
            to the rank, and is cut to it. Others differ from what they start as.
    """

    start_from: str = "pocket/base"
    parts: dict[str, str] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=Sizes)
    settings: dict[str, Any] = field(default_factory=dict)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    new_seed: int = 0
    tensors: tuple[str, ...] = ("*",)
    low_rank: dict[str, int] = field(default_factory=dict)
    low_rank_of: dict[str, str] = field(default_factory=dict)


class OmniVideoStage(Stage):
    """A stage on a whole model, some of whose parts it trains.

    Subclasses name the parts in :meth:`trains`; everything else is fixed, and the export is the whole model.
    """

    config_class = OmniVideoConfig
    config: OmniVideoConfig

    def __init__(self, config: OmniVideoConfig) -> None:
        super().__init__(config)
        model = load(config.start_from, device="cpu", fast=False)
        if isinstance(model, OmniVideo):
            self.model = model.with_settings(changed(model.settings, config.settings))
        else:
            settings = changed(Settings(), config.settings)
            self.model = OmniVideo.from_base(model, settings, config.sizes, config.new_seed)
        for name, folder in config.parts.items():
            replace_part(self.model, name, folder)
        self.mixture = Mixture(config.mixture)
        for part in trained_parts(self.model).values():
            part.requires_grad_(False)
        self.module = nn.ModuleDict(self.trains())
        names = [name for name, _ in self.module.named_parameters()]
        for pattern in config.tensors:
            if not fnmatch.filter(names, pattern):
                raise UsageError(f"stage_config.tensors: no trained part has parameters like '{pattern}'")
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in config.tensors))
        self.model.vlm.model.visual.requires_grad_(
            False
        )  # what visual tokens are aligned to stays where it is
        bases = {part: self._part(name) for part, name in config.low_rank_of.items()}
        for name in add_low_rank(self.module, config.low_rank, config.new_seed):
            part, _, layer = name.partition(".")
            if part in bases:
                approximate(self.module.get_submodule(name), bases[part].get_submodule(layer).weight)

    def _part(self, name: str) -> nn.Module:
        """A part of this model, or of another one ("MODEL:PART")."""
        other, _, own = name.rpartition(":")
        part = getattr(load(other, device="cpu"), own, None) if other else trained_parts(self.model).get(own)
        if not isinstance(part, nn.Module):
            raise UsageError(f"stage_config.low_rank_of: there is no part '{name}'")
        return part

    def trains(self) -> dict[str, nn.Module]:
        """The parts that are trained, by name."""
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings, queries and heads are not hidden matrices."""
        patterns = (
            "*shared*",
            "*embed_tokens*",
            "*decoder_query*",
            "*lm_head*",
            "*patch_embedding*",
            "*proj_out*",
        )
        return [ParameterRule(pattern, muon=False) for pattern in patterns]

    def to(self, device: torch.device) -> None:
        """Move the whole model."""
        self.model.to(device)
        super().to(device)

    def report(self) -> list[str]:
        """What each bucket of the data holds."""
        return self.mixture.report()

    def export(self, folder: Path) -> None:
        """Write the whole model."""
        with as_matrices(self.module):
            self.model.save_pretrained(folder)

    def heard(self, samples: Sequence[Sample], index: int) -> dict[str, Tensor | None]:
        """Samples as the language model takes them, with the weights (B, n) of predicting what follows each film."""
        mllm, group = self.model.mllm, self.mixture.group(index)
        turns = []
        for sample in samples:
            if sample.thought:
                turns.append(mllm.thought_turn(sample.text, sample.thought))
            elif sample.task == "plan":
                turns.append(mllm.plan_turn(sample.text, sample.description, sample.plan))
            elif sample.task in MAKING:
                turns.append(mllm.turn(as_heard(sample.text, group, sample.source is not None), group))
            else:
                turns.append(mllm.answer_turn(sample.text, sample.answer))
        heard = mllm.lay_out(turns, [sample.source for sample in samples])
        weights = torch.zeros(heard.ids.shape)
        for row, turn in enumerate(turns):
            weights[row, : len(turn.weights)] = torch.tensor(turn.weights)
        return {**vars(heard), "weights": weights}


def replace_part(model: OmniVideo, name: str, folder: str) -> None:
    """Give a part of ``model`` the weights that an export has, in place.

    Raises:
        UsageError: the model has no such part, or that of the export has another shape.
    """
    own, other = (trained_parts(each).get(name) for each in (model, load(folder, device="cpu")))
    if own is None or other is None:
        raise UsageError(f"stage_config.parts: {name}: the model or '{folder}' has no such part")
    shapes = [{key: value.shape for key, value in part.state_dict().items()} for part in (own, other)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"stage_config.parts: {name}: that of '{folder}' has another shape")
    own.load_state_dict(other.state_dict())


def changed(settings: Settings, entries: Mapping[str, Any]) -> Settings:
    """``settings`` with some entries replaced, as strictly as recipes are read; of budgets, those that are named."""
    own = to_dict(settings)
    nested = {
        key: own[key] | value for key, value in entries.items() if isinstance(value, Mapping) and own.get(key)
    }
    return from_dict(Settings, own | dict(entries) | nested, "stage_config.settings")


def heard_of(batch: dict[str, Any]) -> Heard:
    """The requests of a batch from :meth:`OmniVideoStage.heard`."""
    return Heard(**{name: batch[name] for name in ("ids", "lengths", "seen", "patches", "grid")})
