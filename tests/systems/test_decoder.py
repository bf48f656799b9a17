"""UniVid's decoder with a tiny Wan transformer and a tiny Wan2.2 autoencoder: films, first frames, pictures."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image

from unireel.backbones.lora import add_lora
from unireel.backbones.wan import predict_velocity
from unireel.errors import UsageError
from unireel.systems.univid.decoder import FilmSize, Sampling, VideoDecoder, best_size


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1] * 4, latents_std=[2.0] * 4,
        is_residual=True, in_channels=12, out_channels=12, patch_size=2, scale_factor_temporal=4,
        scale_factor_spatial=16,
    ).eval()  # fmt: skip
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=1,
    ).eval()  # fmt: skip
    return VideoDecoder(transformer, vae)


SIZE = FilmSize(5, 32, 64)
TEXT, AVOIDED = torch.randn(1, 6, 20), torch.randn(1, 6, 20)


def test_latents_of_the_published_sizes(decoder):
    assert decoder.multiple == (32, 32)
    assert decoder.latent_shape(FilmSize(121, 704, 1280)) == (4, 31, 44, 80)
    assert 31 * 22 * 40 == 27_280  # tokens of a film at Wan2.2's default
    assert decoder.latent_shape(FilmSize(1, 32, 32)) == (4, 1, 2, 2)
    with pytest.raises(UsageError, match=r"4 k \+ 1 frames"):
        decoder.latent_shape(FilmSize(120, 704, 1280))
    with pytest.raises(UsageError, match=r"1280x720 cannot be made.*multiples of 32 and 32"):
        decoder.latent_shape(FilmSize(121, 720, 1280))


@torch.no_grad()
def test_from_text(decoder):
    noise = decoder.noise(1, SIZE, torch.Generator().manual_seed(0))
    assert noise.shape == (1, 4, 2, 2, 4)
    latents = decoder.generate(TEXT, AVOIDED, noise, sampling=Sampling(1, guidance=3.0))
    # One Euler step from noise: the guided velocity at time 1, subtracted.
    with_text, without = (
        predict_velocity(decoder.transformer, noise, torch.tensor([1000.0]), text) for text in (TEXT, AVOIDED)
    )
    assert torch.allclose(latents, noise - (without + 3.0 * (with_text - without)), atol=1e-5)
    assert decoder.frames(latents).shape == (1, 5, 32, 64, 3)
    assert decoder.frames(latents).dtype == np.uint8


@torch.no_grad()
def test_from_a_first_frame(decoder):
    pixels = torch.rand(1, 3, 32, 64) * 2 - 1
    first = decoder.first_latents(pixels)
    mean = decoder.vae.encode(pixels[:, :, None]).latent_dist.mode()
    assert torch.allclose(first, (mean - 0.1) / 2.0, atol=1e-6)
    noise = decoder.noise(1, SIZE, torch.Generator().manual_seed(0))
    latents = decoder.generate(TEXT, AVOIDED, noise, first, Sampling(1, guidance=1.0))
    assert torch.equal(latents[:, :, :1], first)
    # The first frame's tokens are clean and at time 0, all others at time 1.
    state = torch.cat([first, noise[:, :, 1:]], dim=2)
    times = torch.tensor([[0.0] * 2 + [1000.0] * 2])
    velocity = predict_velocity(decoder.transformer, state, times, TEXT)
    assert torch.allclose(latents[:, :, 1:], (noise - velocity)[:, :, 1:], atol=1e-5)
    with pytest.raises(UsageError, match=r"first frame's latents"):
        decoder.generate(TEXT, AVOIDED, noise, first[..., :2])


@torch.no_grad()
def test_pictures_are_films_of_one_frame(decoder):
    noise = decoder.noise(2, FilmSize(1, 32, 32))
    text = TEXT.expand(2, -1, -1)
    latents = decoder.generate(text, text, noise, sampling=Sampling(2))
    assert decoder.frames(latents).shape == (2, 1, 32, 32, 3)


@torch.no_grad()
def test_contexts_are_asked_at_each_time(decoder):
    asked: list[float] = []

    def timed(time):
        asked.append(float(time))
        return TEXT * time

    noise = decoder.noise(1, SIZE, torch.Generator().manual_seed(0))
    latents = decoder.generate(timed, AVOIDED, noise, sampling=Sampling(4, shift=5.0, guidance=2.0))
    # s x / (1 + (s - 1) x) of 1, 3/4, 1/2, 1/4.
    assert asked == pytest.approx([1.0, 15 / 16, 5 / 6, 5 / 8])
    constant = decoder.generate(TEXT, AVOIDED, noise, sampling=Sampling(4, shift=5.0, guidance=2.0))
    assert not torch.allclose(latents, constant, atol=1e-4)


def test_first_frames_are_fitted(decoder):
    assert best_size(704, 1280, 704 * 1280, (32, 32)) == (704, 1280)
    assert best_size(1280, 704, 704 * 1280, (32, 32)) == (1280, 704)
    # 1.773 is nearer to 16:9 than 1280 / 704 = 1.818.
    assert best_size(720, 1280, 704 * 1280, (32, 32)) == (704, 1248)
    for height, width in ((333, 1000), (512, 512), (1000, 90)):
        rows, columns = best_size(height, width, 704 * 1280, (32, 32))
        assert rows % 32 == columns % 32 == 0
        assert rows * columns <= 704 * 1280
    picture = Image.new("RGB", (128, 100), "red")
    picture.paste("blue", (0, 0, 12, 100))
    pixels, size = decoder.fit(picture, 64 * 64)
    assert (pixels.shape, size) == ((3, 64, 64), FilmSize(1, 64, 64))
    # Brought to 82x64, of which nine columns on each side are cut off, and with them the blue ones.
    assert pixels[0].min() > 0.9
    assert pixels[2].max() < -0.9


@torch.no_grad()
def test_the_pocket_models_parts(untrained):
    """The same decoder at pocket scale, with coordinates, adapters and another autoencoder."""
    import unireel

    model = unireel.load(untrained)
    add_lora(model.transformer, rank=2)
    pocket = VideoDecoder(model.transformer, model.vae)
    assert pocket.latent_shape(FilmSize(17, 48, 48)) == (4, 5, 12, 12)
    noise = pocket.noise(1, FilmSize(5, 48, 48), torch.Generator().manual_seed(1))
    text, empty = model.encode_prompt(["a red star jumps twice"])
    latents = pocket.generate(text, empty, noise, sampling=Sampling(2, shift=1.0, guidance=4.0))
    own = model(
        "a red star jumps twice", num_frames=5, latents=noise, guidance_scale=4.0, output_type="latent"
    )
    assert torch.allclose(latents, own.frames, atol=1e-5)
    assert pocket.frames(latents).shape == (1, 5, 48, 48, 3)


def test_impossible_sampling():
    with pytest.raises(ValueError, match=r"at least 1 step"):
        Sampling(0)
