"""The pocket autoencoder: its linear start against numpy's principal components, causality, statistics."""

import numpy as np
import pytest
import torch

from unireel.backbones.linear_start import linear_start
from unireel.backbones.vae import STILL_SHOWN, decode, encode, latent_frames, pocket_autoencoder
from unireel.data.world import changing, films, foreground, psnr, scenes, to_frames, to_pixels


@pytest.fixture(scope="module")
def started():
    torch.manual_seed(0)
    vae = pocket_autoencoder(32, 40, 12, 1).eval()
    pixels = to_pixels(films(scenes(1, 0, 24, 32)))
    linear_start(vae, pixels)
    return vae, pixels


def principal_components_error(pixels: torch.Tensor, count: int) -> float:
    """Mean squared error of a linear code of 4 x 4 x 4 blocks, by numpy's singular value decomposition."""
    doubled = torch.cat([pixels[:, :, :1].repeat(1, 1, 3, 1, 1), pixels], dim=2)
    b, c, f, h, w = doubled.shape
    blocks = (
        doubled.view(b, c, f // 4, 4, h // 4, 4, w // 4, 4)
        .permute(0, 2, 4, 6, 1, 3, 5, 7)
        .reshape(-1, 192)
        .numpy()
    )
    centred = blocks - blocks.mean(0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    rest = centred - centred @ rows[:count].T @ rows[:count]
    return float((rest**2).mean())


@torch.no_grad()
def test_the_linear_start_is_as_good_as_principal_components(started):
    vae, pixels = started
    error = float((decode(vae, encode(vae, pixels)) - pixels).square().mean())
    linear = principal_components_error(pixels, 12)
    assert error < 1.6 * linear, (error, linear)


@torch.no_grad()
def test_latents_do_not_see_the_future(started):
    vae, pixels = started
    changed = pixels[:2].clone()
    changed[:, :, 9:] = -changed[:, :, 9:]
    before, after = encode(vae, pixels[:2]), encode(vae, changed)
    assert torch.allclose(before[:, :, :3], after[:, :, :3], atol=1e-5)
    assert not torch.allclose(before[:, :, 3:], after[:, :, 3:], atol=1e-2)


@torch.no_grad()
def test_the_first_latent_frame_is_that_of_the_picture(started):
    vae, pixels = started
    assert torch.allclose(encode(vae, pixels[:, :, :1]), encode(vae, pixels)[:, :, :1], atol=1e-5)


@torch.no_grad()
def test_statistics_normalise_and_are_undone(started, tmp_path):
    vae, pixels = started
    plain = encode(vae, pixels)
    vae.save_pretrained(tmp_path)
    other = type(vae).from_pretrained(tmp_path).eval()
    mean, std = plain.transpose(0, 1).flatten(1).mean(1), plain.transpose(0, 1).flatten(1).std(1)
    other.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    values = encode(other, pixels).transpose(0, 1).flatten(1)
    assert values.mean(1).abs().max() < 1e-4
    assert (values.std(1) - 1).abs().max() < 1e-4
    assert torch.allclose(decode(other, encode(other, pixels)), decode(vae, plain), atol=1e-4)


def test_shapes():
    assert [latent_frames(f) for f in (1, 5, 17, 513)] == [1, 2, 5, 129]


def test_pixels_and_frames_are_inverse():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(to_frames(to_pixels(frames)), frames)


def test_psnr_against_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    one, two = random.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    expected = [metrics.peak_signal_noise_ratio(a, b) for a, b in zip(one, two, strict=True)]
    assert np.allclose(psnr(one, two), expected)


def test_foreground_and_changing_follow_the_ground_truth():
    from unireel.world.scene import Event, Object, Scene

    scene = Scene(
        (Object("circle", "red", "large", 24, 24, (Event("blink", 4, 9, count=1),)),), "black", size=48
    )
    frames = films([scene])
    assert foreground(frames)[0, 0, 24, 24] and not foreground(frames)[0, 0, 2, 2]
    changed = changing(frames)[0]
    assert not changed[0].any() and not changed[1:5].any()
    assert changed[5:9, 24, 24].all() and not changed[5:9, 2, 2].any()


@torch.no_grad()
def test_what_is_lost_of_a_given_first_frame_is_given_back_where_the_film_still_shows_it(started):
    vae, pixels = started
    film = pixels[:2].clone()
    film[:, :, 1:] = film[:, :, :1]  # nothing moves...
    film[:, :, 9:, 16:, 16:] = torch.where(
        film[:, :, :1, 16:, 16:] > 0, -1.0, 1.0
    )  # ...but a corner turns over
    latents = encode(vae, film)
    plain, mended = decode(vae, latents), decode(vae, latents, film[:, :, :1])
    assert torch.allclose(mended[:, :, 0], film[:, :, 0], atol=1e-6)
    away = (plain - plain[:, :, :1]).abs().amax(1)
    still, changed = (slice(None), slice(9, None), slice(None, 8), slice(None, 8)), away > STILL_SHOWN
    assert (mended - film).movedim(1, -1)[still].square().mean() < 0.7 * (plain - film).movedim(1, -1)[
        still
    ].square().mean()
    assert changed[:, 9:, 20:, 20:].float().mean() > 0.5
    assert torch.equal(mended.movedim(1, -1)[changed], plain.movedim(1, -1)[changed])
