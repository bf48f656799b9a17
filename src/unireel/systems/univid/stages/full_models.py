"""The models at full scale: BAGEL-7B-MoT and Wan2.2-TI2V-5B, whole or on the meta device."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from diffusers import AutoencoderKLWan
from torch import nn

from unireel.backbones.bagel import BagelModel, bagel_7b_config
from unireel.backbones.bagel_files import flux_autoencoder
from unireel.backbones.text import umt5_xxl
from unireel.backbones.understanding import BagelUnderstanding, load_understanding
from unireel.backbones.wan_files import load_encoders, load_wan, wan_ti2v_5b
from unireel.errors import UserError

SPACE, TIME = 16, 4
"""Pixels and frames for a latent of Wan2.2's autoencoder."""


class Folders(Protocol):
    """Where models are: BAGEL's published folder, and Wan2.2-TI2V-5B in diffusers' layout."""

    @property
    def understanding(self) -> str: ...

    @property
    def decoder(self) -> str: ...


@dataclass
class Models:
    """What training starts from, whole or on the meta device; ``tokenizer`` is the text encoder's."""

    understanding: BagelUnderstanding | None
    bagel: BagelModel
    transformer: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any = None


def planned() -> Models:
    """All models as they are published, without weights."""
    bagel = BagelModel(bagel_7b_config())
    vae = AutoencoderKLWan(
        base_dim=160,
        decoder_base_dim=256,
        z_dim=48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=SPACE,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    )
    return Models(None, bagel, wan_ti2v_5b(), nn.ModuleList([vae, flux_autoencoder()]), umt5_xxl())


def loaded(config: Folders) -> Models:
    """All models with their weights, in bfloat16.

    Raises:
        UserError: a folder is missing or holds another model.
    """
    understanding, vae, text_encoder, tokenizer = loaded_encoders(config)
    transformer, _ = load_wan(config.decoder)
    return Models(understanding, understanding.model, transformer, vae, text_encoder, tokenizer)


def loaded_encoders(config: Folders) -> tuple[BagelUnderstanding, nn.Module, nn.Module, Any]:
    """What reads films and words, with its weights, in bfloat16: BAGEL, autoencoder, text encoder and its tokenizer.

    Raises:
        UserError: a folder is missing or holds another model.
    """
    understanding = load_understanding(config.understanding)
    if not isinstance(understanding, BagelUnderstanding):
        raise UserError(f"'{config.understanding}' is not BAGEL, whose ViT these stages train")
    return understanding, *load_encoders(config.decoder)
