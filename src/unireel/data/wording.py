"""Which words of a prompt name which object of its film, as masks over the prompt's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from unireel.backbones.text import SPECIAL_TOKENS
from unireel.world.language import vocabulary
from unireel.world.language.phrases import plural
from unireel.world.scene import COLOURS, SHAPES


def _numbers(names: dict[str, int]) -> Tensor:
    """For each token of the pocket tokenizer its number in ``names``, -1 for other words."""
    return torch.tensor([names.get(token, -1) for token in (*SPECIAL_TOKENS, *vocabulary())])


_SHAPE_OF = _numbers({form: number for number, shape in enumerate(SHAPES) for form in (shape, plural(shape))})
_COLOUR_OF = _numbers({colour: number for number, colour in enumerate(COLOURS)})


def named_objects(ids: Tensor, shapes: Tensor, colours: Tensor) -> Tensor:
    """Where prompts name the objects of their films: (B, O, L) bool.

    A noun names the objects of its shape that have, in the first frame, the colour that stands before it; all of that
    shape if no colour does, as in grayscale films.

    Args:
        ids: token ids of the prompts (B, L).
        shapes: number of each object's shape (B, O), -1 for no object.
        colours: number of each object's colour in the first frame (B, O).
    """
    noun, colour = _SHAPE_OF[ids], _COLOUR_OF[ids.roll(1, dims=1)]
    noun, colour = noun[:, None], colour[:, None]
    fits = (colour == -1) | (colour == colours[..., None])
    return (noun == shapes[..., None]) & (noun >= 0) & fits
