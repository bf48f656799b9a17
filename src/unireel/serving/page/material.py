"""What the tabs share: strangers' files as small clips, films to begin with, and errors as words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

from unireel.clip import Clip
from unireel.serving.context import Context

KEPT_FRAMES, KEPT_SIDE = 64, 384
"""Of a film that a visitor sends this many frames are kept, and no more pixels on a side, for as long as the visit."""

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Of every event: it is no part of the API, and says itself how far it is."""

PROMPTS = (
    "a red star jumps twice",
    "a large blue ring moves right on a navy background",
    "a green square, a yellow circle stays still",
    "the camera pans left, a small purple cross blinks once",
)

EXAMPLES = (
    (0, "repetition", "what does the cross do?"),
    (2, "counting", "how many objects are there?"),
    (1, "camera", "how does the camera move?"),
)
"""Films of the World's test split to ask about: number and category of the scene, and what is shown of it."""


async def read_upload(
    context: Context, path: str | None, kind: Literal["video", "image", "any"]
) -> Clip | None:
    """A file that a visitor sent, decoded by the intake; the file itself is removed.

    Raises:
        ApiError: it is refused.
    """
    if path is None:
        return None
    file = Path(path)
    content = file.read_bytes()
    file.unlink()
    clip = await context.intake.one("file", [content], kind)
    return None if clip is None else reduced(clip)


def reduced(clip: Clip) -> Clip:
    """The same film in at most :data:`KEPT_FRAMES` frames, lasting as long, at most :data:`KEPT_SIDE` pixels large."""
    side = max(clip.height, clip.width)
    if side > KEPT_SIDE:
        height, width = (max(1, each * KEPT_SIDE // side) for each in (clip.height, clip.width))
        clip = clip.resized(height, width)
    if len(clip) <= KEPT_FRAMES:
        return clip
    kept = [index * len(clip) // KEPT_FRAMES for index in range(KEPT_FRAMES)]
    return Clip(clip.frames[kept], clip.fps * KEPT_FRAMES / len(clip))


@cache
def examples() -> tuple[Clip, ...]:
    """The films of :data:`EXAMPLES`."""
    from unireel.world.render import render
    from unireel.world.sampling import sample_scene

    return tuple(render(sample_scene(0, index, "test", category, 48)) for index, category, _ in EXAMPLES)
