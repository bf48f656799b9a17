"""Targets of seeing: which object lies at a place of a film, and its shape, colour, size and track there.

A transformer that must learn to see from answers alone learns slowly. An auxiliary loss says at every patch and token
what is there (in the spirit of representation alignment, arXiv 2410.06940, with exact ground truth in place of another
model's features). Shape and colour are targets of their own, so that a held-out pair is no class that never occurs. The
heads that read these targets are thrown away after training.

Letters: B films, O objects, T tubes of S frames, n places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unireel.data.targets import FILM_TARGETS
from unireel.world.render import TABLE_EXTENT, distance_table
from unireel.world.scene import COLOURS, RADII, SHAPES, SIZES, STYLES

TUBE = 4
SIGHT_TARGETS = 1 + len(SHAPES) + len(COLOURS) + 4 * TUBE
"""Numbers a head puts out for a place: whether an object is there, its shape, its colours, and for each frame of the
tube whether it is visible, where its centre lies from the place (x, y) and its radius."""

SIGHT_WORDS = (*SHAPES, *COLOURS, *SIZES, "top", "bottom", "left", "right", "middle", "start", "end")
"""Words that one place of a film can deserve; "start" and "end" are for the first and last tube."""

SCALES = (8.0, 8.0, 4.0)
"""Pixels that count as one in the errors of x, y and radius."""


def place_centres(size: int, side: int, merge: int = 1) -> Tensor:
    """Centres (n, 2), x and y in pixels, of squares of ``side`` pixels: row by row, or in blocks of merge x merge."""
    grid = torch.arange(size // side).reshape(-1, merge)
    columns, rows = torch.broadcast_tensors(grid[None, :, None, :], grid[:, None, :, None])
    return side * torch.stack([columns, rows], dim=-1).reshape(-1, 2) + (side - 1) / 2


def place_objects(states: Tensor, centres: Tensor, side: float | None = None, margin: float = 0.0) -> Tensor:
    """Which object each place stands for.

    Args:
        states: (B, O, T, S, 5), see :data:`unireel.data.lessons.STATES`.
        centres: (n, 2) x and y of the places, in pixels.
        side: of the places' squares, in pixels.
        margin: by which a place's centre may lie outside an object, in pixels.

    Returns:
        (B, T, n) int64: the nearest object that, in some frame of the tube, covers the place's centre; with ``side``,
        that has its own centre in the place's square; -1 for none.
    """
    offset = states[..., None, :2] - centres  # (B, O, T, S, n, 2)
    distance = offset.square().sum(-1).sqrt()
    radius = states[..., 2, None] + margin
    inside = distance < radius if side is None else offset.abs().amax(-1) <= side / 2
    there = inside & (states[..., 3, None] > 0)
    nearest = distance.masked_fill(~there, torch.inf).amin(3)  # (B, O, T, n)
    least, owner = nearest.min(1)
    return owner.masked_fill(least == torch.inf, -1)


def words_seen(
    states: Tensor, shapes: Tensor, film: Tensor, owner: Tensor, centres: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Which of :data:`SIGHT_WORDS` are true of each place, and where that is known: two (B, T, n, W) bool.

    A place's own words (where and when it is) are known everywhere, those of its object where it has one that is
    visible; colours are unknown in grayscale films, sizes while they change. ``size`` is the canvas side in pixels.
    """
    batch, tubes, _ = owner.shape
    b, t, _ = torch.meshgrid(*(torch.arange(each) for each in owner.shape), indexing="ij")
    own = owner.clamp(min=0)
    state, there = states[b, own, t], (owner >= 0)[..., None]  # (B, T, n, S, 5)
    shown = state[..., 3:4] > 0
    shape = F.one_hot(shapes[b, own].clamp(min=0), len(SHAPES)).bool() & there
    colour = (F.one_hot(state[..., 4].long(), len(COLOURS)).bool() & shown).any(3) & there
    small, large = (float(RADII[size][each]) for each in SIZES)
    radius = (state[..., 2] * shown[..., 0]).sum(3) / shown[..., 0].sum(3).clamp(min=1)
    sizes = torch.stack([(radius - small).abs() < 0.7, (radius - large).abs() < 0.7], dim=-1)
    x, y = (centres / (size / 3)).long().unbind(-1)
    side = torch.stack([y == 0, y == 2, x == 0, x == 2, (x == 1) & (y == 1)], dim=-1)  # (n, 5)
    ends = torch.stack([t == 0, t == tubes - 1], dim=-1)
    true = torch.cat([shape, colour, sizes & there, side.expand(batch, tubes, -1, -1), ends], dim=-1)
    known = torch.ones_like(true)
    known[..., -2:] = tubes > 1
    first = len(SHAPES)
    gray = film[:, FILM_TARGETS - len(STYLES) + STYLES.index("grayscale")].bool()
    known[..., first : first + len(COLOURS)] &= ~gray[:, None, None, None]
    first += len(COLOURS)
    known[..., first : first + len(SIZES)] &= sizes.any(-1, keepdim=True) | ~there
    return true, known


def begun(states: Tensor) -> Tensor:
    """The share of each tube's frames by which an object looks otherwise than in its first frame: (B, O, T)."""
    batch, objects, tubes, length, _ = states.shape
    changed = (states - states[:, :, :1, :1]).abs().gt(0.3).any(-1).flatten(2)  # (B, O, T * S)
    return changed.float().cummax(-1).values.view(batch, objects, tubes, length).mean(-1)


def sight_loss(
    logits: Tensor, owner: Tensor, objects: tuple[Tensor, Tensor, Tensor], centres: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of ``logits`` (any shape of B * T * n, :data:`SIGHT_TARGETS`), and what share of shapes it gets right."""
    states, shapes, film = objects
    batch, tubes, count = owner.shape
    logits = logits.float().reshape(batch, tubes, count, -1)
    there = owner >= 0
    loss = F.binary_cross_entropy_with_logits(logits[..., 0], there.float())
    b, t, n = there.nonzero(as_tuple=True)
    own = owner[b, t, n]
    state = states[b, own, t]  # (M, S, 5)
    _, shape, colour, visible, track = logits[b, t, n].split(
        [1, len(SHAPES), len(COLOURS), TUBE, 3 * TUBE], dim=-1
    )
    wanted = shapes[b, own]
    loss = loss + F.cross_entropy(shape, wanted)
    coloured = 1 - film[b, FILM_TARGETS - len(STYLES) + STYLES.index("grayscale")].float()
    shown = state[..., 3]
    colours = (F.one_hot(state[..., 4].long(), len(COLOURS)) * shown[..., None]).amax(1)
    wrong = F.binary_cross_entropy_with_logits(colour, colours.float(), reduction="none").sum(-1)
    loss = loss + (wrong * coloured).sum() / coloured.sum().clamp(min=1)
    loss = loss + F.binary_cross_entropy_with_logits(visible, shown)
    target = torch.cat([state[..., :2] - centres[n][:, None], state[..., 2:3]], dim=-1)
    error = F.smooth_l1_loss(
        track.unflatten(-1, (TUBE, 3)), target / target.new_tensor(SCALES), reduction="none", beta=0.1
    )
    track_loss = (error * shown[..., None]).sum() / shown.sum().clamp(min=1)
    logs = {
        "there": ((logits[..., 0] > 0) == there).float().mean(),
        "shape": (shape.argmax(-1) == wanted).float().mean(),
        "colour": ((colour.argmax(-1) == colours.argmax(-1)).float() * coloured).sum()
        / coloured.sum().clamp(min=1),
        "track": track_loss.detach(),
    }
    return loss + track_loss, logs


def shape_masks(shapes: Tensor, states: Tensor, corners: Tensor, side: int) -> Tensor:
    """How much of each pixel of a square its object covers, frame by frame: (M, S, side, side) in [0, 1].

    Args:
        shapes: number of each object's shape (M,).
        states: of the objects (M, S, 5), see :data:`unireel.data.lessons.STATES`.
        corners: x and y of each square's first pixel (M, 2).
        side: of the squares, in pixels.
    """
    tables = torch.stack([torch.from_numpy(distance_table(shape)) for shape in SHAPES]).to(states.device)
    pixels = torch.arange(side, device=states.device)
    centre, radius = states[..., :2], states[..., 2, None].clamp(min=0.5)
    offset = (corners[:, None, :, None] + pixels - centre[..., None]) / radius[
        ..., None
    ]  # (M, S, 2, side), in radii
    last = tables.shape[-1] - 1
    cell = ((offset / TABLE_EXTENT + 1) * (last / 2)).round().clamp(0, last).long()
    column, row = cell.unbind(2)
    distance = (
        tables[shapes[:, None, None, None], row[..., :, None], column[..., None, :]] * radius[..., None]
    )
    return (0.5 - distance).clamp(0, 1) * states[..., 3, None, None]
