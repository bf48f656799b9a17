"""The autoencoder's stage: it learns, keeps its encoder where asked to, and noise has the strength it should have."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCosmos

from unireel.backbones.vae import encode
from unireel.data.latents import encoder_digest
from unireel.data.world import films, scenes, to_pixels
from unireel.systems.base.stages.autoencoder import AutoencoderConfig, AutoencoderStage
from unireel.systems.base.stages.redrawing import Redrawing

TINY = {"size": 32, "frames": 5, "crop": 16, "batch_size": 4, "encoder_width": 8, "decoder_width": 8}


def stage_of(**settings) -> AutoencoderStage:
    torch.manual_seed(0)
    return AutoencoderStage(AutoencoderConfig(**(TINY | {"latent_channels": 4} | settings)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    stage = stage_of()
    optimizer = torch.optim.AdamW([each for each in stage.module.parameters() if each.requires_grad], lr=1e-3)
    batch = stage.batch(0)
    losses = []
    for _ in range(12):
        loss, _ = stage.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    stage.export(folder)
    return folder, losses


def test_it_learns(exported):
    assert exported[1][-1] < 0.9 * exported[1][0]


def test_batches_are_a_pure_function_of_their_number():
    one = stage_of()
    first = one.batch(5)
    one.batch(1)
    assert all(torch.equal(first[name], one.batch(5)[name]) for name in ("pixels", "weight"))
    assert one.batch(5)["pixels"].shape == (4, 3, 5, 16, 16)


def test_latents_of_a_decoder_trained_alone_stay_what_they_were(exported):
    folder, _ = exported
    stage = stage_of(start_from=str(folder / "vae"), decoder_only=True, most_noise=0.5)
    before = AutoencoderKLCosmos.from_pretrained(folder / "vae")
    optimizer = torch.optim.AdamW([each for each in stage.module.parameters() if each.requires_grad], lr=1e-3)
    batch = stage.batch(0)
    loss, _ = stage.loss(batch)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        one, two = (model.encode(batch["pixels"]).latent_dist.mode() for model in (before, stage.module))
        assert torch.equal(one, two)
        assert not torch.equal(before.decode(one).sample, stage.module.decode(one).sample)
    stage.export(folder / "again")
    again = AutoencoderKLCosmos.from_pretrained(folder / "again" / "vae")
    assert encoder_digest(again) == encoder_digest(before)
    with torch.no_grad():
        again.quant_conv.weight[0, 0] += 1e-3
    assert encoder_digest(again) != encoder_digest(before)
    assert again.config["latents_std"] == before.config["latents_std"]


def test_noise_has_the_strength_it_should_have(monkeypatch):
    stage = stage_of(noise=0.0, most_noise=0.5)
    batch = stage.batch(0)
    seen = {}
    decode = stage.module.decode
    monkeypatch.setattr(stage.module, "decode", lambda latents: seen.update(noisy=latents) or decode(latents))
    strengths = []
    for _ in range(30):
        stage.loss(batch)
        with torch.no_grad():
            clean = stage.module.encode(batch["pixels"]).latent_dist.mode()
        used = clean.std(dim=(0, 2, 3, 4)) > 1e-3
        scale = clean.std(dim=(0, 2, 3, 4), keepdim=True)
        strengths.extend(((seen["noisy"] - clean) / scale)[:, used].flatten(1).std(1).tolist())
    assert 0.45 < max(strengths) < 0.58 and min(strengths) < 0.06
    assert np.mean(strengths) == pytest.approx(0.25, abs=0.06)


@pytest.fixture(scope="module")
def mending(untrained):
    own = {"size": 48, "frames": 17, "crop": 0, "start_from": str(untrained / "vae"), "decoder_width": 32}
    return stage_of(**own, decoder_only=True, generator=str(untrained), redrawn=0.5)


def test_decoders_learn_from_films_as_a_generator_draws_them(mending):
    batches = [mending.batch(index) for index in range(4)]
    assert ["ids" in each for each in batches] == [False, True, False, True]
    assert mending.module.config["decode_block_out_channels"] == (32, 32)
    for batch, name in zip(batches[:2], ("psnr", "redrawn_psnr"), strict=True):
        loss, logs = mending.loss(batch)
        assert name in logs
        loss.backward()
    assert all((each.grad is None) == (not each.requires_grad) for each in mending.module.parameters())
    assert mending.module.encoder.conv_in.conv_s.weight.grad is None


@torch.no_grad()
def test_films_drawn_again_differ_by_as_much_as_they_forgot(mending, untrained):
    drawn = scenes(0, 0, 3, 48)
    latents = encode(mending.module, to_pixels(films(drawn)))
    distances = []
    for time in (0.02, 0.5):
        redraw = Redrawing(str(untrained), time, time, steps=2)
        torch.manual_seed(1)  # a draw that keeps the first frame
        made = redraw(latents, *redraw.words(drawn))
        assert made.shape == latents.shape and torch.equal(made[:, :, 0], latents[:, :, 0])
        distances.append(float((made - latents).square().mean()))
    assert distances[0] < 0.1 * distances[1]


def test_a_decoder_that_mends_needs_a_generator():
    with pytest.raises(ValueError, match="redrawn: needs a generator"):
        AutoencoderConfig(redrawn=0.5, decoder_only=True)
