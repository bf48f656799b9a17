"""SigLIP at native aspect ratio (NaViT, arXiv 2307.06304; SigLIP, arXiv 2303.15343), as BAGEL uses it.

Images of any number of patches are encoded together; none sees another, and no image is padded or squeezed to a square.
Layers are transformers' own; parameter names are those of BAGEL's published files.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder


class PatchEmbeddings(nn.Module):
    """Patches and their places to vectors."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        side = config.image_size // config.patch_size
        self.patch_embedding = nn.Linear(config.num_channels * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Embedding(side * side, config.hidden_size)

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """Patches (N, p p C), ordered (row, column, channel), at ``places`` (N,) of the square table: (N, D)."""
        return self.patch_embedding(patches) + self.position_embedding(places)


class VisionTower(nn.Module):
    """Embeddings, encoder and final norm; no pooling head."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class NaViT(nn.Module):
    """The packed ViT, nested as in the published files."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionTower(config)

    def forward(self, patches: Tensor, places: Tensor, counts: Tensor) -> Tensor:
        """Encode several images at once.

        With "flex_attention" all images are one sequence whose mask has a block for each; otherwise images with
        equally many patches are a batch, which needs no mask and wastes nothing.

        Args:
            patches: of all images, one after another, (N, p p C).
            places: row * 70 + column of each patch, (N,).
            counts: patches of each image, (images,).

        Returns:
            (N, D), normalised.
        """
        tower = self.vision_model
        states = tower.embeddings(patches, places)
        if self.config._attn_implementation == "flex_attention":
            image = torch.repeat_interleave(counts.to(states.device))

            def same_image(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return image[query] == image[key]

            mask = create_block_mask(
                same_image, None, None, len(image), len(image), device=str(states.device)
            )
            states = tower.encoder(states[None], mask).last_hidden_state[0]
        else:
            images, sizes = states.split(counts.tolist()), counts.tolist()
            encoded: list[Tensor] = [states] * len(sizes)
            for size in dict.fromkeys(sizes):
                alike = [number for number, each in enumerate(sizes) if each == size]
                batch = tower.encoder(torch.stack([images[number] for number in alike])).last_hidden_state
                for number, one in zip(alike, batch, strict=True):
                    encoded[number] = one
            states = torch.cat(encoded)
        return tower.post_layernorm(states)
