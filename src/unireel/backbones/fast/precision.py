"""bfloat16 where a machine computes faster in it: a transformer's products, and an autoencoder's decoder.

What diffusers keeps in float32 (norms, modulation, the embedding of time) stays so. Encoding stays float32 too:
rounding there disturbs the first frame of an image-to-video film.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def halve(model: nn.Module) -> None:
    """Round the weights of ``model`` to bfloat16 in place, but for those of its ``_keep_in_fp32_modules``."""
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, module in model.named_modules():
        if not kept.intersection(name.split(".")):
            for key, parameter in module.named_parameters(recurse=False):
                if key not in kept and parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(torch.bfloat16)


class HalfDecoder:
    """A decoder that computes in bfloat16, channels last, behind a float32 door; undone by :meth:`remove`.

    Works for diffusers' video autoencoders: their ``decoder`` is all that decoding spends time on.
    """

    def __init__(self, vae: nn.Module) -> None:
        self._decoder = vae.decoder
        self._before = [(each, each.data) for each in self._decoder.parameters()]
        for module in self._decoder.modules():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
            if isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        self._handles = [
            self._decoder.register_forward_pre_hook(_narrow),
            self._decoder.register_forward_hook(_widen),
        ]

    def remove(self) -> None:
        """Put the former weights back."""
        for handle in self._handles:
            handle.remove()
        for parameter, data in self._before:
            parameter.data = data


def _narrow(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].to(torch.bfloat16), *args[1:])


def _widen(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
