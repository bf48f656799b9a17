"""What the generator learns besides velocities: which words each token of a film draws, and what that looks like.

From the error of velocities alone a small model learns for very long which words belong together, which of them a
place in the film stands for, and what shape that has: little of the error depends on it. The World knows all of that.
Each part has a loss of its own, whose heads are thrown away after the training:

- *words*: the text encoder's state of a noun holds all that the prompt says of its objects, that of the prompt's end
  what it says of the film;
- *attention*: in some blocks, tokens look at the noun of the object they draw, at the end of the text if they draw none
  (supervised attention, arXiv 1609.04186);
- *sight*, *motion*, *film*: halfway through the blocks tokens know what they draw, where it is in each frame, and what
  it does (in the spirit of representation alignment, arXiv 2410.06940);
- *masks*: towards the end they know which of their pixels it covers.

Letters: B films, O objects, T latent frames of S frames, n tokens of one, N = T * n, L words.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.backbones.text import SPECIAL_TOKENS
from unireel.backbones.wan import PLACE_WAVES, waves
from unireel.data.sights import (
    SIGHT_TARGETS,
    TUBE,
    begun,
    place_centres,
    place_objects,
    shape_masks,
    sight_loss,
)
from unireel.data.targets import FILM_TARGETS, MOTION_TARGETS
from unireel.data.wording import named_objects, said_places
from unireel.world.scene import COLOURS, MAX_OBJECTS, RADII, SHAPES, SIZES

MARGIN = 3.0
"""Pixels by which an object may miss the centre of a token (8 pixels wide) that still draws a part of it."""

_WORD_TARGETS = (len(SHAPES), len(COLOURS), len(SIZES), MAX_OBJECTS, MOTION_TARGETS)
_FILM_TARGETS = (FILM_TARGETS, MAX_OBJECTS)
_NUMBERS = 6
_END = SPECIAL_TOKENS.index("</s>")


def latent_frames(frames: int) -> np.ndarray:
    """The frames that each latent frame of a film stands for: (T, :data:`~unireel.data.sights.TUBE`) int64.

    The autoencoder is causal: its first latent frame is the first frame alone, held here.
    """
    return np.concatenate([np.zeros((1, TUBE), dtype=np.int64), np.arange(1, frames).reshape(-1, TUBE)])


class Binding(nn.Module):
    """The auxiliary heads of a generator and their losses.

    Args:
        width: of the transformer.
        text_width: of the text encoder.
        size: side of a film in pixels.
        side: of the square that a token draws, in pixels.

    Batches hold ``ids`` (B, L), ``states`` (B, O, T, S, 5), ``shapes`` (B, O), ``motions`` (B, O, K) and ``film``
    (B, K), as :class:`~unireel.data.lessons.Lessons` has them; which texts are plans, ``planned`` (B,), and their
    ``numbers`` (B, O, 6), see :func:`~unireel.world.language.plan_numbers`.
    """

    def __init__(self, width: int, text_width: int, size: int, side: int) -> None:
        super().__init__()
        self.word = nn.Linear(text_width, sum(_WORD_TARGETS))
        self.numbers = nn.Linear(text_width, _NUMBERS * 2 * PLACE_WAVES)
        self.end = nn.Linear(text_width, sum(_FILM_TARGETS))
        self.sight = nn.Linear(width, SIGHT_TARGETS)
        self.does = nn.Linear(width, MOTION_TARGETS + 1)
        self.film = nn.Linear(width, sum(_FILM_TARGETS))
        self.mask = nn.Linear(width, TUBE * side * side)
        self.size, self.side = size, side
        self.register_buffer("_places", place_centres(size, side).float(), persistent=False)

    def named(self, batch: Any) -> Tensor:
        """Which words name which object: (B, O, L) bool."""
        colours = batch["states"][:, :, 0, 0, 4].long()
        return named_objects(batch["ids"], batch["shapes"], colours, batch["numbers"][..., :2])

    def owner(self, batch: Any) -> Tensor:
        """Which object each token draws a part of: (B, T, n) int64, -1 for none."""
        return place_objects(batch["states"].float(), self._places, margin=MARGIN)

    def words(self, text: Tensor, named: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Loss of what the states (B, L, D) say at nouns and at the end, and the share of right shapes at nouns."""
        b, o, place = named.nonzero(as_tuple=True)
        shape, colour, size, count, does = self.word(text[b, place]).float().split(_WORD_TARGETS, dim=-1)
        state, shapes = batch["states"][b, o, 0, 0], batch["shapes"][b, o]
        large = (state[:, 2] > sum(RADII[self.size].values()) / 2).long()
        alike = named.sum(1)[b, place] - 1
        at_nouns = (
            self._numbers(text[b, place], batch, (b, o, place))
            + F.cross_entropy(shape, shapes)
            + F.cross_entropy(colour, state[:, 4].long())
            + F.cross_entropy(size, large)
            + F.cross_entropy(count, alike)
            + _multiple(does, batch["motions"][b, o]).mean()
        )
        prompts, ends = (batch["ids"] == _END).nonzero(as_tuple=True)
        said = named.any((1, 2))[prompts]
        at_end = self._film(self.end(text[prompts[said], ends[said]]), batch, prompts[said])
        return at_nouns + at_end, (shape.argmax(-1) == shapes).float().mean()

    def _numbers(self, states: Tensor, batch: Any, where: tuple[Tensor, ...]) -> Tensor:
        """How far from the waves of their object's numbers the nouns of plans are, where the plan says them."""
        b, o, place = where
        said = batch["planned"][b, None].repeat(1, _NUMBERS)
        said[:, :4] &= said_places(batch["ids"])[1][b, place, None]
        wanted = waves(batch["numbers"][b, o] / 10, PLACE_WAVES)
        error = F.mse_loss(self.numbers(states).float().view_as(wanted), wanted, reduction="none")
        return (error.sum(-1) * said).sum() / said.sum().clamp(min=1)

    def _film(self, logits: Tensor, batch: Any, rows: Tensor) -> Tensor:
        film, count = logits.float().split(_FILM_TARGETS, dim=-1)
        objects = (batch["shapes"][rows] >= 0).sum(-1) - 1
        return _multiple(film, batch["film"][rows]).mean() + F.cross_entropy(count, objects)

    def attention(self, weights: Tensor, named: Tensor, owner: Tensor, ids: Tensor) -> Tensor:
        """How far tokens are from looking at their object's nouns, and those of no object at the end of the text.

        Args:
            weights: of one head (B, N, L).

        Returns:
            Mean of -log of the weight there over tokens of objects, plus the same over the others.
        """
        b, t, n = named.any((1, 2))[:, None, None].expand_as(owner).nonzero(as_tuple=True)
        own = owner[b, t, n]
        ends = (ids == _END)[b]
        wanted = torch.where(own[:, None] >= 0, named[b, own.clamp(min=0)], ends).to(weights.dtype)  # (M, L)
        seen = (weights[b, t * owner.shape[2] + n] * wanted).sum(-1).float()
        missed = -(seen + 1e-4).log()
        known, drawn = wanted.any(-1), own >= 0
        return missed[known & drawn].mean() + missed[known & ~drawn].mean()

    def drawing(self, hidden: Tensor, owner: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of what the tokens' states (B, N, D) say they draw, and shares of right answers."""
        states = batch["states"].float()
        hidden = F.rms_norm(hidden.float(), hidden.shape[-1:])
        objects = states, batch["shapes"], batch["film"]
        sight, logs = sight_loss(self.sight(hidden), owner, objects, self._places)
        b, t, n = (owner >= 0).nonzero(as_tuple=True)
        own = owner[b, t, n]
        does, started = (
            self.does(hidden.unflatten(1, owner.shape[1:])[b, t, n])
            .float()
            .split_with_sizes([MOTION_TARGETS, 1], dim=-1)
        )
        motion = _multiple(does, batch["motions"][b, own]).mean()
        if owner.shape[1] > 1:
            motion = motion + F.binary_cross_entropy_with_logits(started[:, 0], begun(states)[b, own, t])
        film = self._film(self.film(hidden.mean(1)), batch, torch.arange(len(owner)))
        return sight + motion + film, logs | {"motion": motion.detach()}

    def masks(self, hidden: Tensor, owner: Tensor, batch: Any) -> Tensor:
        """Mean binary cross-entropy of the pixels that each token's object covers, from the states (B, N, D)."""
        b, t, n = (owner >= 0).nonzero(as_tuple=True)
        own = owner[b, t, n]
        hidden = F.rms_norm(hidden.unflatten(1, owner.shape[1:])[b, t, n].float(), hidden.shape[-1:])
        corners = self._places[n] - (self.side - 1) / 2
        covered = shape_masks(batch["shapes"][b, own], batch["states"][b, own, t], corners, self.side)
        return F.binary_cross_entropy_with_logits(self.mask(hidden).float(), covered.flatten(1))


class Uncertainty(nn.Module):
    """How large a loss is to be expected at each flow time, learnt along: log-variances u(t) of arXiv 2312.02696.

    A loss divided by what is expected weighs every time alike; at times near noise most of it cannot be helped, and
    what can be learnt at small times would drown in that. Each of ``kinds`` kinds of samples has a curve of its own.
    """

    def __init__(self, kinds: int, knots: int = 17, first: float = -3.5, last: float = 1.0) -> None:
        super().__init__()
        self.curves = nn.Parameter(torch.linspace(first, last, knots).repeat(kinds, 1))
        self.least = first

    def forward(self, loss: Tensor, time: Tensor, kind: Tensor) -> Tensor:
        """Losses (B,) at flow times (B,) of samples of the given kinds (B,), weighed: (B,)."""
        place = time * (self.curves.shape[1] - 1)
        low = place.long().clamp(max=self.curves.shape[1] - 2)
        share = place - low
        curve = self.curves[kind, low] * (1 - share) + self.curves[kind, low + 1] * share
        curve = curve.clamp(min=self.least)
        return loss * (-curve).exp() + curve


def _multiple(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy summed over targets of which several can be true."""
    return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="none").sum(-1)
