"""observe: from pixels to an observation, step by step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from unireel.clip import Clip
from unireel.world.checker.background import NAMES, TONES, CameraPath, find_camera, find_ground
from unireel.world.checker.figures import Figures, Pieces, find_pieces, measure
from unireel.world.checker.linking import link
from unireel.world.checker.motion import Motion, place_motion, size_motion
from unireel.world.checker.observation import Observation, SeenObject
from unireel.world.checker.paint import Palette, find_paint, find_tone
from unireel.world.checker.templates import radius_of
from unireel.world.render import NIGHT
from unireel.world.scene import BACKGROUNDS, RADII, SHAPES
from unireel.world.tracks import COLOUR_NAMES

SHORTEST = 0.12
"""Share of the frames in which something must be seen to be an object (and not a flicker)."""


def observe(clip: Clip) -> Observation:
    """Look at ``clip`` (uint8 frames (F, S, S, 3)) without knowing anything about it but the World's rules."""
    frames = np.ascontiguousarray(clip.frames.transpose(3, 0, 1, 2)).astype(np.float32)
    ground = find_ground(frames)
    dark = ground.distances[1].min() < ground.distances[[0, 2]].min()
    difference = frames - ground.colour[:, None, None, None]
    camera = find_camera(difference, float(np.mean(NIGHT)) if dark else 1.0)
    difference -= camera.wave
    pieces = find_pieces(difference)
    tone = find_tone(ground, pieces)
    background = NAMES[int(ground.distances[TONES.index(tone)].argmin())]
    palette = Palette.of(ground.colour, tone, light_rim=sum(BACKGROUNDS[background]) < 330)
    paint = find_paint(pieces, palette, tone)
    figures = measure(paint.cover, pieces, paint.style == "outline")
    objects = _objects(pieces, figures, paint.colour, camera, paint.style)
    strange = float((ground.distances[TONES.index(tone)].min() > 25) or ground.share < 0.3)
    return Observation(background, paint.style, camera, tuple(objects), strange, not strange)


def _objects(
    pieces: Pieces, figures: Figures, colours: np.ndarray, camera: CameraPath, style: str
) -> list[SeenObject]:
    """Chains of figures as objects, in the order of their first appearance."""
    if not len(pieces):
        return []
    count, size = pieces.labels.shape[:2]
    world_x, world_y = camera.to_world(figures.x, figures.y, pieces.frame)
    mass = figures.mass / camera.zoom[pieces.frame] ** 2
    chains = link(pieces.frame, world_x / size, world_y / size, mass / size**2, colours)
    least = max(1, round(SHORTEST * count))
    return [
        _object(chain, pieces, figures, colours, camera, style) for chain in chains if len(chain) >= least
    ]


def _object(
    chain: np.ndarray, pieces: Pieces, figures: Figures, colours: np.ndarray, camera: CameraPath, style: str
) -> SeenObject:
    count, size = pieces.labels.shape[:2]
    frame = pieces.frame[chain]
    errors = np.nanmean(figures.errors[chain], 0)
    shape = int(errors.argmin())
    radius, drop = radius_of(shape, figures.mass[chain], style == "outline")
    x, y, screen = np.full((3, count), np.nan)
    x[frame], y[frame], screen[frame] = figures.x[chain], figures.y[chain] - drop, radius
    colour = np.full(count, -1)
    colour[frame] = colours[chain]
    visible = np.zeros(count, dtype=bool)
    visible[frame] = True
    small, large = RADII[size]["small"], RADII[size]["large"]
    events = _events(x, y, screen, visible, colour, camera, (small, large))
    early = frame[: max(1, min(3, len(frame) // 4))]
    first_radius = np.median(screen[early] / camera.zoom[early])
    name = COLOUR_NAMES[np.bincount(colour[early]).argmax()] if colour[early[0]] >= 0 else None
    return SeenObject(
        SHAPES[shape],
        name,
        "small" if first_radius < (small + large) / 2 else "large",
        x,
        y,
        screen,
        visible,
        colour,
        tuple(events),
        float(errors[shape]),
    )


def _events(x, y, radius, visible, colour, camera: CameraPath, radii: tuple[int, int]) -> list[Motion]:
    """Everything an object does, in the order of starts."""
    size = camera.wave.shape[1]
    frames = np.arange(len(x))
    world_x, world_y = camera.to_world(x, y, frames)
    found = [
        place_motion(world_x / size, world_y / size, visible),
        size_motion(radius / camera.zoom, visible, *radii),
        _colour_motion(colour, visible),
        *_visibility_motions(visible),
    ]
    return sorted((each for each in found if each), key=lambda each: each.start)


def _colour_motion(colour: np.ndarray, visible: np.ndarray) -> Motion | None:
    """A lasting change of colour."""
    seen = np.flatnonzero(visible)
    if len(seen) < 4:
        return None
    edge = max(1, min(3, len(seen) // 4))
    before, after = (int(np.bincount(colour[part] + 1).argmax()) - 1 for part in (seen[:edge], seen[-edge:]))
    if before == after:
        return None
    start = int(seen[np.flatnonzero(colour[seen] == before)[-1]])
    end = int(seen[np.flatnonzero(colour[seen] == after)[0]])
    return Motion(f"turn {COLOUR_NAMES[after]}", min(start, end - 1), max(end, start + 1))


def _visibility_motions(visible: np.ndarray) -> list[Motion]:
    """Appearing, disappearing and blinking, by the gaps in which an object is hidden for at least two frames."""
    seen = np.flatnonzero(visible)
    first, last, end = int(seen[0]), int(seen[-1]), len(visible) - 1
    found = []
    if first >= 2:
        found.append(Motion("appear", first - 1, first))
    gaps = [(int(a), int(b)) for a, b in pairwise(seen) if b - a >= 3]
    if gaps:
        start = max(0, gaps[0][0] - 1)
        found.append(Motion(f"blink {len(gaps)}", start, min(end, gaps[-1][1] + 1)))
    if end - last >= 2:
        found.append(Motion("disappear", last, last + 1))
    return found
