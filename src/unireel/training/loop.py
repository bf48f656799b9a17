"""The training loop: one for every stage of every system."""

import math
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import spread
from unireel.training.prefetch import batches
from unireel.training.recipe import Recipe
from unireel.training.report import Report, duration
from unireel.training.stopping import StopSignal
from unireel.training.trainer import Trainer


def open_data(trainer: Trainer) -> Generator[Any, None, None]:
    """The endless iterator of this process's micro-batches from the trainer's step on."""
    recipe = trainer.recipe
    return batches(
        trainer.stage.batch,
        trainer.first_batch,
        trainer.parallel.data_world,
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
        self.writer = None
        if self.recipe.checkpoint_format == "sharded":
            from unireel.training.sharded import Writer

            self.writer = Writer(checkpoint_folder(self.recipe), self.parallel, self.recipe.keep_last)
        self.aside = 0.0  # seconds since the last log line that were not training
        # Sum and number of the values since the last log line.
        self.window: dict[str, tuple[Tensor, int]] = {}

    def run(self) -> bool:
        """Train to the last step (True) or a stop before it (False); a checkpoint holds the state then."""
        finished = self._train()
        if self.writer is not None:
            self.writer.finish()
        return finished

    def _train(self) -> bool:
        data = open_data(self.trainer)
        try:
            while self.trainer.step < self.recipe.steps:
                self._add(self.trainer.update(data))
                self.report.tick()
                last = self.trainer.step == self.recipe.steps
                if last or self.trainer.step % self.recipe.log_every == 0:
                    self._log()
                stopped, timed_out, due = self._agree()
                if last or stopped or timed_out or due:
                    self._save()
                if (stopped or timed_out) and not last:
                    return False
                self._look(last)  # after the checkpoint: a stage that fails here has lost nothing
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
            total, count = self.window.get(key, (torch.zeros_like(value), 0))
            self.window[key] = total + value, count + 1

    def _look(self, last: bool) -> None:
        step, recipe = self.trainer.step, self.recipe
        pictures = bool(recipe.sample_every) and (step % recipe.sample_every == 0 or last)
        metrics = bool(recipe.evaluate_every) and (step % recipe.evaluate_every == 0 or last)
        if pictures or metrics:
            start = time.monotonic()
            self.trainer.look(self.report, pictures, metrics)
            self.aside += time.monotonic() - start

    def _log(self) -> None:
        """One line of means since the last one, each over the updates that have the value.

        Ends a run whose loss is not finite; waits for the device.
        """
        steps = self.trainer.step - self.logged_step
        if not steps:
            return
        own = {key: (float(total), count) for key, (total, count) in self.window.items()}
        everyone = self.parallel.gather(own)  # processes may have seen other kinds of batches
        means = {}
        for key in sorted(set().union(*everyone)):
            totals, counts = zip(*(each[key] for each in everyone if key in each), strict=True)
            means[key] = sum(totals) / sum(counts)
        now = time.monotonic()
        training = max(1e-9, now - self.logged_at - self.aside)
        rate = steps * self.recipe.accumulate * self.parallel.data_world / training
        waiting, self.trainer.waited = self.trainer.waited / training, 0.0
        self._count(now)
        self.window, self.logged_step, self.logged_at, self.aside = {}, self.trainer.step, now, 0.0
        if not math.isfinite(means["loss"]) or not math.isfinite(means["grad_norm"]):
            raise UserError(
                f"the loss or its gradient is not finite at step {self.trainer.step}: lower optimizer.lr or "
                f"set clip_grad, and go on from the checkpoint of step {self.saved_step} or start again"
            )
        self._tell(means, rate, waiting)

    def _tell(self, means: dict[str, float], rate: float, waiting: float) -> None:
        step, per_batch = self.trainer.step, self.trainer.stage.samples_per_batch
        left = (self.recipe.steps - step) * self.recipe.accumulate * self.parallel.data_world / rate
        lr = max(group["lr"] for group in self.trainer.optimizers.groups)
        values = {**means, "lr": lr, "batches_per_second": rate, "seconds": self.trainer.seconds}
        values["waiting_for_data"] = waiting
        speed = f"{rate:.3g} batches/s"
        if waiting > 0.05:
            speed += f" ({waiting:.0%} waiting for data)"
        if per_batch:
            values["samples_per_second"] = rate * per_batch
            speed += f" {rate * per_batch:.4g} samples/s"
        self.report.metrics(step, values)
        others = " ".join(f"{key} {value:.4g}" for key, value in means.items() if key != "loss")
        line = f"step {step}/{self.recipe.steps} loss {means['loss']:.5g} {others} lr {lr:.3g}"
        self.report.say(f"{line} | {speed} | {duration(left)} left")

    def _count(self, now: float) -> None:
        self.trainer.seconds += now - self.counted_at
        self.counted_at = now

    def _save(self) -> None:
        if self.trainer.step == self.saved_step:
            return
        start = time.monotonic()
        self._log()
        self._count(time.monotonic())
        step = self.trainer.step
        if self.writer is not None:
            path = self.writer.start(step, self.trainer.tensors(spread), self.trainer.state())
            taken = time.monotonic() - start
            self.report.say(f"step {step}: checkpoint {path} (copied in {taken:.1f} s, written meanwhile)")
        else:
            content = checkpoints.Checkpoint(step, self.trainer.tensors(), self.trainer.state())
            if self.parallel.first:
                path = checkpoints.save(checkpoint_folder(self.recipe), content, self.recipe.keep_last)
                self.report.say(f"step {step}: checkpoint {path} ({time.monotonic() - start:.1f} s)")
        self.saved_step = self.trainer.step
        self.saved_at = self.logged_at = time.monotonic()
        self.aside = 0.0


def checkpoint_folder(recipe: Recipe) -> Path:
    """Where the checkpoints of a run are."""
    return recipe.output / "checkpoints"
