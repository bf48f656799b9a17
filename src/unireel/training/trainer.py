"""The training loop: one for every stage of every system."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import Parallel, clip_gradients, part, shard, whole
from unireel.training.ema import Ema
from unireel.training.optimizers import Optimizers
from unireel.training.precision import autocast, resolve
from unireel.training.prefetch import batches
from unireel.training.randomness import borrowed, random_state, seed_all, set_random_state
from unireel.training.recipe import Recipe, build_stage, differing_keys, plain
from unireel.training.report import Report, duration
from unireel.training.schedules import lr_factor
from unireel.training.stage import Stage, evaluation_mode, move
from unireel.training.stopping import StopSignal


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
        average = (
            {name: parameter for parameter, name in self.optimizers.names.items()} if recipe.ema.decay else {}
        )
        self.ema = Ema(average, recipe.ema.decay, recipe.ema.warmup)
        self.step, self.seconds = 0, 0.0
        # Each process draws its own noise.
        seed_all(recipe.seed + 1 + parallel.rank)

    def update(self, batch_iterator: Any) -> dict[str, Tensor]:
        """One optimiser update over ``accumulate`` micro-batches; returns detached scalars (no device is waited for)."""
        totals: dict[str, Tensor] = {}
        for _ in range(self.recipe.accumulate):
            batch = move(next(batch_iterator), self.parallel.device)
            with autocast(self.precision, self.parallel.device):
                loss, logs = self.stage.loss(batch)
            share = 1.0 / self.recipe.accumulate
            (loss * share if share != 1.0 else loss).backward()
            for key, value in {"loss": loss, **logs}.items():
                value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
                totals[key] = totals[key] + value * share if key in totals else value * share
        self.parallel.average_gradients(self.trained)  # type: ignore[arg-type]
        totals["grad_norm"] = clip_gradients(self.trained, self.recipe.clip_grad, self.parallel)  # type: ignore[arg-type]
        self.optimizers.step(self.factor)
        self.ema.update(self.step)
        self.step += 1
        return totals

    @property
    def factor(self) -> float:
        """Factor on the learning rate of the next update."""
        return lr_factor(self.recipe.schedule, self.step, self.recipe.steps)

    @property
    def first_batch(self) -> int:
        """Index of this process's next micro-batch."""
        return self.step * self.recipe.accumulate * self.parallel.world + self.parallel.rank

    def model_tensors(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the stage's module by name, this process's part."""
        module = self.stage.module
        kept = module.state_dict().keys()
        tensors: dict[str, Tensor] = dict(module.named_parameters())
        tensors.update({name: buffer for name, buffer in module.named_buffers() if name in kept})
        return tensors

    def checkpoint(self) -> checkpoints.Checkpoint:
        """Everything that the next update depends on; every process has to call it."""
        tensors = {"model": {name: whole(tensor, tensor) for name, tensor in self.model_tensors().items()}}
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
                f"the run in '{self.recipe.output}' was started with another recipe ({'; '.join(differing)}): "
                f"change it back, choose another output, start again with --fresh, or allow it with --allow KEY"
            )
        if saved.state["processes"] != self.parallel.world:
            raise UserError(
                f"the run in '{self.recipe.output}' has {saved.state['processes']} processes, "
                f"this is {self.parallel.world}: start as many, or start again with --fresh"
            )
        likes = self.ema.parameters
        _copy_into("weight", self.model_tensors(), self.model_tensors(), saved.tensors["model"])
        _copy_into("average", self.ema.state(), likes, saved.tensors["ema"])
        self.optimizers.load(saved.tensors["optimizer"])
        self.step, self.seconds = saved.step, saved.state["seconds"]
        set_random_state(saved.state["random"][self.parallel.rank], self.parallel.device)

    def look(self, report: Report, pictures: bool, metrics: bool) -> None:
        """Pictures and metrics of the stage with averaged weights; the run goes on as if nobody had looked."""
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


def _copy_into(what: str, targets: dict[str, Tensor], likes: Any, sources: dict[str, Tensor]) -> None:
    odd = sorted(set(targets) ^ set(sources))
    odd += [name for name in targets if name in sources and likes[name].shape != sources[name].shape]
    if odd:
        raise UserError(
            f"the checkpoint does not fit the stage: {what} '{odd[0]}' differs ({len(odd)} in all)"
        )
    with torch.no_grad():
        for name, target in targets.items():
            _local(target).copy_(part(sources[name], likes[name]))


def _local(tensor: Tensor) -> Tensor:
    from unireel.training.distributed import local

    return local(tensor)


def open_data(trainer: Trainer) -> Any:
    """The endless iterator of this process's micro-batches from the trainer's step on."""
    recipe = trainer.recipe
    return batches(
        trainer.stage.batch,
        trainer.first_batch,
        trainer.parallel.world,
        threads=torch.get_num_threads(),
        prefetch=recipe.prefetch,
        workers=recipe.workers,
        pin=trainer.parallel.device.type == "cuda",
    )


class Loop:
    """Drives a trainer to its last step, or to where it is asked to stop."""

    def __init__(self, trainer: Trainer, report: Report, stop: StopSignal) -> None:
        self.trainer, self.report, self.stop = trainer, report, stop
        self.recipe, self.parallel = trainer.recipe, trainer.parallel
        self.begun = self.saved_at = self.logged_at = self.counted_at = time.monotonic()
        self.saved_step = self.logged_step = trainer.step
        self.aside = 0.0  # seconds since the last log line that were not training
        self.window: dict[str, Tensor] = {}

    def run(self) -> bool:
        """Train; True when the last step is done, False when stopped before. A checkpoint holds the state either way."""
        data = open_data(self.trainer)
        try:
            while self.trainer.step < self.recipe.steps:
                self._add(self.trainer.update(data))
                self.report.tick()
                self._after()
                stopped, timed_out, due = self._agree()
                if self.trainer.step == self.recipe.steps or stopped or timed_out or due:
                    self._save()
                if stopped or timed_out:
                    return self.trainer.step == self.recipe.steps
        finally:
            data.close()
        return True

    def _agree(self) -> list[bool]:
        now, recipe, step = time.monotonic(), self.recipe, self.trainer.step
        timed_out = bool(recipe.max_minutes) and now - self.begun >= 60 * recipe.max_minutes
        due = bool(recipe.checkpoint_minutes) and now - self.saved_at >= 60 * recipe.checkpoint_minutes
        due = due or bool(recipe.checkpoint_every and step % recipe.checkpoint_every == 0)
        return self.parallel.agree([self.stop.raised, timed_out, due])

    def _add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self.window[key] = self.window[key] + value if key in self.window else value

    def _after(self) -> None:
        step, recipe = self.trainer.step, self.recipe
        last = step == recipe.steps
        if step % recipe.log_every == 0 or last:
            self._log()
        pictures = bool(recipe.sample_every) and (step % recipe.sample_every == 0 or last)
        metrics = bool(recipe.evaluate_every) and (step % recipe.evaluate_every == 0 or last)
        if pictures or metrics:
            start = time.monotonic()
            self.trainer.look(self.report, pictures, metrics)
            self.aside += time.monotonic() - start

    def _log(self) -> None:
        """One line of means since the last one. Waits for the device, and stops a run whose loss is not finite."""
        steps = self.trainer.step - self.logged_step
        if not steps:
            return
        keys = sorted(self.window)
        sums = torch.stack([self.window[key].double().cpu() for key in keys]) / steps
        means = dict(zip(keys, self.parallel.mean(sums).tolist(), strict=True))
        now = time.monotonic()
        rate = (
            steps
            * self.recipe.accumulate
            * self.parallel.world
            / max(1e-9, now - self.logged_at - self.aside)
        )
        self._count(now)
        self.window, self.logged_step, self.logged_at, self.aside = {}, self.trainer.step, now, 0.0
        if not math.isfinite(means["loss"]) or not math.isfinite(means["grad_norm"]):
            raise UserError(
                f"the loss or its gradient is not finite at step {self.trainer.step}: lower optimizer.lr or set "
                f"clip_grad, and resume from the checkpoint before (step {self.saved_step})"
            )
        self._tell(means, rate)

    def _tell(self, means: dict[str, float], rate: float) -> None:
        step, per_batch = self.trainer.step, self.trainer.stage.samples_per_batch
        left = (self.recipe.steps - step) * self.recipe.accumulate * self.parallel.world / rate
        lr = max(group["lr"] for group in self.trainer.optimizers.groups)
        values = {**means, "lr": lr, "batches_per_second": rate, "seconds": self.trainer.seconds}
        speed = f"{rate:.3g} batches/s"
        if per_batch:
            values["samples_per_second"] = rate * per_batch
            speed += f" {rate * per_batch:.4g} samples/s"
        self.report.metrics(step, values)
        others = " ".join(f"{key} {value:.4g}" for key, value in means.items() if key != "loss")
        self.report.say(
            f"step {step}/{self.recipe.steps} loss {means['loss']:.5g} {others} lr {lr:.3g} | {speed} | {duration(left)} left"
        )

    def _count(self, now: float) -> None:
        self.trainer.seconds += now - self.counted_at
        self.counted_at = now

    def _save(self) -> None:
        if self.trainer.step == self.saved_step:
            return
        start = time.monotonic()
        self._log()
        self._count(time.monotonic())
        content = self.trainer.checkpoint()
        if self.parallel.first:
            path = checkpoints.save(self.recipe.output / "checkpoints", content, self.recipe.keep_last)
            self.report.say(f"step {self.trainer.step}: checkpoint {path} ({time.monotonic() - start:.1f} s)")
        self.saved_step = self.trainer.step
        self.saved_at = self.logged_at = time.monotonic()
        self.aside = 0.0


def checkpoint_folder(recipe: Recipe) -> Path:
    """Where the checkpoints of a run are."""
    return recipe.output / "checkpoints"
