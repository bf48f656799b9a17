"""Clip: frames and a frame rate, the one currency in which every part of Unireel trades."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from unireel.errors import UsageError, UserError
from unireel.media import decode, encode
from unireel.media.decode import DEFAULT_LIMITS, Limits, OnDamage
from unireel.media.resize import Fit, resize_frame

if TYPE_CHECKING:
    import torch

TensorLayout = Literal["FCHW", "CFHW", "FHWC"]
"""Order of a film tensor's axes: frames, channels, height, width."""

ValueRange = Literal["0..1", "-1..1"]
"""What black and white are in a float tensor."""

SUFFIXES = (".mp4", ".webm", ".gif", ".png")
"""Kinds of files that :meth:`Clip.save` writes."""

_FROM_FHWC = {"FHWC": (0, 1, 2, 3), "FCHW": (0, 3, 1, 2), "CFHW": (3, 0, 1, 2)}
_TO_FHWC = {"FHWC": (0, 1, 2, 3), "FCHW": (0, 2, 3, 1), "CFHW": (1, 2, 3, 0)}


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A film in memory.

    Attributes:
        frames: uint8 ``(F, H, W, 3)``, RGB, C-contiguous, F, H and W at least 1. Not copied if it already is
            all that.
        fps: frames per second, finite and > 0; frame ``i`` is on display during ``[i / fps, (i + 1) / fps)``
            seconds.

    Raises:
        UserError: the array or the rate is not as above.
    """

    frames: np.ndarray
    fps: float

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray):
            raise UserError(f"a clip needs a numpy array of frames, not {type(frames).__name__}")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise UserError(f"a clip needs frames of shape (F, H, W, 3), none of them 0, not {frames.shape}")
        if frames.dtype != np.uint8:
            raise UserError(
                f"a clip needs uint8 frames, not {frames.dtype}; use Clip.from_tensor for float values"
            )
        fps = float(self.fps)
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f"a clip needs a frame rate above 0, not {self.fps}")
        object.__setattr__(self, "frames", np.ascontiguousarray(frames))
        object.__setattr__(self, "fps", fps)

    def __repr__(self) -> str:
        return (
            f"Clip({len(self)} frames, {self.width}x{self.height}, {self.fps:g} fps, {self.duration:.2f} s)"
        )

    def __len__(self) -> int:
        return self.frames.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.frames)

    def __getitem__(self, selection: slice) -> Clip:
        """Frames ``selection`` as a clip; a step makes it slower or reversed, it does not change ``fps``.

        Raises:
            UserError: no frame is left.
            UsageError: not a slice (one frame is :meth:`frame`).
        """
        if not isinstance(selection, slice):
            raise UsageError("clip[...] takes a slice of frames; one frame is clip.frame(i)")
        frames = self.frames[selection]
        if len(frames) == 0:
            raise UserError(f"no frame is left of {len(self)} after cutting")
        return Clip(frames, self.fps)

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.frames.shape[2]

    @property
    def duration(self) -> float:
        """Seconds on display: ``F / fps``."""
        return len(self) / self.fps

    @property
    def times(self) -> np.ndarray:
        """Seconds at which each frame appears: float64 ``(F,)``, ``i / fps``."""
        return np.arange(len(self)) / self.fps

    def frame(self, index: int) -> np.ndarray:
        """One frame, uint8 ``(H, W, 3)``; negative indices count from the end.

        Raises:
            UserError: there is no such frame.
        """
        if not -len(self) <= index < len(self):
            raise UserError(f"there is no frame {index} in a clip of {len(self)} frames")
        return self.frames[index]

    def image(self, index: int = 0) -> Image.Image:
        """One frame as a Pillow picture. Raises :class:`UserError` if there is no such frame."""
        return Image.fromarray(self.frame(index))

    def png_bytes(self, index: int = 0, *, scale: int = 1) -> bytes:
        """One frame as the bytes of a PNG file, enlarged ``scale`` times (nearest neighbour).

        Raises:
            UserError: there is no such frame.
        """
        buffer = io.BytesIO()
        Image.fromarray(encode.enlarge(self.frame(index), _checked_scale(scale))).save(buffer, format="PNG")
        return buffer.getvalue()

    def resized(self, height: int, width: int, *, fit: Fit = "stretch") -> Clip:
        """The film at another size; ``fit`` says what happens to another aspect ratio (stretch, crop, pad).

        Raises:
            UsageError: a size below 1 or an unknown ``fit``.
        """
        return Clip(np.stack([resize_frame(frame, height, width, fit) for frame in self.frames]), self.fps)

    @classmethod
    def from_array(cls, array: np.ndarray, fps: float) -> Clip:
        """A clip from uint8 ``(F, H, W, 3)`` or one picture ``(H, W, 3)``; else :class:`UserError`."""
        array = np.asarray(array)
        return cls(array[None] if array.ndim == 3 else array, fps)

    @classmethod
    def from_images(cls, images: Sequence[Image.Image], fps: float) -> Clip:
        """A clip from Pillow pictures of one size, at least one; else :class:`UserError`."""
        sizes = {image.size for image in images}
        if len(sizes) != 1:
            raise UserError(
                f"a clip needs pictures of one size, at least one; these have {sorted(sizes) or 'none'}"
            )
        return cls(np.stack([np.asarray(image.convert("RGB")) for image in images]), fps)

    @classmethod
    def from_tensor(
        cls, tensor: torch.Tensor | np.ndarray, fps: float, *, layout: TensorLayout, value_range: ValueRange
    ) -> Clip:
        """A clip from float values; values a little outside the range (as decoders give) are cut to it.

        Args:
            tensor: 4 axes in the order of ``layout``, 3 channels, floating point, on any device.
            fps: frames per second.
            layout: ``"FCHW"``, ``"CFHW"`` or ``"FHWC"``.
            value_range: ``"0..1"`` or ``"-1..1"``: what black and white are.

        Raises:
            UserError: another shape, integers, or values that are not finite.
            UsageError: an unknown ``layout`` or ``value_range``.
        """
        _check_choice("layout", layout, tuple(_TO_FHWC))
        _check_choice("value_range", value_range, ("0..1", "-1..1"))
        floating = (
            np.issubdtype(tensor.dtype, np.floating)
            if isinstance(tensor, np.ndarray)
            else tensor.is_floating_point()
        )
        if tensor.ndim != 4 or not floating:
            raise UserError(
                f"a clip needs a float tensor of axes {layout}, not {tensor.dtype} {tuple(tensor.shape)}"
            )
        array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().float().cpu().numpy()
        values = array.transpose(_TO_FHWC[layout]).astype(np.float32)
        if not np.isfinite(values).all():
            raise UserError("a clip cannot be made of values that are not finite (nan or infinity)")
        unit = values if value_range == "0..1" else values / 2 + 0.5
        return cls(np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8), fps)

    def to_tensor(self, *, layout: TensorLayout, value_range: ValueRange) -> torch.Tensor:
        """The frames as float32 on the CPU, axes in the order of ``layout``, black and white as
        ``value_range`` says.

        Raises:
            UsageError: an unknown ``layout`` or ``value_range``.
        """
        import torch

        _check_choice("layout", layout, tuple(_FROM_FHWC))
        _check_choice("value_range", value_range, ("0..1", "-1..1"))
        values = self.frames.transpose(_FROM_FHWC[layout]).astype(np.float32, order="C") / np.float32(255)
        return torch.from_numpy(values if value_range == "0..1" else values * 2 - 1)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        fps: float | None = None,
        num_frames: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        size: tuple[int, int] | None = None,
        fit: Fit = "stretch",
        limits: Limits = DEFAULT_LIMITS,
        on_damage: OnDamage = "warn",
    ) -> Clip:
        """Read a film (mp4, webm, gif and most others), a picture (one frame), or a folder of pictures.

        See :func:`unireel.media.decode.read` for every argument and error.
        """
        frames, rate = decode.read(
            Path(path),
            fps=fps,
            num_frames=num_frames,
            start=start,
            end=end,
            size=size,
            fit=fit,
            limits=limits,
            on_damage=on_damage,
        )
        return cls(frames, rate)

    def save(self, path: str | PathLike[str], *, scale: int = 1, crf: int | None = None) -> Path:
        """Write the film; what the file is follows from its name. Nothing half-written is ever left behind.

        ``.mp4`` is H.264 (yuv420p, plays everywhere), ``.webm`` VP9, ``.gif`` loops, ``.png`` holds one
        frame, a name without suffix is a folder of lossless PNGs. A film of 48x48 pixels is a stamp in a
        player: ``scale=8`` enlarges it with sharp pixels (and then 4:2:0 chroma costs it nothing);
        :meth:`resized` brings it back exactly.

        Args:
            path: where to write; the folder must exist.
            scale: whole-number nearest-neighbour enlargement.
            crf: quality of mp4 (0-51, default 14) or webm (0-63, default 20): less is better and larger.

        Returns:
            The path written.

        Raises:
            UsageError: an unknown suffix, a ``scale`` or a ``crf`` out of range, several frames for one PNG.
            UserError: the place cannot be written, or its format cannot hold the film.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        scale = _checked_scale(scale)
        _check_crf(suffix, crf)
        if suffix in (".mp4", ".webm"):
            encode.write_video(self.frames, self.fps, path, crf=crf, scale=scale)
        elif suffix == ".gif":
            encode.write_gif(self.frames, self.fps, path, scale=scale)
        elif suffix == ".png":
            if len(self) > 1:
                raise UsageError(
                    f"cannot write {path}: a PNG holds one frame and the clip has {len(self)};"
                    " name a folder, a film (.mp4, .webm, .gif), or cut one frame with clip[i:i+1]"
                )
            encode.write_picture(Image.fromarray(encode.enlarge(self.frames[0], scale)), path)
        elif suffix == "":
            encode.write_folder(self.frames, self.fps, path, scale=scale)
        else:
            raise UsageError(
                f"cannot write {path}: unknown suffix {path.suffix!r}; use {', '.join(SUFFIXES)} or a folder"
            )
        return path


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise UsageError(f"{name}={value!r}: choose one of {', '.join(accepted)}")


def _checked_scale(scale: int) -> int:
    if not isinstance(scale, int) or not 1 <= scale <= 64:
        raise UsageError(f"scale={scale}: a whole number from 1 to 64")
    return scale


def _check_crf(suffix: str, crf: int | None) -> None:
    if crf is None:
        return
    if suffix not in encode.CRF_RANGE:
        raise UsageError(f"crf={crf}: only .mp4 and .webm have a quality setting, not {suffix or 'a folder'}")
    low, high = encode.CRF_RANGE[suffix]
    if not low <= crf <= high:
        raise UsageError(f"crf={crf}: {suffix} takes {low} (lossless) to {high} (worst)")
