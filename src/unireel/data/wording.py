"""Which words of a prompt name which object of its film, as masks over the prompt's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from unireel.backbones.text import SPECIAL_TOKENS
from unireel.world.language import vocabulary
from unireel.world.language.phrases import plural
from unireel.world.language.plans import TENTHS
from unireel.world.scene import COLOURS, SHAPES


def _numbers(names: dict[str, int]) -> Tensor:
    """For each token of the pocket tokenizer its number in ``names``, -1 for other words."""
    return torch.tensor([names.get(token, -1) for token in (*SPECIAL_TOKENS, *vocabulary())])


_SHAPE_OF = _numbers({form: number for number, shape in enumerate(SHAPES) for form in (shape, plural(shape))})
_COLOUR_OF = _numbers({colour: number for number, colour in enumerate(COLOURS)})
_TENTH_OF = _numbers({tenth: number for number, tenth in enumerate(TENTHS)})
_AT = (*SPECIAL_TOKENS, *vocabulary()).index("at")


def named_objects(ids: Tensor, shapes: Tensor, colours: Tensor, places: Tensor) -> Tensor:
    """Where prompts and plans name the objects of their films: (B, O, L) bool.

    A noun names the objects of its shape that have, in the first frame, the colour that stands before it (all of that
    shape if no colour does, as in grayscale films) and the place that a plan says after it.

    Args:
        ids: token ids of the prompts (B, L).
        shapes: number of each object's shape (B, O), -1 for no object.
        colours: number of each object's colour in the first frame (B, O).
        places: x and y of each object's centre in the first frame (B, O, 2), in tenths of the canvas.
    """
    noun, colour = _SHAPE_OF[ids][:, None], _COLOUR_OF[ids.roll(1, dims=1)][:, None]
    fits = (colour == -1) | (colour == colours[..., None])
    said, placed = said_places(ids)
    near = (said[:, None] - places[:, :, None]).abs().amax(-1) < 0.52  # they were rounded
    return (noun == shapes[..., None]) & (noun >= 0) & fits & (near | ~placed[:, None])


def said_places(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The place that a plan says after each word, in tenths (B, L, 2), and after which words it says one (B, L)."""
    place = torch.stack([_TENTH_OF[ids.roll(-2, dims=1)], _TENTH_OF[ids.roll(-3, dims=1)]], dim=-1)
    return place, (ids.roll(-1, dims=1) == _AT) & (place >= 0).all(-1)
