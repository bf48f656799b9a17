"""One optimiser update, and the state that it starts from."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import Parallel, clip_gradients, local, part, shard, whole
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
        self.waited = 0.0  # seconds spent waiting for batches
        # Each process draws its own noise.
        seed_all(recipe.seed + 1 + parallel.rank)

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
        return means

    @property
    def factor(self) -> float:
        """Factor on the learning rate of the next update."""
        return lr_factor(self.recipe.schedule, self.step, self.recipe.steps)

    @property
    def first_batch(self) -> int:
        """Index of this process's next micro-batch."""
        return self.step * self.recipe.accumulate * self.parallel.world + self.parallel.rank

    def checkpoint(self) -> checkpoints.Checkpoint:
        """Everything that the next update depends on; every process has to call it."""
        weights = module_tensors(self.stage.module)
        tensors = {"model": {name: whole(tensor, tensor) for name, tensor in weights.items()}}
        likes = self.ema.parameters
        tensors["ema"] = {name: whole(tensor, likes[name]) for name, tensor in self.ema.state().items()}
        tensors["optimizer"] = self.optimizers.state()
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "processes": self.parallel.world,
            "random": self.parallel.gather(random_state(self.parallel.device)),
            "recipe": plain(self.recipe),
            "torch": torch.__version__,
        }
        return checkpoints.Checkpoint(self.step, tensors, state)

    def restore(self, saved: checkpoints.Checkpoint, allow: Sequence[str] = ()) -> None:
        """Continue from ``saved``.

        Raises:
            UserError: the recipe, the number of processes or the parameters are not those of the checkpoint.
        """
        differing = differing_keys(self.recipe, saved.state["recipe"], allow)
        if differing:
            raise UserError(
                f"the run in '{self.recipe.output}' was started with another recipe: {'; '.join(differing)} "
                "(change it back, take another output, start again with --fresh, or accept with --allow KEY)"
            )
        if saved.state["processes"] != self.parallel.world:
            raise UserError(
                f"the run in '{self.recipe.output}' has {saved.state['processes']} processes, "
                f"this is {self.parallel.world}: start as many, or start again with --fresh"
            )
        weights = module_tensors(self.stage.module)
        copy_into("weight", weights, weights, saved.tensors["model"])
        copy_into("average", self.ema.state(), self.ema.parameters, saved.tensors["ema"])
        self.optimizers.load(saved.tensors["optimizer"])
        self.step, self.seconds = saved.step, saved.state["seconds"]
        set_random_state(saved.state["random"][self.parallel.rank], self.parallel.device)

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
    odd = sorted(set(targets) ^ set(sources))
    odd += [name for name in targets if name in sources and likes[name].shape != sources[name].shape]
    if odd:
        raise UserError(
            f"the checkpoint does not fit the stage: {what} '{odd[0]}' differs ({len(odd)} in all)"
        )
    with torch.no_grad():
        for name, target in targets.items():
            local(target).copy_(part(sources[name], likes[name]))
