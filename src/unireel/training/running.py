"""Start, resume, finish: a run from a recipe to exported weights."""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import yaml

from unireel.config import to_dict
from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import Parallel, start
from unireel.training.loop import Loop, checkpoint_folder
from unireel.training.recipe import Recipe, build_stage
from unireel.training.report import Report, duration
from unireel.training.stage import evaluation_mode, module_tensors
from unireel.training.stopping import StopSignal
from unireel.training.trainer import Trainer, copy_into


def run(
    recipe: Recipe, resume: Literal["auto", "always", "never"] = "auto", allow: Sequence[str] = ()
) -> bool:
    """Train as ``recipe`` says and export at the end.

    Args:
        recipe: the run; ``recipe.output`` is its folder.
        resume: ``auto`` continues if the folder has a checkpoint, ``always`` insists on one, ``never`` puts
            an earlier run aside (``before-1``, ``before-2``, ...) and starts from nothing.
        allow: dotted keys that may differ from the checkpoint's recipe.

    Returns:
        True when the last step is done and exported; False when stopped before (a checkpoint was written).

    Raises:
        UserError: the run cannot start, go on or be written; the message says why.
    """
    parallel = start(recipe.device, recipe.parallel, recipe.shards, recipe.sequence)
    try:
        with _folder(recipe, parallel, fresh=resume == "never"):
            return _run(recipe, parallel, resume, allow)
    finally:
        parallel.close()


def _run(recipe: Recipe, parallel: Parallel, resume: str, allow: Sequence[str]) -> bool:
    path = checkpoints.newest(checkpoint_folder(recipe)) if parallel.first else None
    path = parallel.first_says(path)
    if path is None and resume == "always":
        raise UserError(
            f"'{recipe.output}' has no checkpoint to resume from: leave --resume out to start a run there"
        )
    trainer = Trainer(recipe, parallel)
    if path is not None:
        trainer.restore(path, allow)
    if parallel.first:
        (recipe.output / "recipe.yaml").write_text(
            yaml.safe_dump(to_dict(recipe), sort_keys=False), encoding="utf-8"
        )
    report = Report(recipe.output, recipe.steps, trainer.step, recipe.tensorboard, silent=not parallel.first)
    try:
        _introduce(trainer, report, resumed=path is not None)
        with StopSignal() as stop:
            finished = Loop(trainer, report, stop).run()
        if not finished:
            report.say(
                f"stopped at step {trainer.step} of {recipe.steps}: the same command goes on from here"
            )
            return False
        if parallel.first:
            target = recipe.output / "export"
            _export(trainer, target)
            report.say(f"done: {trainer.step} steps in {duration(trainer.seconds)}, weights in {target}")
        return True
    finally:
        report.close()


def export_only(recipe: Recipe, folder: Path | None = None) -> Path:
    """Export the averaged weights of the newest checkpoint of a run, finished or not.

    Args:
        recipe: the run.
        folder: where to; ``recipe.output / "export"`` if not given.

    Raises:
        UserError: there is no undamaged checkpoint.
    """
    target = folder or recipe.output / "export"
    path = checkpoints.newest(checkpoint_folder(recipe))
    if path is None:
        raise UserError(f"'{recipe.output}' has no checkpoint to export")
    saved = checkpoints.load(path, ("model", "ema"))
    stage = build_stage(recipe)
    tensors = module_tensors(stage.module)
    copy_into("weight", tensors, tensors, {**saved.tensors["model"], **saved.tensors["ema"]})
    target.mkdir(parents=True, exist_ok=True)
    with evaluation_mode(stage.module):
        stage.export(target)
    return target


def _export(trainer: Trainer, target: Path) -> None:
    if trainer.parallel.sharded:
        # Shards cannot be saved as ordinary folders: read the last checkpoint into a whole model.
        export_only(trainer.recipe, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    with evaluation_mode(trainer.stage.module), trainer.ema.applied():
        trainer.stage.export(target)


def _introduce(trainer: Trainer, report: Report, resumed: bool) -> None:
    recipe = trainer.recipe
    parameters = sum(parameter.numel() for parameter in trainer.trained)
    where = (
        f"{trainer.parallel.world} x {trainer.parallel.device.type}" if trainer.parallel.world > 1 else None
    )
    report.say(
        f"{recipe.stage}: {parameters / 1e6:.2f} M trained parameters, {trainer.precision} on "
        f"{where or trainer.parallel.device.type}, {recipe.optimizer.name}, "
        + (f"resumed at step {trainer.step}" if resumed else "from the start")
        + f" of {recipe.steps}, into {recipe.output}"
    )
    for line in trainer.stage.report():
        report.say(line)


@contextlib.contextmanager
def _folder(recipe: Recipe, parallel: Parallel, fresh: bool) -> Iterator[None]:
    """The run folder, held by one run at a time; the lock goes with the process, however it dies."""
    if not parallel.first:
        yield
        return
    output = recipe.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write to 'output' {output}: {error.strerror}") from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another run is writing to '{output}': wait for it or choose another output"
            ) from error
        if fresh:
            _put_aside(output)
        yield


def _put_aside(output: Path) -> None:
    names = ("checkpoints", "metrics.jsonl", "recipe.yaml", "samples", "tensorboard", "export")
    old = [output / name for name in names if (output / name).exists()]
    if not old:
        return
    number = 1
    while (output / f"before-{number}").exists():
        number += 1
    aside = output / f"before-{number}"
    aside.mkdir()
    for path in old:
        path.rename(aside / path.name)
