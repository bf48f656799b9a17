"""What the stages share: the parts that are trained, the loss of films, and the stages themselves.

A *material* is a whole system with its data, at pocket or at full scale; the stages are the same for both.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unireel.backbones.wan import Prediction, predict, token_times
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.systems.univid.conditioning import Conditioner
from unireel.systems.univid.connector import WHOLE, Conditions, Mix
from unireel.systems.univid.context import Condition
from unireel.systems.univid.stages.curriculum import (
    PARTS,
    STAGE_ONE,
    STAGE_THREE,
    STAGE_TWO,
    Curriculum,
    Part,
)
from unireel.systems.univid.temperature import AlignedAttention, flow_progress
from unireel.training.stage import ParameterRule, Stage, move


@dataclass(frozen=True)
class FilmTask:
    """Films to make, B of them.

    Attributes:
        prompts: what the understanding model reads; "" where dropped for guidance.
        texts: what the decoder's own text encoder reads; "" where dropped for guidance, or so that the understanding
            model's states must tell.
        pictures: what the understanding model sees with each.
        data: clean latents (B, C, T, h, w), or pixels (B, 3, F, H, W) in [-1, 1] that are still to be encoded.
        clean: whose first latent frame is given (B,) bool.
        is_made: whether films are made; else C_t alone learns, see :meth:`Material.likeness`.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    pictures: tuple[np.ndarray | None, ...]
    data: Tensor
    clean: Tensor
    is_made: bool = True


class Material(Protocol):
    """A whole system with its data.

    Attributes:
        conditioner: from prompts and pictures to contexts.
        transformer: the decoder, wearing adapters.
        aligned: Temperature Modality Alignment on it.
        prediction: what it puts out.
        shift, uniform: of training times.
    """

    conditioner: Conditioner
    transformer: nn.Module
    aligned: AlignedAttention
    prediction: Prediction
    shift: float
    uniform: float

    def parts(self) -> dict[Part, nn.Module]:
        """The parts that stages may train."""
        ...

    def frozen(self) -> Iterator[nn.Module]:
        """Everything there is, parts included."""
        ...

    def films(self, index: int) -> FilmTask:
        """Batch ``index`` of films to make."""
        ...

    def latents(self, data: Tensor) -> Tensor:
        """Clean latents of a task's ``data``."""
        ...

    def helpers(self) -> dict[str, nn.Module]:
        """What learns along with the connector and is not exported."""
        ...

    def likeness(self, conditions: Conditions, condition: Condition, is_made: bool) -> Tensor | None:
        """An auxiliary loss of C_t, or None; ``is_made`` says whether it is trained for films at the same time."""
        ...

    def weighed(self, errors: Tensor, time: Tensor, task: FilmTask) -> Tensor:
        """The loss of films with squared ``errors`` (B,) at flow times (B,)."""
        ...

    def questions(self, index: int) -> Any:
        """Batch ``index`` of questions about films."""
        ...

    def answer_loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy on the assistant's tokens alone, and what to log."""
        ...

    def export(self, folder: Path) -> None:
        """Write what was trained so that the next stage and :func:`unireel.load` can read it."""
        ...

    def report(self) -> list[str]:
        """Lines about models and data."""
        ...


def lora_modules(transformer: nn.Module) -> nn.ModuleDict:
    """The adapters' layers, under their names with dashes for dots."""
    return nn.ModuleDict(
        {
            name.replace(".", "-"): module
            for name, module in transformer.named_modules()
            if isinstance(module, nn.Linear) and (".lora_A." in name or ".lora_B." in name)
        }
    )


def film_loss(
    material: Material, task: FilmTask, mix: Mix = WHOLE
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Flow matching (section 2.3): squared error of what the decoder puts out, over latent frames that are not given.

    Each film has a time of its own, at which its context is made and Temperature Modality Alignment acts.
    """
    own = material.conditioner
    condition = own.encode(task.prompts, task.pictures, task.texts)
    time = sample_times(len(task.data), material.shift, material.uniform, task.data.device)
    conditions = own.context(condition, mix).conditions(time)
    likeness = material.likeness(conditions, condition, task.is_made)
    logs: dict[str, Tensor | float] = {} if likeness is None else {"likeness": likeness.detach()}
    if not task.is_made:
        assert likeness is not None
        return likeness, logs
    context = own.combiner(conditions, condition.text, condition.text_mask)
    data = material.latents(task.data)
    clean = task.clean
    noise = torch.randn_like(data)
    per_frame = time[:, None].repeat(1, data.shape[2])
    per_frame[:, 0] = torch.where(clean, torch.zeros_like(time), time)
    state = interpolate(data, noise, per_frame[:, None, :, None, None])
    _, rows, columns = material.transformer.config["patch_size"]
    tokens = (data.shape[3] // rows) * (data.shape[4] // columns)
    times = token_times(time, clean, data.shape[2], tokens) if data.shape[2] > 1 else 1000 * time
    material.aligned.set(flow_progress(time, material.shift).clamp(0, 1), clean)
    output = predict(material.transformer, state, times, context).float()
    truth = data if material.prediction == "data" else velocity(data, noise)
    wanted = torch.ones_like(per_frame)
    wanted[:, 0] = (~clean).float()
    error = ((output - truth).square().mean(dim=(1, 3, 4)) * wanted).sum(1) / wanted.sum(1)
    logs["film_error" if data.shape[2] > 1 else "picture_error"] = error.mean().detach()
    loss = material.weighed(error, time, task)
    return loss if likeness is None else loss + likeness, logs


class UniVidStage(Stage):
    """A stage on a whole system, of which it trains some parts; the rest is frozen.

    ``module`` holds the trained parts only, so that checkpoints do.
    """

    trained: ClassVar[tuple[Part, ...]]
    material: Material

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.material = config.material()
        for module in self.material.frozen():
            module.requires_grad_(False)
        parts = self.material.parts()
        self.module = nn.ModuleDict({name: parts[name] for name in PARTS if name in self.trained})
        if "connector" in self.trained:
            self.module.update(self.material.helpers())
        self.module.requires_grad_(True)

    def parameter_groups(self) -> list[ParameterRule]:
        """Adapters and tables are not hidden matrices; the gate, one number, would open too slowly at their rate."""
        rules = [ParameterRule(name, muon=False) for name in ("lora*", "*kind*", "merger*")]
        slow = ParameterRule("*combiner.gate", lr=10.0, weight_decay=False)
        return [slow, ParameterRule("uncertainty*", lr=5.0, weight_decay=False, muon=False), *rules]

    def to(self, device: torch.device) -> None:
        """Move the whole system; one on the meta device, which is only planned, stays."""
        self.device = device
        for module in self.material.frozen():
            if not any(each.is_meta for each in module.parameters()):
                module.to(device)

    def compile(self) -> None:
        """Nothing is compiled: contexts have many shapes."""

    def report(self) -> list[str]:
        """What the system is made of and what data there is."""
        return self.material.report()

    def export(self, folder: Path) -> None:
        """Write what was trained."""
        self.material.export(folder)


class AlignmentStage(UniVidStage):
    """Stage I: the connector and adapters on the decoder learn to make films of what was understood."""

    trained = STAGE_ONE

    def batch(self, index: int) -> FilmTask:
        """Films to make."""
        return self.material.films(index)

    def loss(self, batch: FilmTask) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Flow matching."""
        return film_loss(self.material, moved(batch, self.device))


class AdaptationStage(UniVidStage):
    """Stage II: the last ViT blocks and the merger learn to answer about films."""

    trained = STAGE_TWO

    def batch(self, index: int) -> Any:
        """Questions about films."""
        return self.material.questions(index)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy on the assistant's tokens."""
        loss, logs = self.material.answer_loss(batch)
        return loss, dict(logs)


@dataclass(frozen=True)
class JointTask:
    """Films to make and questions to answer in one micro-batch, in the phase and with the mix that are due."""

    index: int
    films: FilmTask
    questions: Any
    mix: Mix


class JointStage(UniVidStage):
    """Stage III: both losses; what is trained and how views are mixed follows the curriculum."""

    trained = PARTS

    def batch(self, index: int) -> JointTask:
        """Both; the phase is a pure function of ``index``, so that a resumed run is in the right one."""
        draw = float(np.random.default_rng([71, index]).random())
        mix = self.curriculum.mix(index, draw)
        return JointTask(index, self.material.films(index), self.material.questions(index), mix)

    @property
    def curriculum(self) -> Curriculum:
        """The phases."""
        return self.config.curriculum

    def loss(self, batch: JointTask) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Both losses; while the ViT is frozen, films' alone: there is nothing that answers could teach."""
        phase = self.curriculum.phase(batch.index)
        self.open(STAGE_THREE[phase])
        loss, logs = film_loss(self.material, moved(batch.films, self.device), batch.mix)
        logs["vae_share"] = batch.mix.vae
        if phase == "mixing":
            return loss, logs
        answers, said = self.material.answer_loss(move(batch.questions, self.device))
        return loss + answers, {**logs, **said}

    def open(self, parts: Sequence[Part]) -> None:
        """Let only ``parts`` learn from the next loss."""
        for name, module in self.module.items():
            module.requires_grad_(name in parts or name not in PARTS)


def moved(task: FilmTask, device: torch.device) -> FilmTask:
    """The task with its tensors on ``device``."""
    return replace(task, data=task.data.to(device), clean=task.clean.to(device))
