"""Models that understand, behind one small interface: hidden states of a prefill, generate, chat with frames."""

from unireel.backbones.understanding.bagel import BagelUnderstanding
from unireel.backbones.understanding.interface import Features, Kind, Request, Spoken, Understanding
from unireel.backbones.understanding.loading import load_understanding
from unireel.backbones.understanding.pocket import PocketUnderstanding
from unireel.backbones.understanding.processor import ProcessorUnderstanding

__all__ = [
    "BagelUnderstanding",
    "Features",
    "Kind",
    "PocketUnderstanding",
    "ProcessorUnderstanding",
    "Request",
    "Spoken",
    "Understanding",
    "load_understanding",
]
