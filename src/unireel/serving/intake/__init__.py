"""Taking films and pictures from strangers: fetched, checked and decoded where they can hurt nobody."""

from unireel.serving.intake.decoding import Decoder, read_media
from unireel.serving.intake.fetching import resolve
from unireel.serving.intake.limits import Limits
from unireel.serving.intake.refusals import CATALOGUE, IntakeError

__all__ = ["CATALOGUE", "Decoder", "IntakeError", "Limits", "read_media", "resolve"]
