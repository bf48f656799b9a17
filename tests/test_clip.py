"""Clip: what it accepts, and that nothing is lost on the way to tensors, pictures and other sizes."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from unireel.clip import Clip, TensorLayout, ValueRange
from unireel.errors import UsageError, UserError

LAYOUTS: dict[TensorLayout, tuple[int, int, int, int]] = {
    "FHWC": (0, 1, 2, 3),
    "FCHW": (0, 3, 1, 2),
    "CFHW": (3, 0, 1, 2),
}
small_films = arrays(np.uint8, st.tuples(*(st.integers(1, 5) for _ in range(3)), st.just(3)))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_what_a_clip_knows() -> None:
    clip = Clip(noise(17, 48, 64, 3), 8)
    assert (len(clip), clip.height, clip.width, clip.fps, clip.duration) == (17, 48, 64, 8.0, 2.125)
    assert clip.times[[0, 8, 16]].tolist() == [0.0, 1.0, 2.0]
    assert repr(clip) == "Clip(17 frames, 64x48, 8 fps, 2.12 s)"
    assert np.array_equal(np.stack(list(clip)), clip.frames)


def test_frames_are_contiguous_and_not_copied_without_need() -> None:
    frames = noise(4, 8, 8, 3)
    assert Clip(frames, 8).frames is frames
    turned = Clip(frames.transpose(0, 2, 1, 3), 8).frames
    assert turned.flags["C_CONTIGUOUS"]
    assert np.array_equal(turned[:, 1, 2], frames[:, 2, 1])


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([[1, 2, 3]], 8, "numpy array"),
        (noise(8, 8, 3), 8, r"shape \(F, H, W, 3\)"),
        (noise(2, 8, 8, 4), 8, r"shape \(F, H, W, 3\)"),
        (noise(0, 8, 8, 3), 8, r"shape \(F, H, W, 3\)"),
        (noise(2, 8, 8, 3).astype(np.float32), 8, "uint8 frames, not float32; use Clip.from_tensor"),
        (noise(2, 8, 8, 3), 0, "frame rate above 0"),
        (noise(2, 8, 8, 3), -8, "frame rate above 0"),
        (noise(2, 8, 8, 3), float("nan"), "frame rate above 0"),
        (noise(2, 8, 8, 3), float("inf"), "frame rate above 0"),
    ],
)
def test_what_is_no_clip(frames: Any, fps: float, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Clip(frames, fps)
    assert "\n" not in str(caught.value)


def test_a_clip_does_not_change() -> None:
    clip = Clip(noise(2, 8, 8, 3), 8)
    with pytest.raises(AttributeError):
        clip.fps = 4  # type: ignore[misc]


@settings(max_examples=30)
@given(small_films, st.sampled_from(list(LAYOUTS)), st.sampled_from(["0..1", "-1..1"]))
def test_tensors_there_and_back(frames: np.ndarray, layout: TensorLayout, value_range: ValueRange) -> None:
    tensor = Clip(frames, 8).to_tensor(layout=layout, value_range=value_range)
    unit = torch.from_numpy(frames.transpose(LAYOUTS[layout]).astype(np.float64)) / 255
    torch.testing.assert_close(
        tensor, (unit if value_range == "0..1" else unit * 2 - 1).float(), rtol=0, atol=2e-7
    )
    assert tensor.is_contiguous()
    back = Clip.from_tensor(tensor, 8, layout=layout, value_range=value_range)
    assert np.array_equal(back.frames, frames)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_other_float_types(dtype: torch.dtype) -> None:
    values = torch.linspace(-1, 1, 3 * 2 * 4 * 5).reshape(3, 2, 4, 5)
    clip = Clip.from_tensor(values.to(dtype).requires_grad_(), 8, layout="CFHW", value_range="-1..1")
    expected = torch.round((values.permute(1, 2, 3, 0) + 1) * 127.5).numpy()
    assert clip.frames.shape == (2, 4, 5, 3)
    assert np.abs(clip.frames - expected).max() <= (1 if dtype != torch.float64 else 0)


def test_values_outside_the_range_are_cut_and_numpy_is_accepted() -> None:
    values = np.array([-0.2, 0.0, 0.5, 1.0, 1.3], dtype=np.float32)
    frames = np.broadcast_to(values[:, None, None, None], (5, 2, 2, 3))
    clip = Clip.from_tensor(frames, 8, layout="FHWC", value_range="0..1")
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda a: a | {"layout": "HWCF"}, UsageError),
        (lambda a: a | {"value_range": "0..255"}, UsageError),
        (lambda a: a | {"layout": "FCHW"}, UserError),
        (lambda a: a | {"tensor": torch.zeros(3, 2, 4, 5, dtype=torch.uint8)}, UserError),
        (lambda a: a | {"tensor": torch.zeros(3, 4, 5)}, UserError),
        (lambda a: a | {"tensor": torch.full((3, 2, 4, 5), float("nan"))}, UserError),
        (lambda a: a | {"tensor": torch.full((3, 2, 4, 5), float("inf"))}, UserError),
    ],
)
def test_tensors_that_are_no_film(change: Callable[[dict], dict], kind: type[UserError]) -> None:
    arguments = {"tensor": torch.zeros(3, 2, 4, 5), "fps": 8, "layout": "CFHW", "value_range": "0..1"}
    Clip.from_tensor(**arguments)
    with pytest.raises(kind) as caught:
        Clip.from_tensor(**change(arguments))
    assert "\n" not in str(caught.value)


def test_one_frame_and_its_pictures() -> None:
    clip = Clip(noise(5, 6, 7, 3), 8)
    assert np.array_equal(clip.frame(-1), clip.frames[4])
    assert np.array_equal(np.asarray(clip.image(2)), clip.frames[2])
    with Image.open(io.BytesIO(clip.png_bytes(3, scale=2))) as picture:
        large = np.asarray(picture)
    assert np.array_equal(large[::2, ::2], clip.frames[3])
    assert large.shape == (12, 14, 3)
    for index in (5, -6):
        with pytest.raises(UserError, match="no frame"):
            clip.frame(index)


def test_cutting() -> None:
    clip = Clip(noise(9, 4, 4, 3), 8)
    assert np.array_equal(clip[2:5].frames, clip.frames[2:5])
    assert np.array_equal(clip[::-1].frames, clip.frames[::-1])
    assert clip[2:5].fps == 8
    with pytest.raises(UserError, match="no frame is left"):
        clip[9:]
    with pytest.raises(UsageError, match="slice"):
        clip[3]  # type: ignore[index]


def test_from_pictures_and_arrays() -> None:
    frames = noise(3, 6, 5, 3)
    images = [Image.fromarray(frame) for frame in frames]
    assert np.array_equal(Clip.from_images(images, 8).frames, frames)
    assert np.array_equal(Clip.from_array(frames, 8).frames, frames)
    assert np.array_equal(Clip.from_array(frames[0], 8).frames, frames[:1])
    for wrong in ([], [images[0], images[1].resize((9, 9))]):
        with pytest.raises(UserError, match="pictures of one size"):
            Clip.from_images(wrong, 8)


@settings(max_examples=30)
@given(small_films, st.integers(1, 6), st.integers(1, 6))
def test_reducing_by_whole_factors_averages_blocks(frames: np.ndarray, down: int, across: int) -> None:
    count, height, width, _ = frames.shape
    large = Clip(frames.repeat(down, axis=1).repeat(across, axis=2), 8)
    assert np.array_equal(large.resized(height, width).frames, frames)
    noisy = noise(count, height * down, width * across, 3)
    mean = noisy.reshape(count, height, down, width, across, 3).mean(axis=(2, 4))
    assert np.abs(Clip(noisy, 8).resized(height, width).frames - mean).max() <= 0.5


def test_fitting_another_aspect_ratio() -> None:
    frames = np.zeros((1, 40, 80, 3), dtype=np.uint8)
    frames[:, :, :20], frames[:, :, 20:60], frames[:, :, 60:] = 50, 100, 150
    clip = Clip(frames, 8)
    assert clip.resized(20, 20).frames[0, 10].mean(axis=1)[[0, 10, 19]].tolist() == [50, 100, 150]
    assert np.unique(clip.resized(20, 20, fit="crop").frames).tolist() == [100]
    padded = clip.resized(20, 20, fit="pad").frames[0, :, :, 0]
    assert (padded[:5] == 0).all()
    assert (padded[15:] == 0).all()
    assert padded[10, [0, 10, 19]].tolist() == [50, 100, 150]


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["stretch", "crop", "pad"]))
def test_any_size_can_be_asked_for(height: int, width: int, fit: Any) -> None:
    clip = Clip(np.full((2, 7, 13, 3), 90, dtype=np.uint8), 8).resized(height, width, fit=fit)
    assert clip.frames.shape == (2, height, width, 3)
    assert 90 in clip.frames
    assert set(np.unique(clip.frames)) <= ({0, 90} if fit == "pad" else {90})


@pytest.mark.parametrize(("height", "width", "fit"), [(0, 4, "stretch"), (4, -1, "crop"), (4, 4, "squash")])
def test_sizes_that_are_none(height: int, width: int, fit: Any) -> None:
    with pytest.raises(UsageError):
        Clip(noise(1, 4, 4, 3), 8).resized(height, width, fit=fit)
