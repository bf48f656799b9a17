"""Tracks: where every object is, how large, in which colour and whether visible, in every frame of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unireel.world.scene import COLOURS, RADII, VECTORS, Camera, Event, Object, Scene

BLINK_HIDDEN = (0.35, 0.8)
"""The part of each blink's period in which the object is hidden."""

COLOUR_NAMES = tuple(COLOURS)
_RGB = np.array([COLOURS[name] for name in COLOUR_NAMES], dtype=np.float64)


@dataclass(frozen=True)
class Track:
    """One object over F frames; all arrays have shape (F,) except ``rgb``.

    ``x``, ``y``: centre and ``radius``, in pixels, in the world's frame of reference (``x``, ``y``, ``radius``) or on
    the screen, after the camera (``screen_x``, ``screen_y``, ``screen_radius``). ``visible``: bool. ``colour``: index
    into :data:`COLOUR_NAMES` of the nearest named colour. ``rgb``: (F, 3) nominal colour, 0 to 255.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    visible: np.ndarray
    colour: np.ndarray
    rgb: np.ndarray
    screen_x: np.ndarray
    screen_y: np.ndarray
    screen_radius: np.ndarray


def tracks(scene: Scene) -> list[Track]:
    """The exact track of each object of ``scene``, in the order of ``scene.objects``."""
    return [object_track(each, scene.camera, scene.frames, scene.size) for each in scene.objects]


def object_track(figure: Object, camera: Camera, frames: int, size: int) -> Track:
    """The exact track of one object in a film of ``frames`` frames on a canvas of side ``size``."""
    time = np.arange(frames, dtype=np.float64)
    x = np.full(frames, float(figure.x))
    y = np.full(frames, float(figure.y))
    radius = np.full(frames, float(RADII[size][figure.size]))
    first = next((event for event in figure.events if event.action in ("appear", "disappear")), None)
    visible = np.full(frames, first is None or first.action != "appear")
    mix = np.zeros((frames, len(COLOUR_NAMES)))
    mix[:, COLOUR_NAMES.index(figure.colour)] = 1.0
    for event in figure.events:
        _apply(event, time, x, y, radius, visible, mix, size)
    shift_x, shift_y, zoom = camera_path(camera, frames)
    middle = (size - 1) / 2
    return Track(
        x=x,
        y=y,
        radius=radius,
        visible=visible,
        colour=mix.argmax(1),
        rgb=(mix[:, :, None] * _RGB).sum(1),
        screen_x=(x - middle) * zoom + middle - shift_x,
        screen_y=(y - middle) * zoom + middle - shift_y,
        screen_radius=radius * zoom,
    )


def camera_path(camera: Camera, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera shift to the right and downwards in pixels and zoom factor, each (F,); content moves the other way."""
    progress = np.arange(frames) / max(frames - 1, 1)
    zero, one = np.zeros(frames), np.ones(frames)
    if camera.motion.startswith("pans"):
        dx, dy = VECTORS[camera.motion.split()[1]]
        return dx * camera.amount * progress, dy * camera.amount * progress, one
    if camera.motion.startswith("zooms"):
        return zero, zero, 1 + (camera.amount - 1) * progress
    return zero, zero, one


def _apply(event: Event, time, x, y, radius, visible, mix, size: int) -> None:
    """Add what ``event`` does to the arrays of one track, in place."""
    progress = np.clip((time - event.start) / (event.end - event.start), 0.0, 1.0)
    inside = (time > event.start) & (time < event.end)
    match event.action:
        case "move":
            dx, dy = VECTORS[event.direction or ""]
            x += dx * event.amount * progress
            y += dy * event.amount * progress
        case "circle":
            turn = progress if event.direction == "clockwise" else -progress
            cosine, sine = _unit_circle(turn)
            x += event.amount * sine  # starts at the top of the orbit
            y += event.amount * (1 - cosine)
        case "jump":
            phase = (progress * (event.count or 1)) % 1.0
            y -= np.where(inside, event.amount * 4 * phase * (1 - phase), 0.0)
        case "shake":
            swing = np.array([0.0, 1.0, 0.0, -1.0])[(time.astype(int) - event.start) % 4]
            x += np.where(inside, event.amount * swing, 0.0)
        case "grow" | "shrink":
            target = RADII[size]["large" if event.action == "grow" else "small"]
            radius += (target - radius[event.start]) * progress
        case "turn":
            mix *= (1 - progress)[:, None]
            mix[:, COLOUR_NAMES.index(event.colour or "")] += progress
        case "appear":
            visible[event.end :] = True
        case "disappear":
            visible[event.end :] = False
        case "blink":
            phase = (progress * (event.count or 1)) % 1.0
            visible &= ~(inside & (phase >= BLINK_HIDDEN[0]) & (phase < BLINK_HIDDEN[1]))


def _unit_circle(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of ``turn`` revolutions, rounded to 1e-6 so that every platform renders the same bytes."""
    angle = 2 * np.pi * turn
    return np.round(np.cos(angle), 6), np.round(np.sin(angle), 6)


def reach(shape: str) -> float:
    """How far a shape reaches from its centre, in radii."""
    return {"square": 1.2, "triangle": 1.2, "diamond": 1.2, "star": 1.2}.get(shape, 1.0)
