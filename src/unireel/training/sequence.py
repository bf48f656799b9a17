"""Sequence parallelism: several processes work on one batch, each on its share of the tokens.

The work is diffusers' context parallelism (Ulysses: every process has all tokens of some heads while it attends, and
some tokens of all heads otherwise). Its forward returns the whole output in every process, its backward gives each
process the gradient of what its own tokens contributed.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import math
from collections.abc import Iterable
from typing import Any

from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ContextParallelOutput
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from unireel.errors import UsageError, UserError
from unireel.training.distributed import Parallel


def split_sequences(models: Iterable[nn.Module], parallel: Parallel) -> None:
    """Split the tokens of each of ``models`` over ``parallel.sequence`` processes, in place.

    Gradients become what the rest of training expects, whose mean over *all* processes is the batch's gradient: a
    process's own contribution times the number of those that share the batch. The factor enters where the output is
    gathered, so that it reaches everything before it and nothing else.

    ``enable_parallelism`` of diffusers would do the same on an accelerator; it does not know processors.

    Raises:
        UserError: there is nothing to split, or a model cannot be split.
        UsageError: heads cannot be dealt out evenly.
    """
    models = list(models)
    if not models:
        raise UserError("'sequence' is above 1, but the stage has no model that diffusers can split")
    size = parallel.sequence
    mesh = init_device_mesh(
        parallel.device.type, (parallel.data_world, 1, size), mesh_dim_names=("data", "ring", "ulysses")
    )
    own = ContextParallelConfig(ulysses_degree=size, mesh=mesh)
    config = ParallelConfig(context_parallel_config=own)
    config.setup(parallel.rank, parallel.world, parallel.device, mesh=mesh)
    for model in models:
        _check(model, size)
        for processor in model.attn_processors.values():
            processor._parallel_config = config
        model._parallel_config = config
        model.register_forward_pre_hook(_Divisible(model.config["patch_size"], size), with_kwargs=True)
        apply_context_parallel(model, own, model._cp_plan)
        for name, plan in model._cp_plan.items():
            if isinstance(plan, ContextParallelOutput):
                model.get_submodule(name).register_forward_hook(_Weighed(size))


def _check(model: nn.Module, size: int) -> None:
    heads = model.config["num_attention_heads"]
    if heads % size:
        raise UsageError(f"'sequence' is {size}, which does not divide the {heads} heads of the transformer")
    for name, processor in model.attn_processors.items():
        backend = getattr(processor, "_attention_backend", None)
        chosen = (
            AttentionBackendName(backend) if backend else _AttentionBackendRegistry.get_active_backend()[0]
        )
        able = _AttentionBackendRegistry._is_context_parallel_available(chosen)
        if not type(processor).__module__.startswith("diffusers.") or not able:
            what = f"{type(processor).__name__} ({chosen.value})"
            raise UserError(f"'sequence' is above 1, but the attention of '{name}' cannot be split: {what}")
    for name, module in model.named_modules():
        inside = name.startswith("blocks.") and ".attn2." not in name
        if inside and module._forward_hooks:
            raise UserError(
                f"'sequence' is above 1, but a hook on '{name}' would see only a share of the tokens"
            )


class _Divisible:
    """Refuses latents (B, C, T, h, w) whose tokens cannot be dealt out evenly, before they are."""

    def __init__(self, patch: tuple[int, int, int], size: int) -> None:
        self.patch, self.size = patch, size

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        tokens = math.prod(side // part for side, part in zip(latents.shape[2:], self.patch, strict=True))
        if tokens % self.size:
            raise UsageError(
                f"'sequence' is {self.size}, which does not divide the {tokens} tokens of a film"
            )


class _Weighed:
    """Multiplies the gradient of a module's output."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * self.factor)
