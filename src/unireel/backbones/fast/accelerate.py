"""One door to all that makes a Wan model faster without another result."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers import transformer_wan as stock
from torch import nn

from unireel.backbones.fast.attention import FastAttention
from unireel.backbones.fast.call import Call, has_hooks
from unireel.backbones.fast.model import WanTransformer3DModel, WanTransformerBlock
from unireel.backbones.fast.precision import HalfDecoder, halve
from unireel.backbones.fast.prompts import HousePrompts, WanPrompts
from unireel.backbones.wan import MatmulAttention
from unireel.errors import UsageError
from unireel.training.precision import has_fast_bf16

Precision = Literal["keep", "auto", "bfloat16"]


class Acceleration:
    """What :func:`accelerate` did; undone by :meth:`remove`.

    Attributes:
        levers: what acts, in words, in the order in which it was put on.
    """

    def __init__(
        self, levers: list[str], undo: list[Callable[[], None]], refresh: list[Callable[[], None]]
    ) -> None:
        self.levers, self._undo, self._refresh = levers, undo, refresh

    def add(self, lever: str, undo: Callable[[], None]) -> None:
        """Note that ``lever`` acts as well, and what takes it off."""
        self.levers.append(lever)
        self._undo.append(undo)

    def refresh(self) -> None:
        """Forget what was computed from weights, after writing into them in ways that torch does not see."""
        for each in self._refresh:
            each()

    def remove(self) -> None:
        """Take everything off again; weights that were rounded to bfloat16 stay rounded."""
        for each in reversed(self._undo):
            each()
        self._undo.clear()


def accelerate(
    target: Any, precision: Precision = "keep", compile: bool = False, prompts: int = 64
) -> Acceleration:
    """Make a Wan model faster in place; it computes what it did before.

    On a transformer: repeated padding of the text becomes one key, keys and values of the text are computed once per
    prompt, modulation once per distinct time, rotary positions once per size; on a processor blocks run in few
    operations and attention as matrix products. On a pipeline also: prompts are encoded once. Training, context
    parallelism, pictures among the text, and attention back ends that take no bias fall back by themselves, wholly or
    where they must; adapters, quantised layers, offloading and caches put on afterwards go on working.

    Args:
        target: a ``WanTransformer3DModel``, a Wan pipeline of diffusers, or one of ours.
        precision: ``"keep"`` is lossless; ``"bfloat16"`` rounds the weights of the transformer and of the
            autoencoder's decoder; ``"auto"`` does so on machines with bfloat16 instructions.
        compile: compile the repeated block (:meth:`compile_repeated_blocks`): pays after tens of films.
        prompts: how many prompts are remembered, 0 for none.

    Raises:
        UsageError: there is no Wan transformer, it is accelerated already, its attention has processors of their own,
            or something was put around its blocks (offloading, a cache): that has to come after this.
    """
    pipeline = None if isinstance(target, nn.Module) else target
    models = _transformers(target)
    for model in models:
        _check(model)
    if not models:
        raise UsageError(f"{type(target).__name__} has no Wan transformer to accelerate")
    levers = ["texts at their length, prepared once", "one modulation for each distinct time"]
    undo, refresh = [], []
    for model in models:
        undo.append(_replace(model))
        refresh.append(model.forget)
    if precision == "bfloat16" or (precision == "auto" and _prefers_bfloat16(models[0])):
        for model in models:
            halve(model)
        levers.append("bfloat16")
        if pipeline is not None and getattr(pipeline, "vae", None) is not None:
            undo.append(HalfDecoder(pipeline.vae).remove)
            levers.append("bfloat16 decoding")
    if models[0].device.type == "cpu" and not compile:
        levers.append("few operations")
    if compile:
        for model in models:
            model.compile_repeated_blocks(fullgraph=True)
        levers.append("compiled blocks")
    if pipeline is not None and prompts:
        cache = (WanPrompts if hasattr(pipeline, "_get_t5_prompt_embeds") else HousePrompts)(
            pipeline, prompts
        )
        undo.append(cache.remove)
        refresh.append(cache.clear)
        levers.append("prompts encoded once")
    return Acceleration(levers, undo, refresh)


def can_accelerate(target: Any) -> bool:
    """Whether :func:`accelerate` would accept ``target``."""
    try:
        for model in (models := _transformers(target)):
            _check(model)
    except UsageError:
        return False
    return bool(models)


def _transformers(target: Any) -> list[Any]:
    if isinstance(target, nn.Module):
        return [target]
    if hasattr(target, "drawing"):  # one of ours
        return [target.drawing]
    parts = (getattr(target, name, None) for name in ("transformer", "transformer_2"))
    return [part for part in parts if part is not None]


def _check(model: Any) -> None:
    if isinstance(model, WanTransformer3DModel):
        raise UsageError(
            "the model is accelerated already: remove that acceleration first, or load with fast=False"
        )
    if type(model) is not stock.WanTransformer3DModel:
        raise UsageError(f"only Wan transformers of diffusers can be accelerated, not {type(model).__name__}")
    for block in model.blocks:
        for attn in (block.attn1, block.attn2):
            if type(attn.processor) not in (stock.WanAttnProcessor, MatmulAttention):
                name = type(attn.processor).__name__
                raise UsageError(
                    f"attention of the model has a processor of its own, {name}: accelerate before that"
                )
    if has_hooks(model) or any(has_hooks(block) for block in model.blocks):
        raise UsageError("something was put around the model (offloading, a cache): accelerate before that")


def _replace(model: Any) -> Callable[[], None]:
    """Give the model our classes and attention; returns what takes them off again."""
    TransformerBlockRegistry.register(
        WanTransformerBlock,
        TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),
    )
    call = Call()
    before = [(attn, attn.processor) for block in model.blocks for attn in (block.attn1, block.attn2)]
    for attn, processor in before:
        attn.set_processor(FastAttention(call, getattr(processor, "_attention_backend", None)))
    for module in (model, *model.blocks):
        module.call = call
    model.__class__ = WanTransformer3DModel
    for block in model.blocks:
        block.__class__ = WanTransformerBlock

    def restore() -> None:
        for attn, processor in before:
            attn.set_processor(processor)
        for module in (model, *model.blocks):
            del module.call
            # diffusers' hooks leave the forward that they found on the instance, which is ours.
            if getattr(vars(module).get("forward"), "__func__", None) is type(module).forward:
                del module.forward
        model.__class__ = stock.WanTransformer3DModel
        for block in model.blocks:
            block.__class__ = stock.WanTransformerBlock

    return restore


def _prefers_bfloat16(model: Any) -> bool:
    """Whether a float32 model runs on a machine that computes faster in bfloat16."""
    return model.dtype == torch.float32 and has_fast_bf16(model.device)
