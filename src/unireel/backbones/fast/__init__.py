"""Faster inference of Wan models: with the same results by :func:`accelerate`, by choice with less of them too."""

from unireel.backbones.fast.accelerate import Acceleration, Precision, accelerate, can_accelerate
from unireel.backbones.fast.profiles import LOSSLESS, PROFILES, Profile, speed_up

__all__ = [
    "LOSSLESS",
    "PROFILES",
    "Acceleration",
    "Precision",
    "Profile",
    "accelerate",
    "can_accelerate",
    "speed_up",
]
