"""One optimiser update, and the state that it starts from."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import Parallel, clip_gradients, local, part, shard, spread, whole
from unireel.training.ema import Ema
from unireel.training.optimizers import Optimizers
from unireel.training.precision import autocast, resolve
from unireel.training.randomness import borrowed, random_state, seed_all, set_random_state
from unireel.training.recipe import Recipe, build_stage, differing_keys, plain
from unireel.training.report import Report
from unireel.training.schedules import lr_factor
from unireel.training.stage import Stage, evaluation_mode, module_tensors, move


class Trainer:
    """A run between two steps: everything that a checkpoint holds, and how to make one more update.

    Args:
        recipe: the run.
        parallel: this process among the others.
    """

    def __init__(self, recipe: Recipe, parallel: Parallel) -> None:
        self.recipe, self.parallel = recipe, parallel
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.precision = resolve(recipe.precision, parallel.device)
        self.stage: Stage = build_stage(recipe)
        self.stage.to(parallel.device)
        if parallel.sequence > 1:
            from unireel.training.sequence import split_sequences

            split_sequences(self.stage.sequence_models(), parallel)
        if parallel.sharded:
            shard(self.stage.module, parallel, self.stage.forward_methods)
        if recipe.compile:
            self.stage.compile()
        self.optimizers = Optimizers(self.stage.module, recipe.optimizer, self.stage.parameter_groups())
        self.trained = list(self.optimizers.names)
        if not self.trained:
            raise UserError(f"stage {recipe.stage} has no parameter that is trained")
        names = self.optimizers.names
        averaged = {name: parameter for parameter, name in names.items()} if recipe.ema.decay else {}
        self.ema = Ema(averaged, recipe.ema.decay, recipe.ema.warmup)
        self.step, self.seconds = 0, 0.0
        self.seen = 0  # micro-batches of all processes
        self.waited = 0.0  # seconds spent waiting for batches
        # Each process draws its own noise; those that share a batch draw the same.
        seed_all(recipe.seed + 1 + parallel.data_rank)

    def update(self, data: Iterator[Any]) -> dict[str, Tensor]:
        """One optimiser update over ``accumulate`` micro-batches; returns detached scalars.

        Each is a mean over the micro-batches that have it. Waits for no device: the scalars are read when they are
        printed.
        """
        share = 1.0 / self.recipe.accumulate
        found: dict[str, list[Tensor]] = {}
        for _ in range(self.recipe.accumulate):
            asked = time.monotonic()
            batch = next(data)
            self.waited += time.monotonic() - asked
            batch = move(batch, self.parallel.device)
            with autocast(self.precision, self.parallel.device):
                loss, logs = self.stage.loss(batch)
            (loss * share if share != 1.0 else loss).backward()
            for key, value in {**logs, "loss": loss}.items():
                value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
                found.setdefault(key, []).append(value)
        self.parallel.average_gradients(self.trained)
        means = {key: torch.stack(values).mean() for key, values in found.items()}
        means["grad_norm"] = clip_gradients(self.trained, self.recipe.clip_grad, self.parallel)
        self.optimizers.step(self.factor)
        self.ema.update(self.step)
        self.step += 1
        self.seen += self.recipe.accumulate * self.parallel.data_world
        return means

    @property
    def factor(self) -> float:
        """Factor on the learning rate of the next update."""
        return lr_factor(self.recipe.schedule, self.step, self.recipe.steps)

    @property
    def first_batch(self) -> int:
        """Index of this process's next micro-batch."""
        return self.seen + self.parallel.data_rank

    def tensors(self, form: Callable[[Tensor, Tensor], Tensor] = whole) -> dict[str, dict[str, Tensor]]:
        """Weights, averages and states of the optimiser by name, full and on the CPU by default.

        ``form`` gets each and the parameter whose layout it has; every process has to call it.
        """
        weights, likes = module_tensors(self.stage.module), self.ema.parameters
        return {
            "model": {name: form(tensor, tensor) for name, tensor in weights.items()},
            "ema": {name: form(tensor, likes[name]) for name, tensor in self.ema.state().items()},
            "optimizer": self.optimizers.state(form),
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors; every process has to call it."""
        return {
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
            "processes": self.parallel.world,
            "random": self.parallel.gather(random_state(self.parallel.device)),
            "recipe": plain(self.recipe),
            "torch": torch.__version__,
        }

    def restore(self, path: Path, allow: Sequence[str] = ()) -> None:
        """Continue from the checkpoint at ``path``; each process reads what it needs.

        With ``processes`` in ``allow`` their number may be another than before: the batches go on where they were, and
        every process draws noise anew.

        Raises:
            UserError: the recipe, the number of processes or the parameters are not those of the checkpoint.
        """
        saved = checkpoints.load(path, ())
        differing = differing_keys(self.recipe, saved.state["recipe"], allow)
        if differing:
            raise UserError(
                f"the run in '{self.recipe.output}' was started with another recipe: {'; '.join(differing)} "
                "(change it back, take another output, start again with --fresh, or accept with --allow KEY)"
            )
        processes, own = saved.state["processes"], self.parallel
        if processes != own.world and "processes" not in allow:
            raise UserError(
                f"the run in '{self.recipe.output}' has {processes} processes, this is {own.world}: "
                "start as many, accept it with --allow processes, or start again with --fresh"
            )
        if checkpoints.is_sharded(path):
            self._restore_shards(path)
        else:
            self._restore_whole(checkpoints.load(path))
        self.step, self.seconds = saved.step, saved.state["seconds"]
        # Checkpoints of older versions do not tell.
        self.seen = saved.state.get("seen", saved.step * self.recipe.accumulate * processes)
        if processes == own.world:
            set_random_state(saved.state["random"][own.rank], own.device)
        else:
            entropy = [self.recipe.seed, self.step, own.data_rank]
            seed_all(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _restore_whole(self, saved: checkpoints.Checkpoint) -> None:
        weights = module_tensors(self.stage.module)
        copy_into("weight", weights, weights, saved.tensors["model"])
        copy_into("average", self.ema.state(), self.ema.parameters, saved.tensors["ema"])
        self.optimizers.load(saved.tensors["optimizer"])

    def _restore_shards(self, path: Path) -> None:
        shapes = {name: shape for name, (shape, _) in checkpoints.shards_of(path).items()}
        targets = self.tensors(lambda tensor, like: spread(tensor.detach(), like))
        for stem, what in (("model", "weight"), ("ema", "average")):
            check_fit(what, targets[stem], part_of(shapes, stem))
        targets["optimizer"] = self.optimizers.empty(part_of(shapes, "optimizer"))
        flat = {f"{stem}/{name}": each for stem, named in targets.items() for name, each in named.items()}
        checkpoints.read_shards(path, flat, alone=self.parallel.world == 1)
        self.optimizers.load(targets["optimizer"])

    def look(self, report: Report, pictures: bool, metrics: bool) -> None:
        """Pictures and metrics with averaged weights; the run goes on as if nobody had looked."""
        with (
            borrowed(self.recipe.seed, self.parallel.device),
            evaluation_mode(self.stage.module),
            self.ema.applied(),
            autocast(self.precision, self.parallel.device),
        ):
            if pictures:
                report.pictures(self.step, self.stage.samples())
            if metrics:
                values = self.stage.evaluate()
                report.metrics(self.step, values, kind="evaluate")
                text = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
                report.say(f"step {self.step}: evaluation: {text or 'nothing'}")


def copy_into(
    what: str, targets: dict[str, Tensor], likes: Mapping[str, Tensor], sources: dict[str, Tensor]
) -> None:
    """Copy full tensors from a checkpoint into this process's parts of them.

    Args:
        what: what the tensors are, for the message.
        targets: live tensors by name, whole or shards.
        likes: the parameters whose layout the targets share.
        sources: full tensors on the CPU.

    Raises:
        UserError: names or shapes differ.
    """
    check_fit(
        what, {name: likes[name] for name in targets}, {name: each.shape for name, each in sources.items()}
    )
    with torch.no_grad():
        for name, target in targets.items():
            local(target).copy_(part(sources[name], likes[name]))


def check_fit(what: str, targets: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Compare names and full shapes with those of a checkpoint.

    Raises:
        UserError: they differ.
    """
    odd = sorted(set(targets) ^ set(shapes))
    odd += [name for name in targets if name in shapes and targets[name].shape != shapes[name]]
    if odd:
        raise UserError(
            f"the checkpoint does not fit the stage: {what} '{odd[0]}' differs ({len(odd)} in all)"
        )


def part_of(shapes: Mapping[str, torch.Size], stem: str) -> dict[str, torch.Size]:
    """Those whose names begin with ``stem`` and a slash, without it."""
    return {
        name.removeprefix(f"{stem}/"): each for name, each in shapes.items() if name.startswith(f"{stem}/")
    }
