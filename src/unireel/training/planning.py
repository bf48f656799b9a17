"""What a run would do, without doing it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import Tensor

from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import start
from unireel.training.loop import checkpoint_folder
from unireel.training.optimizers import Muon
from unireel.training.recipe import Recipe, differing_keys, plain, stage_class
from unireel.training.trainer import Trainer


def plan(recipe: Recipe) -> str:
    """The settings written out, parameters by optimiser, a batch's tensors, memory, and where it would start.

    Builds the stage (one that ``plans_on_meta`` without its weights) and one batch; trains and writes nothing.

    Raises:
        UserError: the run could not start as the recipe stands.
    """
    parallel = start(recipe.device, recipe.parallel)
    try:
        with torch.device("meta") if stage_class(recipe).plans_on_meta else contextlib.nullcontext():
            trainer = Trainer(recipe, parallel)
            batch = trainer.stage.batch(0)
        lines = [yaml.safe_dump(plain(recipe), sort_keys=False).rstrip(), ""]
        threads = torch.get_num_threads()
        where = f"{parallel.device}, {parallel.world} process(es) of {threads} thread(s)"
        lines.append(f"runs in {trainer.precision} on {where}")
        lines += _parameters(trainer)
        lines += trainer.stage.report()
        lines.append("one micro-batch:")
        lines += [f"  {name}: {text}" for name, text in describe(batch).items()]
        path = checkpoints.newest(checkpoint_folder(recipe))
        if path is None:
            lines.append(f"would start from nothing, into {recipe.output}")
        else:
            saved = checkpoints.load(path, ())
            differing = differing_keys(recipe, saved.state["recipe"])
            lines.append(f"would go on from step {saved.step} of {recipe.steps}, in {recipe.output}")
            lines += [f"  not without --fresh or --allow: {text}" for text in differing]
        return "\n".join(lines)
    finally:
        parallel.close()


def _parameters(trainer: Trainer) -> list[str]:
    lines = []
    for optimizer in trainer.optimizers.parts:
        name = "Muon" if isinstance(optimizer, Muon) else "AdamW"
        for group in optimizer.param_groups:
            count = sum(parameter.numel() for parameter in group["params"])
            lines.append(
                f"{name}: {len(group['params'])} tensors, {count / 1e6:.3f} M parameters, "
                f"lr {group['base_lr']:.3g}, weight decay {group['weight_decay']:.3g}"
            )
    total = sum(parameter.numel() for parameter in trainer.stage.module.parameters())
    trained = sum(parameter.numel() for parameter in trainer.trained)
    lines.append(f"in all {trained / 1e6:.3f} M of {total / 1e6:.3f} M parameters are trained")
    # Weight, gradient, average and at most two moments, float32 each.
    copies = 4 + (1 if trainer.recipe.ema.decay else 0)
    lines.append(
        f"weights, gradients and optimiser: about {trained * 4 * copies / 2**20:.0f} MiB, and activations"
    )
    return lines


def describe(batch: Any, name: str = "batch") -> dict[str, str]:
    """Name to ``dtype (shape)`` of every tensor in a nested batch."""
    if isinstance(batch, Tensor):
        return {name: f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"}
    if isinstance(batch, Mapping):
        parts = [(f"{name}.{key}", value) for key, value in batch.items()]
    elif isinstance(batch, list | tuple):
        parts = [(f"{name}[{number}]", value) for number, value in enumerate(batch)]
    else:
        return {name: type(batch).__name__}
    return {key: text for part_name, part in parts for key, text in describe(part, part_name).items()}
