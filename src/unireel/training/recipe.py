"""The recipe of a training run: which stage, how long, with which optimiser, where to."""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unireel.config import apply_overrides, flatten, from_dict, load_yaml, to_dict
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.training.stage import Stage


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for hidden matrices with AdamW for everything else.

    ``lr``, ``betas``, ``eps`` and ``weight_decay`` are AdamW's. ``muon_lr`` and ``muon_weight_decay`` hold
    for the matrices that Muon takes; ``momentum``, ``nesterov`` and ``newton_schulz_steps`` are Muon's own.
    ``muon_exclude`` are name patterns of matrices that are not hidden (embeddings, output heads).
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    muon_lr: float = 0.01
    muon_weight_decay: float = 0.01
    momentum: float = 0.95
    nesterov: bool = True
    newton_schulz_steps: int = 5
    muon_exclude: tuple[str, ...] = ("*embed*", "*head.*", "*proj_out*", "*conv_in.*", "*conv_out.*")

    def __post_init__(self) -> None:
        _check(self.lr > 0, "lr", self.lr, "above 0")
        _check(self.muon_lr > 0, "muon_lr", self.muon_lr, "above 0")
        _check(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        _check(self.eps > 0, "eps", self.eps, "above 0")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(self.muon_weight_decay >= 0, "muon_weight_decay", self.muon_weight_decay, "0 or more")
        _check(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        _check(
            1 <= self.newton_schulz_steps <= 20, "newton_schulz_steps", self.newton_schulz_steps, "1 to 20"
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """Factor on the learning rate: rises over ``warmup`` steps, then falls to ``final`` at the end."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: int = 100
    final: float = 0.0

    def __post_init__(self) -> None:
        _check(self.warmup >= 0, "warmup", self.warmup, "0 or more steps")
        _check(0 <= self.final <= 1, "final", self.final, "a factor in [0, 1]")


@dataclass(frozen=True)
class EmaConfig:
    """Average of the weights: decay ``min(decay, t / (t + warmup))`` at step ``t``; 0 turns it off."""

    decay: float = 0.999
    warmup: int = 10

    def __post_init__(self) -> None:
        _check(0 <= self.decay < 1, "decay", self.decay, "in [0, 1)")
        _check(self.warmup >= 0, "warmup", self.warmup, "0 or more steps")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        stage: ``package.module:Class`` of a :class:`~unireel.training.stage.Stage`.
        output: the run's folder.
        steps: optimiser updates in all.
        stage_config: settings of the stage, strict as the rest.
        seed: of the initial weights and of everything random afterwards.
        device: ``auto`` is CUDA where there is one.
        precision: of the forward pass; ``auto`` is bf16 where it is fast, else fp32.
        accumulate: micro-batches per update and process.
        clip_grad: largest L2 norm of the gradient; 0 does not clip.
        parallel: under torchrun, ``fsdp`` splits the weights, ``replicate`` keeps a copy in each process.
        shards: with ``fsdp``, processes that one copy of the weights is split over; 0 is all of them.
        sequence: processes that share each batch, every one with its part of the tokens.
        threads: of torch within a process; 0 leaves its own choice.
        prefetch, workers: see :func:`unireel.training.prefetch.batches`.
        log_every, sample_every, evaluate_every, checkpoint_every: in steps; 0 is never.
        checkpoint_minutes: also a checkpoint after so much time; 0 is never. The last step always gets one.
        checkpoint_format: ``whole`` is written by the first process while all wait, ``sharded`` by every process,
            its own part, while training goes on.
        keep_last: checkpoints that are kept.
        max_minutes: stop, resumably, after so much time; 0 is never.
    """

    stage: str
    output: Path
    steps: int
    stage_config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: int = 1
    clip_grad: float = 1.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    parallel: Literal["fsdp", "replicate"] = "fsdp"
    shards: int = 0
    sequence: int = 1
    compile: bool = False
    threads: int = 0
    prefetch: int = 2
    workers: int = 0
    log_every: int = 50
    sample_every: int = 0
    evaluate_every: int = 0
    checkpoint_every: int = 0
    checkpoint_minutes: float = 10.0
    checkpoint_format: Literal["whole", "sharded"] = "whole"
    keep_last: int = 2
    max_minutes: float = 0.0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _check(self.steps >= 1, "steps", self.steps, "1 or more")
        _check(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        _check(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more micro-batches")
        _check(self.log_every >= 1, "log_every", self.log_every, "1 or more steps")
        _check(self.keep_last >= 1, "keep_last", self.keep_last, "1 or more checkpoints")
        _check(self.sequence >= 1, "sequence", self.sequence, "1 or more processes")
        for name in (
            "shards",
            "clip_grad",
            "threads",
            "prefetch",
            "workers",
            "sample_every",
            "evaluate_every",
        ):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("checkpoint_every", "checkpoint_minutes", "max_minutes"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _check(not self.workers or hasattr(os, "fork"), "workers", self.workers, "0 on a system without fork")


def _check(holds: bool, key: str, value: Any, accepted: str) -> None:
    if not holds:
        raise ValueError(f"'{key}' is {value!r}: it must be {accepted}")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply ``key=value`` overrides.

    Raises:
        UserError: the file cannot be read.
        UsageError: a key is unknown or a value not accepted.
    """
    return from_dict(Recipe, apply_overrides(load_yaml(path), overrides))


def stage_class(recipe: Recipe) -> "type[Stage]":
    """The class that ``recipe.stage`` (``"package.module:Class"``) names.

    Raises:
        UsageError: there is no such module or class, or it is not a :class:`~unireel.training.stage.Stage`.
    """
    from unireel.training.stage import Stage

    module_name, colon, class_name = recipe.stage.partition(":")
    if not colon or not module_name or not class_name:
        raise UsageError(f"'stage' is '{recipe.stage}': it must be of the form package.module:Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UserError(
                f"'stage' {recipe.stage} needs the package '{error.name}', which is not installed"
            ) from error
        raise UsageError(f"'stage' is '{recipe.stage}': there is no module {error.name}") from error
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Stage)):
        raise UsageError(f"'stage' is '{recipe.stage}': {module_name} has no Stage named {class_name}")
    return cls


def build_stage(recipe: Recipe) -> "Stage":
    """Seed every generator with ``recipe.seed`` and construct the stage on the CPU."""
    from unireel.training.randomness import seed_all

    cls = stage_class(recipe)
    config = from_dict(cls.config_class, recipe.stage_config, "stage_config")
    seed_all(recipe.seed)
    return cls(config)


# Keys that change what is watched, kept or how fast it goes, not what is learned from a given step on.
MAY_CHANGE = frozenset(
    (
        *("output", "steps", "max_minutes", "keep_last", "tensorboard"),
        *("device", "threads", "prefetch", "workers", "compile", "shards", "checkpoint_format"),
        *("log_every", "sample_every", "evaluate_every", "checkpoint_every", "checkpoint_minutes"),
    )
)


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data with every default of the stage's own configuration written out."""
    data = to_dict(recipe)
    data["stage_config"] = to_dict(
        from_dict(stage_class(recipe).config_class, recipe.stage_config, "stage_config")
    )
    return data


def differing_keys(recipe: Recipe, stored: dict[str, Any], allow: Sequence[str] = ()) -> list[str]:
    """Messages ``key: was X, is Y`` for settings that a resumed run may not change.

    Args:
        recipe: what is asked for now.
        stored: :func:`plain` of the recipe that wrote the checkpoint, perhaps by older code: a key it lacks
            counts as having had today's default.
        allow: dotted keys (or their prefixes) that the caller accepts as changed.
    """
    now = plain(recipe)
    config_class = stage_class(recipe).config_class
    required = {key: now[key] for key in ("stage", "output", "steps")}
    defaults = flatten(to_dict(from_dict(Recipe, required)))
    defaults.update(_defaults(config_class, "stage_config"))
    before = flatten(stored)
    found = []
    for key, value in flatten(now).items():
        old = before.get(key, defaults.get(key))
        permitted = key.split(".")[0] in MAY_CHANGE or any(key == a or key.startswith(a + ".") for a in allow)
        if old != value and not permitted:
            found.append(f"{key}: was {old!r}, is {value!r}")
    return found


def _defaults(cls: Any, prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.default is not dataclasses.MISSING:
            flat.update(flatten(to_dict(item.default), f"{prefix}.{item.name}"))
        elif item.default_factory is not dataclasses.MISSING:
            flat.update(flatten(to_dict(item.default_factory()), f"{prefix}.{item.name}"))
    return flat
