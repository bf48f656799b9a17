"""observe: from pixels to an observation, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.world.checker.background import NAMES, NEAR, TONES, CameraPath, find_camera, find_ground
from unireel.world.checker.events import Path, find_events
from unireel.world.checker.figures import CROWD, INNER_EDGE, Figures, Pieces, find_pieces, measure
from unireel.world.checker.linking import link
from unireel.world.checker.motion import OTHER
from unireel.world.checker.observation import Observation, SeenObject
from unireel.world.checker.paint import FAINT, Paint, Palette, find_paint, find_tone, strengths
from unireel.world.checker.templates import radius_of
from unireel.world.render import NIGHT
from unireel.world.scene import BACKGROUNDS, MAX_OBJECTS, RADII, SHAPES
from unireel.world.tracks import COLOUR_NAMES

SHORTEST = 0.16
"""Share of the frames in which something must be seen to be an object (and not a flicker)."""

MISFIT = 0.2
"""Largest unexplained share of a figure whose shape is called by a name."""

UNSTEADY = 0.06
"""Most by which another shape may fit a third of the film better than the shape that fits the whole best."""

HIDDEN = 0.5
"""Share of its usual contrast below which an object counts as hidden: decoders blend frames into each other."""

STRANGE = 0.06
"""Largest unexplained share of the pixels of a film that looks like the World."""


def observe(clip: Clip) -> Observation:
    """Look at ``clip`` without knowing anything about it but the World's rules.

    Args:
        clip: uint8 frames (F, S, S, 3), S one of the World's canvas sides; F at least 1.

    Raises:
        UserError: another size.
    """
    if clip.height != clip.width or clip.height not in RADII:
        sides = ", ".join(map(str, sorted(RADII)))
        raise UserError(
            f"the checker reads square films of side {sides}, not {clip.width}x{clip.height}; resize the film first"
        )
    frames = np.ascontiguousarray(clip.frames.transpose(3, 0, 1, 2)).astype(np.float32)
    ground = find_ground(frames)
    dark = ground.distances[1].min() < ground.distances[[0, 2]].min()
    difference = frames - ground.colour[:, None, None, None]
    camera = find_camera(difference, float(np.mean(NIGHT)) if dark else 1.0)
    difference -= camera.wave
    pieces = find_pieces(difference)
    tone = find_tone(ground, pieces)
    background = NAMES[int(ground.distances[TONES.index(tone)].argmin())]
    if len(pieces) > CROWD * len(clip):
        crowded = float((pieces.labels > 0).mean())
        return Observation(background, tone, camera, (), crowded, plausible=False)
    palette = Palette.of(ground.colour, tone, light_rim=sum(BACKGROUNDS[background]) < 330)
    view = _view(pieces, palette, tone)
    if view.suspicious:
        parted = _view(find_pieces(difference, INNER_EDGE), palette, tone)
        view = min(view, parted, key=lambda each: each.misfit)
    pieces, strength, paint, figures = view.pieces, view.strength, view.paint, view.figures
    chains = [_unfaded(chain, strength) for chain in _chains(pieces, figures, paint.colour, camera)]
    objects = [_object(chain, pieces, figures, paint.colour, camera, paint.style) for chain in chains]
    unexplained = _unexplained(pieces, chains, objects) + view.faint / pieces.labels.size
    objects.sort(key=lambda each: (int(each.visible.argmax()), float(each.x[each.visible][0])))
    familiar = float(ground.distances[TONES.index(tone)].min()) < NEAR and ground.share > 0.35
    plausible = familiar and unexplained < STRANGE and 1 <= len(objects) <= 2 * MAX_OBJECTS
    return Observation(background, paint.style, camera, tuple(objects), unexplained, bool(plausible))


@dataclass(frozen=True)
class _View:
    """One way to cut a film into pieces, and what they look like; ``faint``: pixels of ghosts that were left out."""

    pieces: Pieces
    strength: np.ndarray
    paint: Paint
    figures: Figures
    faint: int

    @property
    def misfits(self) -> np.ndarray:
        """Misfit of the best shape of every piece that was looked at, at most 1."""
        errors = self.figures.errors[~np.isnan(self.figures.errors[:, 0, 0])]
        return errors.min((1, 2), initial=1.0)

    @property
    def suspicious(self) -> bool:
        """Whether some piece has no shape: perhaps two figures in one."""
        return bool((self.misfits > MISFIT).any())

    @property
    def misfit(self) -> float:
        """Pixels that no shape explains."""
        looked = ~np.isnan(self.figures.errors[:, 0, 0])
        return float((self.misfits * self.pieces.area[looked]).sum()) + self.faint


def _view(pieces: Pieces, palette: Palette, tone: str) -> _View:
    """Leave out ghosts, and find the paint and the shapes of the rest."""
    strength = strengths(pieces, palette, tone)
    faint = int(pieces.area[strength < FAINT].sum())
    pieces, strength = pieces.only(strength >= FAINT), strength[strength >= FAINT]
    paint = find_paint(pieces, palette, tone)
    return _View(pieces, strength, paint, measure(pieces, paint.cover, paint.filling), faint)


def _unfaded(chain: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """``chain`` without the frames where its object has faded to less than half of its usual contrast."""
    return chain[strength[chain] >= HIDDEN * np.median(strength[chain])]


def _unexplained(pieces: Pieces, chains: list[np.ndarray], objects: list[SeenObject]) -> float:
    """Share of the film's pixels in pieces that belong to no object, or that their object's shape does not explain."""
    known = np.zeros(len(pieces))
    for chain, each in zip(chains, objects, strict=True):
        known[chain] = 1 - min(each.misfit, 1.0)
    return float(((1 - known) * pieces.area).sum() / pieces.labels.size)


def _chains(pieces: Pieces, figures: Figures, colours: np.ndarray, camera: CameraPath) -> list[np.ndarray]:
    """The pieces of each object, as piece numbers in the order of frames; flickers are left out."""
    count, size = pieces.labels.shape[:2]
    world_x, world_y = camera.to_world(figures.x, figures.y, pieces.frame)
    mass = figures.mass / camera.zoom[pieces.frame] ** 2
    chains = link(pieces.frame, world_x / size, world_y / size, mass / size**2, colours)
    least = min(max(1, round(SHORTEST * count)), 3)
    return [chain for chain in chains if len(chain) >= least]


def _shape(errors: np.ndarray, outline: bool) -> tuple[int, float, bool]:
    """The shape that fits (n, 7, blurs) errors of a chain best, its misfit, and whether it is that shape throughout."""
    seen = errors[~np.isnan(errors[:, 0, 0])]
    if not len(seen):
        return 0, 1.0, False
    whole = np.median(seen, axis=0).min(1)
    best = int(whole.argmin())
    parts = [np.median(part, axis=0).min(1) for part in np.array_split(seen, 3) if len(part) > 1]
    steady = all(part[best] - part.min() < UNSTEADY for part in parts)
    return best, float(whole[best]), steady and whole[best] < (2 if outline else 1) * MISFIT


def _object(
    chain: np.ndarray, pieces: Pieces, figures: Figures, colours: np.ndarray, camera: CameraPath, style: str
) -> SeenObject:
    count, size = pieces.labels.shape[:2]
    frame = pieces.frame[chain]
    shape, misfit, certain = _shape(figures.errors[chain], style == "outline")
    radius, drop = radius_of(shape, figures.mass[chain], style == "outline")
    x, y, screen = np.full((3, count), np.nan)
    x[frame], y[frame], screen[frame] = figures.x[chain], figures.y[chain] - drop, radius
    colour = np.full(count, -1)
    colour[frame] = colours[chain]
    visible = np.zeros(count, dtype=bool)
    visible[frame] = True
    small, large = RADII[size]["small"], RADII[size]["large"]
    path = Path(x, y, screen, visible, colour)
    events = find_events(path, camera, (small, large))
    early = frame[: max(1, min(3, len(frame) // 4))]
    first_radius = np.median(screen[early] / camera.zoom[early])
    name = COLOUR_NAMES[np.bincount(colour[early]).argmax()] if colour[early[0]] >= 0 else None
    return SeenObject(
        SHAPES[shape] if certain else OTHER,
        name,
        "small" if first_radius < (small + large) / 2 else "large",
        x,
        y,
        screen,
        visible,
        colour,
        tuple(events),
        misfit,
    )
