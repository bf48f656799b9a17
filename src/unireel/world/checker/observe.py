"""observe: from pixels to an observation, step by step."""

from __future__ import annotations

import numpy as np

from unireel.clip import Clip
from unireel.world.checker.background import NAMES, TONES, CameraPath, Ground, find_camera, find_ground
from unireel.world.checker.figures import Figures, Palette, Pieces, find_pieces, measure, unmix
from unireel.world.checker.linking import link
from unireel.world.checker.motion import Motion, place_motion, size_motion
from unireel.world.checker.observation import Observation, SeenObject
from unireel.world.checker.templates import radius_of
from unireel.world.render import NIGHT
from unireel.world.scene import BACKGROUNDS, RADII, SHAPES
from unireel.world.tracks import COLOUR_NAMES

RIM_SHARE = 0.14
"""Least share of the contour's colour in the figures of a film in style ``outline``."""

CHROMA = 14.0
"""Colour (largest minus smallest channel, weighted over all figures) below which a film is in shades of gray."""

SHORTEST = 0.12
"""Share of the frames in which something must be seen to be an object (and not a flicker)."""


def observe(clip: Clip) -> Observation:
    """Look at ``clip`` (uint8 frames (F, S, S, 3)) without knowing anything about it but the World's rules."""
    frames = clip.frames.astype(np.float32)
    ground = find_ground(frames)
    dark = float(ground.distances[1].min()) < float(np.delete(ground.distances, 1, 0).min())
    difference = frames - ground.colour
    camera = find_camera(difference, float(np.mean(NIGHT)) if dark else 1.0)
    difference -= camera.wave[..., None]
    pieces = find_pieces(difference)
    tone = _tone(ground, pieces)
    background = NAMES[int(ground.distances[TONES.index(tone)].argmin())]
    palette = Palette.of(ground.colour, tone, light_rim=sum(BACKGROUNDS[background]) < 330)
    style, colours, cover = _painted(difference, pieces, palette, tone)
    figures = measure(cover, pieces, style == "outline")
    objects = _objects(pieces, figures, colours, camera, style)
    strange = float((ground.distances[TONES.index(tone)].min() > 25) or ground.share < 0.3)
    return Observation(background, style, camera, tuple(objects), strange, not strange)


def _tone(ground: Ground, pieces: Pieces) -> str:
    """Night, grayscale or plain, by the ground and by the colours of the figures."""
    weights = pieces.area.astype(np.float64)
    cores = pieces.core + ground.colour
    costs = {tone: float(ground.distances[i].min()) for i, tone in enumerate(TONES)}
    if len(pieces):
        chroma = float((np.ptp(cores, axis=1) * weights).sum() / weights.sum())
        bright = float(np.sort(cores.max(1))[len(cores) // 2])
        costs["grayscale"] += 12 if chroma > 2 * CHROMA else 0
        costs["plain"] += 12 if chroma < CHROMA else 0
        costs["night"] += 8 if bright > 155 else 0
        costs["plain"] += 8 if bright < 155 else 0
    return min(costs, key=lambda tone: costs[tone])


def _painted(
    difference: np.ndarray, pieces: Pieces, palette: Palette, tone: str
) -> tuple[str, np.ndarray, np.ndarray]:
    """Style of the film, colour number of every piece (-1 in grayscale), and how much of each pixel is covered."""
    labels = pieces.labels
    if tone == "grayscale":
        paint = pieces.core
        return "grayscale", np.full(len(pieces), -1), _cover(difference, labels, paint)
    if tone == "plain" and len(pieces):
        errors, fills, rims = unmix(difference, pieces, palette)
        colour = errors.argmin(1)
        own = np.arange(len(pieces))
        rim, fill = rims[own, colour], fills[own, colour]
        contoured = ~_plainly_white(difference, pieces, palette)
        if contoured.any() and np.median((rim / np.maximum(rim + fill, 1e-6))[contoured]) > RIM_SHARE:
            return "outline", colour, _outer_cover(difference, labels, palette, colour)
    colour = _nearest(pieces, palette)
    return tone, colour, _cover(difference, labels, palette.colours[colour])


def _plainly_white(difference: np.ndarray, pieces: Pieces, palette: Palette) -> np.ndarray:
    """Which pieces (N,) are white through and through, and so have no light contour that could be told from them."""
    white = palette.colours[COLOUR_NAMES.index("white")]
    inside = np.flatnonzero(pieces.labels)
    owner, flat = pieces.labels.ravel()[inside] - 1, difference.reshape(-1, 3)[inside]
    rest = flat - np.clip(flat @ white / (white @ white), 0, 1.1)[:, None] * white
    energy = np.bincount(owner, (flat * flat).sum(1), len(pieces))
    return np.bincount(owner, (rest * rest).sum(1), len(pieces)) < 0.03 * np.maximum(energy, 1e-6)


def _nearest(pieces: Pieces, palette: Palette) -> np.ndarray:
    """The palette colour (N,) of every piece, by its core."""
    apart = pieces.core[:, None] - palette.colours
    return (apart * apart).sum(-1).argmin(1)


def _cover(difference: np.ndarray, labels: np.ndarray, paint: np.ndarray) -> np.ndarray:
    """How much of each pixel is covered with its piece's ``paint`` (N, 3): (F, S, S), 0 outside."""
    direction = paint / np.maximum((paint * paint).sum(1, keepdims=True), 1e-6)
    result = np.zeros(labels.shape, dtype=np.float32)
    inside = labels > 0
    along = (difference[inside] * direction[labels[inside] - 1]).sum(1)
    result[inside] = np.clip(along, -0.2, 1.2)
    return result


def _outer_cover(
    difference: np.ndarray, labels: np.ndarray, palette: Palette, colour: np.ndarray
) -> np.ndarray:
    """How much of each pixel is covered by filling or contour: (F, S, S)."""
    result = np.zeros(labels.shape, dtype=np.float32)
    inside = np.flatnonzero(labels)
    flat = difference.reshape(-1, 3)[inside]
    paint = palette.colours[colour[labels.ravel()[inside] - 1]]
    along, square, mixed = (flat * paint).sum(1), (paint * paint).sum(1), paint @ palette.rim
    along_rim, rim_square = flat @ palette.rim, palette.rim @ palette.rim
    determinant = np.maximum(square * rim_square - mixed * mixed, 1e-3 * square * rim_square)
    fill = np.clip((along * rim_square - along_rim * mixed) / determinant, 0, 1.1)
    rim = np.clip((along_rim - fill * mixed) / rim_square, 0, 1.1)
    result.ravel()[inside] = np.minimum(fill + rim, 1.0)
    return result


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
    errors = figures.errors[chain].mean(0)
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
    gaps = [(int(a), int(b)) for a, b in zip(seen, seen[1:], strict=False) if b - a >= 3]
    if gaps:
        start = max(0, gaps[0][0] - 1)
        found.append(Motion(f"blink {len(gaps)}", start, min(end, gaps[-1][1] + 1)))
    if end - last >= 2:
        found.append(Motion("disappear", last, last + 1))
    return found
