"""BAGEL-7B-MoT as published: ``llm_config.json``, ``vit_config.json``, ``ema.safetensors``, ``ae.safetensors``."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from transformers import Qwen2Config, SiglipVisionConfig
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from unireel.backbones.bagel import BagelConfig, BagelModel
from unireel.backbones.weights import KeyReport, load_weights, read_json, stored_shapes
from unireel.errors import UserError

WEIGHTS, AUTOENCODER = "ema.safetensors", "ae.safetensors"
AUTOENCODER_PARAMETERS = 83_819_683


def published_config(folder: str | Path, **sizes: int) -> BagelConfig:
    """The configuration of a published folder.

    Two things differ from what its files say: the head is not tied to the embeddings, and the last layer of the ViT is
    not used (nor stored).

    Args:
        folder: with ``llm_config.json`` and ``vit_config.json``.
        sizes: what those files do not say, see :class:`~unireel.backbones.bagel.BagelConfig`.

    Raises:
        UserError: a file is missing or is not what it should be.
    """
    text = {**read_json(Path(folder) / "llm_config.json"), "tie_word_embeddings": False}
    vision = read_json(Path(folder) / "vit_config.json")
    for name, content, key in (
        ("llm_config.json", text, "hidden_size"),
        ("vit_config.json", vision, "num_hidden_layers"),
    ):
        if not isinstance(content.get(key), int):
            raise UserError(
                f"'{Path(folder) / name}' does not describe a model: it has no whole number '{key}'"
            )
    vision["num_hidden_layers"] -= 1
    return BagelConfig(Qwen2Config(**text), SiglipVisionConfig(**vision), **sizes)


def load_bagel(
    folder: str | Path,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    strict: bool = True,
    **sizes: int,
) -> tuple[BagelModel, KeyReport]:
    """The model of a published folder, in evaluation mode, and the report on its weights.

    The model is made on the meta device and the files' headers are checked before a weight is read; at no time
    is there more in memory than the model and one tensor.

    Args:
        folder: with the two configurations and ``ema.safetensors``.
        dtype, device: where the weights go.
        strict: whether any missing, unexpected or misshapen tensor is an error.
        sizes: see :func:`published_config`.

    Raises:
        UserError: a file is missing or damaged, or holds another model.
    """
    folder = Path(folder)
    config = published_config(folder, **sizes)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"'{folder}' has no file '{WEIGHTS}'")
    with torch.device("meta"):
        model = BagelModel(config)
    report = load_weights(model, [folder / WEIGHTS], dtype=dtype, device=device, strict=strict)
    # Rotary frequencies are computed, not stored: they are the only thing that is still on the meta device.
    model.language_model.model.rotary_emb = Qwen2RotaryEmbedding(config.text_config).to(device)
    return model.eval(), report


def flux_autoencoder() -> AutoencoderKL:
    """The image autoencoder of BAGEL (that of FLUX.1): 8 times smaller, 16 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def load_autoencoder(
    folder: str | Path, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> AutoencoderKL:
    """The autoencoder of a published folder, from ``ae.safetensors``.

    Raises:
        UserError: the file is missing or damaged, or holds another model.
    """
    path = Path(folder) / AUTOENCODER
    if not path.is_file():
        raise UserError(f"'{folder}' has no file '{AUTOENCODER}'")
    stored_shapes([path])
    with torch.device("meta"):
        vae = flux_autoencoder()
    wanted = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    stored = load_file(path)
    try:
        found = convert_ldm_vae_checkpoint(dict(stored), dict(vae.config))
    except (KeyError, IndexError) as error:
        raise UserError(f"'{path}' holds the weights of another model: {error} is missing") from error
    # The layout's attention projections are convolutions of one pixel.
    found = {name: tensor.reshape(wanted.get(name, tensor.shape)) for name, tensor in found.items()}
    KeyReport.compare(wanted, {name: tuple(tensor.shape) for name, tensor in found.items()}).require(path)
    vae.load_state_dict({name: tensor.to(device, dtype) for name, tensor in found.items()}, assign=True)
    return vae.eval()


@torch.no_grad()
def encode_image(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (3, H, W) in [-1, 1] to a normalised latent (16, H / 8, W / 8): the mean of the posterior."""
    config = vae.config
    mean = vae.encode(pixels[None].to(vae.device, vae.dtype)).latent_dist.mode()[0]
    return (mean - config["shift_factor"]) * config["scaling_factor"]
