"""Reading the films of a pair: as they are, or brought to what the model that edits them takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.pairs import Pair
from unireel.evaluation.films import read_plainly

Films = tuple[Clip, Clip, Clip | None]
"""Before, after, and the mask if there is one."""


@dataclass(frozen=True)
class Given:
    """Films that are there already, read as the benchmarks' programs do.

    ``fit``: bring edited films of another size to the source's, and cut the longer of two films.
    """

    fit: bool = False

    def compared(self, pair: Pair) -> Films:
        """The films of ``pair``.

        Raises:
            UserError: one is missing or cannot be read.
        """
        source, edited = read_plainly(pair.source), read_plainly(pair.edited)
        mask = None if pair.mask is None else read_plainly(pair.mask)
        return _fitted(source, edited, mask) if self.fit else (source, edited, mask)

    def watched(self, pair: Pair) -> tuple[Clip, Clip]:
        """The films as people see them, upright and whole."""
        return Clip.load(pair.source), Clip.load(pair.edited)


@dataclass(frozen=True)
class Made:
    """Films that a model edits.

    Attributes:
        frames: how many of a source are taken, from its start; None: all.
        size: (height, width) that sources are brought to, cut where their shape differs; None: as they are.
        fit: as of :class:`Given`.
    """

    frames: int | None = None
    size: tuple[int, int] | None = None
    fit: bool = False

    def source(self, pair: Pair) -> Clip:
        """What the model gets, and what its film is compared with.

        Raises:
            UserError: it is missing, cannot be read, or is shorter than ``frames``.
        """
        clip = self._loaded(pair.source)
        if self.frames is not None and len(clip) < self.frames:
            raise UserError(f"{pair.source} has {len(clip)} frames; {self.frames} are wanted")
        return clip

    def compared(self, pair: Pair) -> Films:
        """See :meth:`Given.compared`."""
        source, edited = self.source(pair), Clip.load(pair.edited)
        mask = None if pair.mask is None else self._loaded(pair.mask)
        return _fitted(source, edited, mask) if self.fit else (source, edited, mask)

    def watched(self, pair: Pair) -> tuple[Clip, Clip]:
        """See :meth:`Given.watched`."""
        return self.source(pair), Clip.load(pair.edited)

    def _loaded(self, path: Path) -> Clip:
        clip = Clip.load(path, size=self.size, fit="crop")
        return clip if self.frames is None else clip[: self.frames]


def _fitted(source: Clip, edited: Clip, mask: Clip | None) -> Films:
    count = min(len(source), len(edited))
    source, edited = source[:count], _resized(edited[:count], source)
    if mask is not None:
        mask = _resized(mask[:count] if len(mask) > 1 else mask, source)
    return source, edited, mask


def _resized(clip: Clip, like: Clip) -> Clip:
    same = (clip.height, clip.width) == (like.height, like.width)
    return clip if same else clip.resized(like.height, like.width)
