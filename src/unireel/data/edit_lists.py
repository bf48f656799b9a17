"""Public sets of edits: lists whose rows name a film or picture, an instruction, and the edited one.

Columns are called as in the public sets (``source_path``/``instruction``/``edited_path``, ``src_video``/``tgt_video``/
``prompt``, ``*_file_name``; :data:`unireel.evaluation.editing.pairs.COLUMNS`); lists are CSV, JSON or JSON lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.pairs import Pair, read_pairs


@dataclass(frozen=True)
class EditExample:
    """A film before and after, of equal length and size, and what was asked."""

    source: Clip
    instruction: str
    target: Clip


class EditList:
    """The edits of a list, by number; films are read when asked for.

    Args:
        path: the list; its paths are relative to it.
        size: side in pixels that films are cropped (at the centre) and resized to; None keeps theirs.
        frames: at most so many, 4 k + 1, from the first on.

    Raises:
        UserError: the list cannot be read, or a row lacks its films or its instruction.
    """

    def __init__(self, path: str | Path, size: int | None = None, frames: int = 17) -> None:
        self.size, self.frames = size, frames
        self.pairs, bad = read_pairs(Path(path))
        bad += [(pair.id, "no instruction") for pair in self.pairs if not pair.instruction]
        if bad:
            raise UserError(f"{path}: {len(bad)} rows cannot be used; {bad[0][0]}: {bad[0][1]}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> EditExample:
        """Edit ``index``.

        Raises:
            UserError: a film cannot be read, or the two differ in length or shape.
        """
        pair = self.pairs[index]
        source, target = Clip.load(pair.source), Clip.load(pair.edited)
        count = min(len(source), len(target), self.frames)
        count = (count - 1) // 4 * 4 + 1
        source, target = (self._fitted(clip[:count]) for clip in (source, target))
        if source.frames.shape != target.frames.shape:
            raise UserError(_differ(pair, source, target))
        return EditExample(source, pair.instruction, target)

    def _fitted(self, clip: Clip) -> Clip:
        return clip if self.size is None else clip.resized(self.size, self.size, fit="crop")


def _differ(pair: Pair, source: Clip, target: Clip) -> str:
    return f"{pair.source} is {source.width}x{source.height} and {pair.edited} {target.width}x{target.height}"
