"""New parts around a trained base model: what a pocket UniVid starts from."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportIndexIssue=false

from __future__ import annotations

import torch

from unireel.systems.base.pipeline import BasePipeline
from unireel.systems.univid.connector import Connector
from unireel.systems.univid.settings import Settings, Sizes


def new_connector(base: BasePipeline, sizes: Sizes, settings: Settings, seed: int) -> Connector:
    """A connector from the states of ``base``'s language model to its decoder's context; the same for the same seed.

    Its tokens start as large as the text encoder's states are.
    """
    channels = base.vae.config["latent_channels"]
    text, _ = base.encode_prompt(["a red star jumps twice"])
    scale = float(text.detach()[text.abs().sum(-1) > 0].std())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Connector(
            width=base.vlm.config.get_text_config().hidden_size,
            context_width=base.transformer.config["text_dim"],
            latent_width=channels * settings.latent_patch**2,
            scale=scale,
            **vars(sizes),
        )
