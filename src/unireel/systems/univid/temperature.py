"""Temperature Modality Alignment: attention logits toward the condition gain strength early, toward the picture late.

A decoder that attends to far more visual than text tokens, and that decides about content early and about detail
late, profits from words that weigh more at first (UniVid, section 2.3, after TACA, arXiv 2506.07986). With u the
sampler's progress from 0 (noise) to 1 (data), logits S toward text keys become alpha_text(u) S (eq. 2-3), and in
image-to-video logits toward the reference picture's keys alpha_image(u) S (eq. 4-5). No weight changes:

    from unireel.systems.univid.temperature import align
    align(pipe)                                     # any Wan pipeline of diffusers

A logit is linear in its key, so the gain is put on the keys, behind their norm, where every attention kernel, LoRA and
quantisation can stay as they are. It is set once a step from the state of the scheduler, never by counting forwards,
so both branches of guidance share it, and a run that was broken off leaves nothing behind.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from torch import Tensor, nn

from unireel.errors import UsageError, UserError

Schedule = Literal["none", "constant", "step", "linear", "cosine"]
SCHEDULES: tuple[Schedule, ...] = ("none", "constant", "step", "linear", "cosine")


@dataclass(frozen=True)
class TemperatureAlignment:
    """How strong the gains are, and when.

    Attributes:
        schedule: "cosine" is the paper's (eq. 3 and 5); "linear" falls and rises on straight lines between the same
            ends; "step" is at full strength or off; "constant" is at full strength throughout; "none" is off.
        text_strength: lambda_text >= 0; text logits gain up to 1 + lambda.
        image_strength: lambda_image >= 0, likewise for the reference picture.
        text_until: progress in (0, 1] at which the text's gain has come down to 1.
        image_from: progress in [0, 1) at which the picture's gain begins to rise from 1.
    """

    schedule: Schedule = "cosine"
    text_strength: float = 0.3
    image_strength: float = 0.3
    text_until: float = 0.4
    image_from: float = 0.6

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule={self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        if not (self.text_strength >= 0 and self.image_strength >= 0):
            raise ValueError(
                f"text_strength={self.text_strength}, image_strength={self.image_strength}: at least 0 each"
            )
        if not 0 < self.text_until <= 1 or not 0 <= self.image_from < 1:
            raise ValueError(
                f"text_until={self.text_until}, image_from={self.image_from}: in (0, 1] and in [0, 1)"
            )

    def text_gain(self, progress: float) -> float:
        """alpha_text (eq. 3) at ``progress`` in [0, 1]."""
        return 1 + self.text_strength * self._share(progress / self.text_until)

    def image_gain(self, progress: float) -> float:
        """alpha_image (eq. 5), which is the text's rule run backwards from the end of sampling."""
        return 1 + self.image_strength * self._share((1 - progress) / (1 - self.image_from))

    def _share(self, distance: float) -> float:
        """Share in [0, 1] of the full strength at ``distance`` (>= 0) from its peak; from 1 on the gain is over."""
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "none" or distance > 1:
            return 0.0
        if self.schedule == "step":
            return 1.0
        return 1 - distance if self.schedule == "linear" else (1 + math.cos(math.pi * distance)) / 2


def flow_progress(time: Tensor, shift: float) -> Tensor:
    """The progress at which a sampler of this ``shift`` is at flow ``time`` in [0, 1]: 1 minus the unshifted time.

    For training, where each sample has a time of its own; the inverse of
    :func:`unireel.flow.matching.shift_time`.
    """
    return 1 - time / (shift - (shift - 1) * time)


class AlignedAttention:
    """Gains on the attention of one or more Wan transformers, see :func:`align`; undone by :meth:`remove`.

    As a context manager it is removed at the end of the block.
    """

    def __init__(
        self,
        transformers: list[nn.Module],
        alignment: TemperatureAlignment,
        reference: bool,
        pipeline: Any = None,
    ) -> None:
        self.alignment = alignment
        self._pipeline = pipeline
        self._handles: list[Any] = []
        self._frame_tokens = 0
        self.set(0.0, reference)
        if alignment.schedule == "none":
            return
        for transformer in transformers:
            # The hook reads numbers that change every step: compiled, it would be compiled every step.
            watch = torch.compiler.disable(self._before_forward)
            self._handles.append(transformer.register_forward_pre_hook(watch, with_kwargs=True))
            for block in _inner(transformer).blocks:
                self._hook(block)

    def _hook(self, block: nn.Module) -> None:
        if self.alignment.text_strength:
            self._handles.append(block.attn2.norm_k.register_forward_hook(self._text_keys))
        if not self.alignment.image_strength:
            return
        if block.attn2.add_k_proj is not None:
            self._handles.append(block.attn2.norm_added_k.register_forward_hook(self._image_keys))
        else:
            self._handles.append(block.attn1.norm_k.register_forward_hook(self._first_frame_keys))

    def set(self, progress: float | Tensor, reference: bool | Tensor | None = None) -> None:
        """Say where sampling is: once a step in samplers without a scheduler of diffusers, and in training.

        Args:
            progress: u in [0, 1]: step k of S is at k / S. One number for all samples, or (B,) for each its own.
            reference: whether a clean reference picture is there, for all samples or (B,) bool; None leaves it.

        Raises:
            UsageError: ``progress`` is outside [0, 1].
        """
        places = progress.tolist() if isinstance(progress, Tensor) else [float(progress)]
        if not all(0 <= each <= 1 for each in places):
            raise UsageError(f"progress {progress} is outside 0 to 1")
        if reference is not None:
            self._reference = reference.tolist() if isinstance(reference, Tensor) else [bool(reference)]
        self._progress = progress
        rows = max(len(places), len(self._reference))
        places, references = places * (rows // len(places)), self._reference * (rows // len(self._reference))
        self._text = Gain.of([self.alignment.text_gain(each) for each in places])
        pairs = zip(places, references, strict=True)
        self._image = Gain.of([self.alignment.image_gain(each) if there else 1.0 for each, there in pairs])

    @property
    def gains(self) -> tuple[Tensor, Tensor]:
        """The gains of text and picture that act now: float32 scalars, or (B, 1, 1)."""
        return self._text.factor, self._image.factor

    def remove(self) -> None:
        """Take the gains off; the model computes what it did before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> AlignedAttention:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Note the tokens of a latent frame and, in a pipeline, the step: the same for every forward of a step."""
        latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        patch = _inner(module).config.patch_size
        self._frame_tokens = (latents.shape[3] // patch[1]) * (latents.shape[4] // patch[2])
        if self._pipeline is not None:
            scheduler = self._pipeline.scheduler
            step = scheduler.begin_index if scheduler.step_index is None else scheduler.step_index
            progress = (step or 0) / len(scheduler.timesteps)
            if progress != self._progress:
                self.set(progress)

    def _text_keys(self, module: nn.Module, args: tuple, keys: Tensor) -> Tensor:
        return _gained(keys, self._text, keys.shape[1])

    def _image_keys(self, module: nn.Module, args: tuple, keys: Tensor) -> Tensor:
        return _gained(keys, self._image, keys.shape[1])

    def _first_frame_keys(self, module: nn.Module, args: tuple, keys: Tensor) -> Tensor:
        return _gained(keys, self._image, self._frame_tokens)


def align(
    target: Any, alignment: TemperatureAlignment | None = None, reference: bool | None = None
) -> AlignedAttention:
    """Put Temperature Modality Alignment on a Wan model; in force until :meth:`AlignedAttention.remove`.

    Args:
        target: a Wan pipeline of diffusers, whose scheduler then says where sampling is (both transformers of the
            two-stage models are aligned), or a ``WanTransformer3DModel``, for which :meth:`AlignedAttention.set` does.
        alignment: strengths and schedule; the paper's by default.
        reference: whether there is a clean reference picture, to whose keys eq. 4-5 apply: those of the image
            cross-attention where the model has one (Wan2.1 I2V), else the self-attention's of the first latent frame
            (TI2V). By default whether ``target`` is diffusers' image-to-video pipeline.

    Raises:
        UserError: there is no Wan transformer in ``target``.
        UsageError: it is already aligned.
    """
    names = ("transformer", "transformer_2")
    parts = [getattr(target, name, None) for name in names] if hasattr(target, "scheduler") else [target]
    transformers = [each for each in parts if each is not None]
    if not transformers or not all(isinstance(_inner(each), WanTransformer3DModel) for each in transformers):
        raise UserError(
            f"temperature alignment needs a Wan transformer or a pipeline with one, not {type(target).__name__}"
        )
    if any(_is_aligned(each) for each in transformers):
        raise UsageError("the model is already aligned; remove() the first alignment")
    pipeline = target if hasattr(target, "scheduler") else None
    if reference is None:
        reference = isinstance(target, WanImageToVideoPipeline)
    return AlignedAttention(transformers, alignment or TemperatureAlignment(), reference, pipeline)


@dataclass(frozen=True)
class Gain:
    """A factor of keys, float32: a scalar on the CPU, which kernels of any device take, or (B, 1, 1)."""

    factor: Tensor
    is_one: bool

    @classmethod
    def of(cls, gains: list[float]) -> Gain:
        """From one number for all samples, or one for each of B > 1."""
        if gains == [1.0]:
            return _NO_GAIN
        factor = torch.tensor(gains, dtype=torch.float32)
        return cls(factor[0] if len(gains) == 1 else factor[:, None, None], all(each == 1 for each in gains))


_NO_GAIN = Gain(torch.ones(()), True)


def _gained(keys: Tensor, gain: Gain, count: int) -> Tensor:
    """Keys (B, n, D) with the first ``count`` of each sample times their gain; a gain of 1 changes no bit.

    Compiled, the factor stays a number that the graph takes in, so that one graph serves all steps.
    """
    if not torch.compiler.is_compiling() and gain.is_one:
        return keys
    factor = gain.factor if gain.factor.ndim == 0 else gain.factor.to(keys.device)
    if keys.requires_grad:
        return torch.cat([(keys[:, :count] * factor).to(keys.dtype), keys[:, count:]], dim=1)
    gained = keys if count == keys.shape[1] else keys[:, :count]
    gained.mul_(factor)  # in the norm's own output, which nobody else holds
    return keys


def _inner(module: nn.Module) -> Any:
    """The model behind ``torch.compile``'s wrapper."""
    return getattr(module, "_orig_mod", module)


def _is_aligned(transformer: nn.Module) -> bool:
    hooks = (
        hook for norm in _inner(transformer).blocks[0].modules() for hook in norm._forward_hooks.values()
    )
    return any(isinstance(getattr(hook, "__self__", None), AlignedAttention) for hook in hooks)
