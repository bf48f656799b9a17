"""The frames that are kept of a film, in one array that is allocated once and checked before."""

import numpy as np

from unireel.errors import UserError
from unireel.media.limits import Limits
from unireel.media.resize import Fit, resize_frame


class Keeper:
    """Puts pictures into the places of the result where they are wanted (a picture may be wanted several
    times).

    Args:
        name: of the film, for messages.
        indices: for each frame of the result the index of the source picture.
        size: (height, width) to resize to, or ``None``.
        fit: what happens to another aspect ratio.
        limits: what is accepted; checked when the first picture shows how large they are, before anything is
            allocated.
    """

    def __init__(
        self, name: str, indices: list[int], size: tuple[int, int] | None, fit: Fit, limits: Limits
    ) -> None:
        self._name, self._count, self._size, self._limits = name, len(indices), size, limits
        self._fit: Fit = fit
        self._slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            self._slots.setdefault(index, []).append(slot)
        self._frames: np.ndarray | None = None
        if size is not None:
            limits.check_picture(name, *size)
            limits.check_frames(name, self._count, *size)

    @property
    def wanted(self) -> list[int]:
        """Source pictures that are wanted, rising, each once."""
        return sorted(self._slots)

    def check(self, height: int, width: int) -> None:
        """Refuse source pictures of this size if they or the result would be above the limits."""
        self._limits.check_picture(self._name, height, width)
        self._limits.check_frames(self._name, self._count, *(self._size or (height, width)))

    def keep(self, index: int, picture: np.ndarray) -> None:
        """Put source picture ``index``, uint8 ``(H, W, 3)``, into its places.

        Raises:
            UserError: its size is not that of the others and none was asked for, or it is above the limits.
        """
        if self._size is not None:
            picture = resize_frame(picture, *self._size, self._fit)
        height, width = picture.shape[:2]
        if self._frames is None:
            self.check(height, width)
            self._frames = np.empty((self._count, height, width, 3), dtype=np.uint8)
        elif self._frames.shape[1:3] != (height, width):
            was = f"{self._frames.shape[2]}x{self._frames.shape[1]}"
            raise UserError(
                f"{self._name}: its pictures change size from {was} to {width}x{height}; give a size"
            )
        for slot in self._slots[index]:
            self._frames[slot] = picture

    def result(self) -> np.ndarray:
        """All frames, uint8 ``(F, H, W, 3)``, once every wanted picture has been kept."""
        assert self._frames is not None
        return self._frames
