"""What a model of the system UniVid is set to, as its ``unireel.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from unireel.systems.univid.connector import Mix
from unireel.systems.univid.context import Combination
from unireel.systems.univid.temperature import TemperatureAlignment


@dataclass(frozen=True)
class Sizes:
    """Of the pocket connector; budgets are tokens of context for each kind of state."""

    hidden: int = 192
    layers: int = 2
    kernel: int = 5
    vit_tokens: int = 9
    vae_tokens: int = 9
    text_tokens: int = 16

    @property
    def tokens(self) -> int:
        """Tokens of C_t at most."""
        return self.vit_tokens + self.vae_tokens + self.text_tokens


@dataclass(frozen=True)
class Settings:
    """Of a whole model, beside the base system's settings, which say how films are sampled.

    Attributes:
        combination: how C_t meets the states of the decoder's text encoder.
        context_length: tokens of the decoder's context; the text's 75 and all that the connector may add.
        latent_patch: latents along the side of one VAE token.
        mix: shares of the visual blocks.
        alignment: Temperature Modality Alignment, in training and in sampling; schedule "none" turns it off.
    """

    combination: Combination = "gate"
    context_length: int = 112
    latent_patch: int = 4
    mix: Mix = field(default_factory=Mix)
    alignment: TemperatureAlignment = field(default_factory=TemperatureAlignment)
