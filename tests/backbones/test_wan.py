"""The pocket DiT: times per token, coordinates, and velocities from predicted data."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import torch

from unireel.backbones.wan import (
    COORDINATES,
    LEAST_TIME,
    MatmulAttention,
    embed_times_by_frame,
    pocket_transformer,
    predict,
    predict_velocity,
    token_times,
    velocity_from,
    waves,
    with_coordinates,
)
from unireel.flow.matching import interpolate, velocity


def small():
    torch.manual_seed(0)
    return pocket_transformer(64, 2, 2, 96, 4, 2, 24).eval()


def test_times_of_clean_first_frames_are_zero():
    times = token_times(torch.tensor([0.5, 0.25]), torch.tensor([True, False]), 3, 2)
    assert times.tolist() == [[0, 0, 500, 500, 500, 500], [250] * 6]


@torch.no_grad()
def test_equal_times_per_token_are_one_time():
    model, latents, text = small(), torch.randn(2, 4, 3, 4, 4), torch.randn(2, 5, 24)
    time = torch.tensor([0.3, 0.8])
    per_token = token_times(time, torch.tensor([False, False]), 3, 4)
    whole = predict_velocity(model, latents, 1000 * time, text)
    assert torch.allclose(predict_velocity(model, latents, per_token, text), whole, atol=1e-5)


@torch.no_grad()
def test_coordinates_tell_places_apart():
    model, text = small(), torch.randn(1, 5, 24)
    flat = torch.zeros(1, 4, 1, 8, 8)
    with_places = predict_velocity(model, flat, torch.tensor([1000.0]), text)
    assert with_places[0, :, 0, ::2, ::2].flatten(1).std(dim=1).min() > 1e-4
    grid = with_coordinates(flat, 4 + COORDINATES)
    assert grid.shape[1] == 4 + COORDINATES and grid[0, 6, 0, 0, 0] == -1 and grid[0, 6, 0, 0, -1] == 1
    assert torch.equal(with_coordinates(flat, 7), grid[:, :7]) and with_coordinates(flat, 4) is flat


def test_waves_of_one_place_are_most_alike():
    places = torch.linspace(0, 1, 11)
    alike = waves(places, 4) @ waves(places, 4).T
    assert alike.argmax(1).tolist() == list(range(11))
    assert torch.allclose(alike.diagonal(), torch.full((11,), 4.0))
    assert (alike - alike.diag().diag()).max() < 3.2


@torch.no_grad()
def test_without_coordinates_uniform_noise_has_no_places():
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    config = dict(small().config) | {"in_channels": 4}
    model = WanTransformer3DModel.from_config(config).eval()
    output = predict_velocity(
        model, torch.zeros(1, 4, 1, 8, 8), torch.tensor([1000.0]), torch.randn(1, 5, 24)
    )
    assert output[0, :, 0, ::2, ::2].flatten(1).std(dim=1).max() < 1e-5


def test_velocity_from_the_data_is_the_velocity_of_the_path():
    data, noise, time = torch.randn(3, 4, 2, 2, 2), torch.randn(3, 4, 2, 2, 2), torch.tensor([0.2, 0.7, 1.0])
    state = interpolate(data, noise, time)
    assert torch.allclose(velocity_from(state, data, 1000 * time), velocity(data, noise), atol=1e-5)
    assert LEAST_TIME < 0.2


def test_parameters_of_the_published_model():
    """Wan2.1-T2V-1.3B, counted on the meta device: the same class at full size."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30)
    assert sum(p.numel() for p in model.parameters()) == 1_418_996_800


def test_matmul_attention_is_diffusers_own_forwards_and_backwards():
    results = []
    for processor in (None, MatmulAttention()):
        model = small().train()
        if processor:
            model.set_attn_processor(processor)
        torch.manual_seed(1)
        latents, text = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 5, 24)
        output = predict_velocity(model, latents, torch.tensor([300.0, 800.0]), text)
        output.square().mean().backward()
        gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        results.append((output, gradients))
    (output, gradients), (other, others) = results
    assert torch.allclose(output, other, atol=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], atol=1e-5), name


def test_times_embedded_by_frame_change_nothing():
    torch.manual_seed(0)
    model = pocket_transformer(32, 2, 2, 48, 4, 2, 12).eval()
    latents, text = torch.randn(3, 4, 5, 8, 8), torch.randn(3, 7, 12)
    times = token_times(torch.tensor([0.3, 0.8, 0.5]), torch.tensor([True, False, True]), 5, 16)
    with torch.no_grad():
        stock = [predict(model, latents, times, text), predict(model, latents, torch.rand(3), text)]
        embed_times_by_frame(model, 16)
        ours = [predict(model, latents, times, text)]
    torch.testing.assert_close(ours[0], stock[0], rtol=1e-5, atol=1e-5)
    assert predict(model, latents, torch.rand(3), text).shape == stock[1].shape
