"""BAGEL (arXiv 2505.14683): a mixture of transformers that reads text, images by ViT and images by autoencoder.

One model for understanding and for the velocity of an image that is being generated. Everything that is not text is
embedded here and laid out by :mod:`unireel.backbones.packing`.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel, Qwen2Config, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipAttention

from unireel.backbones.mot import MoTLanguageModel
from unireel.backbones.navit import NaViT
from unireel.backbones.packing import VAE, VIT, Geometry, Packed, attention_mask, block_mask

PARAMETERS = 14_607_260_128
"""Of BAGEL-7B-MoT: two experts of 7 B, the ViT, and what joins them."""


class BagelConfig(PreTrainedConfig):
    """Sizes of a BAGEL model; the defaults of its own fields are those of BAGEL-7B-MoT.

    Args:
        text_config: Qwen2's.
        vision_config: SigLIP's, with as many layers as there are weights (26).
        latent_channels, latent_patch_size: of the autoencoder, and latents to a token's side.
        max_latent_size: tokens along the side of the largest latent.
        vision_start_token_id, vision_end_token_id: of the marks around an image.
    """

    model_type = "bagel_mot"
    sub_configs: ClassVar = {"text_config": Qwen2Config, "vision_config": SiglipVisionConfig}

    def __init__(
        self,
        text_config: Qwen2Config | dict[str, Any] | None = None,
        vision_config: SiglipVisionConfig | dict[str, Any] | None = None,
        latent_channels: int = 16,
        latent_patch_size: int = 2,
        max_latent_size: int = 64,
        vision_start_token_id: int = 151652,
        vision_end_token_id: int = 151653,
        **kwargs: Any,
    ) -> None:
        self.text_config = (
            text_config if isinstance(text_config, Qwen2Config) else Qwen2Config(**(text_config or {}))
        )
        self.vision_config = (
            vision_config
            if isinstance(vision_config, SiglipVisionConfig)
            else SiglipVisionConfig(**(vision_config or {}))
        )
        self.latent_channels, self.latent_patch_size = latent_channels, latent_patch_size
        self.max_latent_size = max_latent_size
        self.vision_start_token_id, self.vision_end_token_id = vision_start_token_id, vision_end_token_id
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def geometry(self) -> Geometry:
        """What sequences of this model depend on."""
        vision = self.vision_config
        return Geometry(
            vision.patch_size,
            vision.image_size // vision.patch_size,
            self.latent_patch_size,
            self.max_latent_size,
            self.vision_start_token_id,
            self.vision_end_token_id,
        )


def bagel_7b_config() -> BagelConfig:
    """BAGEL-7B-MoT: two Qwen2.5-7B and a SigLIP so400m/14-980 without its last layer."""
    return BagelConfig(
        Qwen2Config(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
            bos_token_id=151643,
            eos_token_id=151645,
            tie_word_embeddings=False,
        ),
        SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            patch_size=14,
            image_size=980,
            hidden_act="gelu_pytorch_tanh",
            layer_norm_eps=1e-6,
        ),
    )


def place_table(side: int, width: int) -> Tensor:
    """Sines and cosines of the cells of a square: (side * side, width) float32.

    The first half of the channels tells the column, the second the row; in each, sines of a geometric series of
    frequencies from 1 to 1/10000 come before the cosines. Computed in float64.
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = line.repeat(side, 1), line.repeat_interleave(side, dim=0)
    return torch.cat([columns, rows], dim=1).float()


class Places(nn.Module):
    """A frozen :func:`place_table`, which published files carry along."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(place_table(side, width), requires_grad=False)

    def forward(self, places: Tensor) -> Tensor:
        """(N,) to (N, D)."""
        return self.pos_embed[places]


class Joint(nn.Module):
    """The two-layer perceptron from the ViT to the language model."""

    def __init__(self, vision: int, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(vision, width), nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """(N, vision) to (N, width)."""
        return self.fc2(F.gelu(self.fc1(states), approximate="tanh"))


class TimeEmbedder(nn.Module):
    """Flow time in [0, 1] (not a thousandfold) to a vector."""

    FREQUENCIES = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """(images,) to (images, D)."""
        waves = get_timestep_embedding(
            time.float(), self.FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


class BagelModel(PreTrainedModel):
    """The whole model but for the autoencoder, which stands beside it."""

    config: BagelConfig
    config_class = BagelConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar = ["MoTLayer", "SiglipEncoderLayer"]

    def __init__(self, config: BagelConfig) -> None:
        super().__init__(config)
        config._attn_implementation = config._attn_implementation  # the setter hands it on to the parts
        width, vision = config.text_config.hidden_size, config.vision_config
        token = config.latent_channels * config.latent_patch_size**2
        self.language_model = MoTLanguageModel(config.text_config)
        self.vit_model = NaViT(vision)
        self.connector = Joint(vision.hidden_size, width)
        self.vit_pos_embed = Places(vision.image_size // vision.patch_size, width)
        self.latent_pos_embed = Places(config.max_latent_size, width)
        self.time_embedder = TimeEmbedder(width)
        self.vae2llm, self.llm2vae = nn.Linear(token, width), nn.Linear(width, token)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The library's rule, but for the place tables and the ViT's attention, which it does not know."""
        if isinstance(module, Places):
            module.pos_embed.copy_(place_table(module.side, module.pos_embed.shape[1]))
        elif isinstance(module, SiglipAttention):
            for projection in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """The table of the text's tokens."""
        return self.language_model.model.embed_tokens

    def embed(self, packed: Packed) -> Tensor:
        """All tokens as vectors (B, L, D): texts by table, images by ViT or through the autoencoder."""
        states = self.get_input_embeddings()(packed.ids)
        flat, kinds = states.flatten(0, 1), packed.kinds.flatten()
        if packed.patches is not None:
            seen = self.vit_model(packed.patches, packed.patch_places, packed.patch_counts)
            seen = self.connector(seen) + self.vit_pos_embed(packed.patch_places)
            flat = flat.index_put(((kinds == VIT).nonzero().flatten(),), seen.to(flat.dtype))
        if packed.latents is not None:
            times = self.time_embedder(packed.latent_times).repeat_interleave(packed.latent_counts, dim=0)
            read = self.vae2llm(packed.latents) + times + self.latent_pos_embed(packed.latent_places)
            flat = flat.index_put(((kinds == VAE).nonzero().flatten(),), read.to(flat.dtype))
        return flat.view_as(states)

    def forward(self, packed: Packed, cache: Cache | None = None) -> Tensor:
        """Last-layer states (B, L, D) of whole sequences; a ``cache`` is filled for :meth:`extend`."""
        flex = self.config.text_config._attn_implementation == "flex_attention"
        mask = block_mask(packed) if flex else attention_mask(packed)
        generation = packed.kinds == VAE
        return self.language_model.model(self.embed(packed), packed.positions, mask, generation, cache)

    def extend(self, ids: Tensor, positions: Tensor, seen: Tensor, cache: Cache) -> Tensor:
        """Last-layer states (B, 1, D) of one more text token in each row.

        Args:
            ids, positions: of the new tokens, (B, 1).
            seen: which of the K keys, those in the cache and the new one, each row sees, (B, K) bool.
            cache: from :meth:`forward`; grows by one.
        """
        text = torch.zeros_like(ids, dtype=torch.bool)
        states = self.get_input_embeddings()(ids)
        return self.language_model.model(states, positions, seen[:, None, None], text, cache)

    def logits(self, states: Tensor) -> Tensor:
        """Logits (..., V) of the next text token after ``states`` (..., D)."""
        return self.language_model.lm_head(states)

    def velocity(self, states: Tensor, packed: Packed) -> Tensor:
        """Velocity of the latents' tokens (M, C q q), noise minus data, in the order of ``packed.latents``."""
        return self.llm2vae(states[packed.kinds == VAE])
