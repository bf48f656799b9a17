"""What a model of the system UniVid is set to, as its ``unireel.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from unireel.systems.base.pipeline import TEXT_LENGTH
from unireel.systems.univid.connector import Mix
from unireel.systems.univid.context import Combination
from unireel.systems.univid.temperature import TemperatureAlignment


@dataclass(frozen=True)
class Sizes:
    """Of the pocket connector; budgets are tokens of context for each kind of state."""

    hidden: int = 256
    layers: int = 3
    kernel: int = 9
    vit_tokens: int = 9
    vae_tokens: int = 9
    text_tokens: int = TEXT_LENGTH + 2
    time_width: int = 32

    @property
    def tokens(self) -> int:
        """Tokens of C_t at most."""
        return self.vit_tokens + self.vae_tokens + self.text_tokens


@dataclass(frozen=True)
class Settings:
    """Of a whole model, beside the base system's settings, which say how films are sampled.

    Attributes:
        combination: how C_t meets the states of the decoder's text encoder; "replace" leaves these out.
        context_length: tokens of the decoder's context: all that the connector may put out, and the text's 75 unless
            they are left out.
        latent_patch: latents along the side of one VAE token.
        mix: shares of the visual blocks.
        alignment: Temperature Modality Alignment, in training and in sampling; schedule "none" turns it off.
    """

    combination: Combination = "replace"
    context_length: int = 96
    latent_patch: int = 4
    mix: Mix = field(default_factory=Mix)
    alignment: TemperatureAlignment = field(default_factory=TemperatureAlignment)
