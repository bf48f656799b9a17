"""Faster inference of Wan models with the same results, see :func:`accelerate`."""

from unireel.backbones.fast.accelerate import Acceleration, Precision, accelerate

__all__ = ["Acceleration", "Precision", "accelerate"]
