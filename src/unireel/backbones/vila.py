"""VILA (arXiv 2312.07533), the language model of the published Omni-Video: SigLIP, a projector, Llama.

Its folder holds ``config.json`` (which names the parts), ``llm`` and ``vision_tower`` as transformers writes them, and
``mm_projector``.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    SiglipImageProcessor,
    SiglipVisionModel,
)

from unireel.backbones.weights import load_weights, read_json, weight_files
from unireel.errors import UserError

IMAGE = "<image>"
"""Where the tokens of a picture stand in a text."""

PROJECTORS = ("mlp_downsample",)


class Projector(nn.Module):
    """Squares of 2 x 2 visual states, side by side, through a norm and two layers into the language model's width."""

    def __init__(self, vision: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Identity(),
            nn.LayerNorm(4 * vision),
            nn.Linear(4 * vision, width),
            nn.GELU(),
            nn.Linear(width, width),
        )

    def forward(self, states: Tensor) -> Tensor:
        """Tokens (B, ceil(s / 2)², width), column by column, of square grids of states (B, s², D), row by row."""
        return self.layers(merged(states))


def merged(states: Tensor) -> Tensor:
    """Squares of 2 x 2: (B, ceil(s / 2)², 4 D), column by column, of (B, s², D); odd grids are completed with zeros.

    Within a square the states stand row by row.
    """
    side = round(states.shape[1] ** 0.5)
    grid = states.unflatten(1, (side, side))
    grid = F.pad(grid, (0, 0, 0, side % 2, 0, side % 2))
    half = grid.shape[1] // 2
    squares = grid.unflatten(1, (half, 2)).unflatten(3, (half, 2))  # (B, rows, 2, columns, 2, D)
    return squares.permute(0, 3, 1, 2, 4, 5).flatten(3).flatten(1, 2)


class Vila(nn.Module):
    """The three parts with tokenizer and image processor.

    Args:
        llm, vision_tower, mm_projector: the parts.
        tokenizer, images: of texts and pictures.
        layer: of the vision tower's states that are projected; -2 is the last but one.
    """

    def __init__(
        self,
        llm: LlamaForCausalLM,
        vision_tower: SiglipVisionModel,
        mm_projector: Projector,
        tokenizer: PreTrainedTokenizerBase,
        images: SiglipImageProcessor,
        layer: int = -2,
    ) -> None:
        super().__init__()
        self.llm, self.vision_tower, self.mm_projector = llm, vision_tower, mm_projector
        self.tokenizer, self.images, self.layer = tokenizer, images, layer

    @torch.no_grad()
    def visual_tokens(self, pictures: Sequence[np.ndarray | Image.Image]) -> Tensor:
        """Tokens (B, n, D) of pictures of any size."""
        weight = self.llm.get_input_embeddings().weight
        pixels = self.images(images=list(pictures), return_tensors="pt")["pixel_values"]
        output = self.vision_tower(pixels.to(weight.device, weight.dtype), output_hidden_states=True)
        return self.mm_projector(output.hidden_states[self.layer])

    @torch.no_grad()
    def states(self, text: str, pictures: Sequence[np.ndarray | Image.Image] = ()) -> Tensor:
        """Last-layer states (1, L, D) behind the final norm of a text whose every ``<image>`` is a picture.

        Raises:
            UserError: there are not as many marks as pictures, or the text is longer than the context.
        """
        pieces = text.split(IMAGE)
        if len(pieces) - 1 != len(pictures):
            raise UserError(
                f"the text has {len(pieces) - 1} places for pictures, and there are {len(pictures)}"
            )
        embed, device = self.llm.get_input_embeddings(), self.llm.device
        visual = iter(self.visual_tokens(pictures)) if pictures else iter(())
        parts = []
        for number, piece in enumerate(pieces):
            ids = self.tokenizer(piece, add_special_tokens=number == 0, return_tensors="pt")["input_ids"]
            parts.append(embed(ids.long().to(device))[0])
            if number < len(pictures):
                parts.append(next(visual).to(parts[-1].dtype))
        inputs = torch.cat(parts)[None]
        most = self.llm.config.max_position_embeddings
        if inputs.shape[1] > most:
            raise UserError(f"the request needs {inputs.shape[1]} tokens; the model's context has {most}")
        return self.llm.model(inputs_embeds=inputs, use_cache=False).last_hidden_state


def load_vila(
    folder: str | Path, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> Vila:
    """The model of a VILA folder.

    Raises:
        UserError: a part is missing, damaged or of another kind.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    for name in ("llm", "vision_tower", "mm_projector"):
        if not (folder / name).is_dir():
            raise UserError(f"'{folder}' is not VILA's: it has no folder '{name}'")
    kind = read_json(folder / "mm_projector" / "config.json").get("mm_projector_type")
    if kind not in PROJECTORS:
        raise UserError(f"'{folder}' has a projector of type {kind!r}; supported: {', '.join(PROJECTORS)}")
    options = {"dtype": dtype, "local_files_only": True}
    try:
        llm = LlamaForCausalLM.from_pretrained(folder / "llm", **options)
        vision = SiglipVisionModel.from_pretrained(folder / "vision_tower", **options)
        tokenizer = AutoTokenizer.from_pretrained(folder / "llm", local_files_only=True)
        images = SiglipImageProcessor.from_pretrained(folder / "vision_tower", local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"'{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    projector = Projector(vision.config.hidden_size, llm.config.hidden_size)
    load_weights(projector, weight_files(folder / "mm_projector"), dtype=dtype, device=device)
    layer = int(config.get("mm_vision_select_layer", -2))
    return Vila(llm, vision, projector, tokenizer, images, layer).to(device, dtype).eval()
