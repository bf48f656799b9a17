"""Guidance is its algebra; sampling is what diffusers' own Wan pipeline computes."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from unireel.errors import UsageError
from unireel.systems.omnivideo.context import Context
from unireel.systems.omnivideo.decoder import Decoder
from unireel.systems.omnivideo.guidance import FULL, NOTHING, SOURCE, Guidance
from unireel.systems.omnivideo.sampling import PAPER, RELEASED, Sampling, integrate, unipc

V = {FULL: torch.tensor([5.0, 1.0]), SOURCE: torch.tensor([3.0, 2.0]), NOTHING: torch.tensor([1.0, -1.0])}


@pytest.mark.parametrize(
    ("guidance", "has_source", "wanted"),
    [
        (Guidance(3.0), False, V[NOTHING] + 3 * (V[FULL] - V[NOTHING])),
        (Guidance(3.0), True, V[SOURCE] + 3 * (V[FULL] - V[SOURCE])),
        (Guidance(3.0, 2.0), True, V[NOTHING] + 2 * (V[SOURCE] - V[NOTHING]) + 3 * (V[FULL] - V[SOURCE])),
        (Guidance(2.0, 2.0), True, V[NOTHING] + 2 * (V[FULL] - V[NOTHING])),
        (Guidance(1.0), True, V[FULL]),
        (Guidance(3.0, rule="released"), True, V[FULL] + 3 * (V[FULL] - V[SOURCE])),
        (Guidance(5.0, rule="released"), False, V[FULL] + 5 * (V[FULL] - V[NOTHING])),
        (Guidance(0.0, rule="released"), False, V[FULL]),
    ],
)
def test_guidance_is_its_formula_with_no_branch_too_many(guidance, has_source, wanted):
    names = guidance.branches(has_source)
    torch.testing.assert_close(guidance.combine({name: V[name] for name in names}), wanted)
    if guidance.text == 1:
        assert names == (FULL,)


def test_released_guidance_is_one_more_than_the_usual_scale():
    released, usual = Guidance(3.0, rule="released"), Guidance(4.0)
    branches = {name: V[name] for name in usual.branches(True)}
    torch.testing.assert_close(released.combine(branches), usual.combine(branches))


def test_impossible_scales():
    with pytest.raises(UsageError, match="at least 0"):
        Guidance(-1.0)
    with pytest.raises(UsageError, match="profile 'paper'"):
        Guidance(3.0, 2.0, "released")
    with pytest.raises(UsageError, match="at least 1 step"):
        Sampling(0)


def test_published_settings():
    assert PAPER["t2i"] == Sampling(50, 5.0, 5.0)
    assert PAPER["t2v"] == Sampling(40, 5.0, 3.0)
    assert RELEASED["t2v"] == Sampling(50, 5.0, 5.0)


def test_times_are_those_of_wans_own_scheduler():
    scheduler = unipc(50, 5.0, own_times=True)
    straight = torch.linspace(0.999, 0, 51)[:-1]
    torch.testing.assert_close(scheduler.sigmas[:-1], 5 * straight / (1 + 4 * straight), rtol=1e-5, atol=1e-6)
    assert float(scheduler.sigmas[-1]) == 0
    assert len(unipc(7, 5.0).timesteps) == 7


@torch.no_grad()
def test_unipc_arrives_at_the_data_of_a_single_film(generator):
    noise, data = torch.randn((2, 1, 2, 3, 4, 4), generator=generator)
    first = data[:, :, :1]
    end = integrate(lambda state, time, sigma: (state - data) / sigma, noise, 7, 5.0)
    torch.testing.assert_close(end, data, rtol=1e-4, atol=1e-5)
    seen = []
    integrate(lambda s, t, sigma: seen.append(s[:, :, :1]) or torch.zeros_like(s), noise, 3, 5.0, first=first)
    assert all(torch.equal(each, first) for each in seen)
    assert len(seen) == 3


@torch.no_grad()
@pytest.mark.parametrize("start", [1.0, 0.5])
def test_from_any_time_gaussian_data_arrive_where_they_should(generator, start):
    """Data of mean 2 and deviation 0.3: along the flow, states stay the same number of deviations from the mean."""
    place, mean, deviation = torch.randn((1, 4, 3, 2, 2), generator=generator), 2.0, 0.3

    def spread(time):
        return (((1 - time) * deviation) ** 2 + time**2) ** 0.5

    def velocity(state, time, sigma):
        assert float(time) == pytest.approx(1000 * float(sigma), abs=1)
        expected = mean + (1 - sigma) * deviation**2 * (state - (1 - sigma) * mean) / spread(sigma) ** 2
        return (state - expected) / sigma

    state = (1 - start) * mean + spread(start) * place
    end = integrate(velocity, state, 40, 2.0, start=start)
    torch.testing.assert_close(end, mean + deviation * place, rtol=0, atol=0.02)


@torch.no_grad()
def test_two_branches_are_diffusers_pipeline(generator):
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=8,
        freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=16,
    ).eval()  # fmt: skip
    vae = AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    pipe = WanPipeline(None, None, vae, unipc(6, 5.0), transformer)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 16, 2, 4, 4), generator=generator)
    text, avoided = torch.randn((2, 1, 6, 8), generator=generator)
    wanted = pipe(
        prompt_embeds=text, negative_prompt_embeds=avoided, height=32, width=32, num_frames=5,
        num_inference_steps=6, guidance_scale=3.0, latents=noise.clone(), output_type="latent",
    ).frames  # fmt: skip
    decoder, guidance = Decoder(transformer), Guidance(3.0)
    contexts = {FULL: Context(text, None), NOTHING: Context(avoided, None)}

    def velocity(state, time, sigma):
        each = {
            name: decoder.velocity(state, time, sigma, contexts[name]) for name in guidance.branches(False)
        }
        return guidance.combine(each)

    torch.testing.assert_close(integrate(velocity, noise, 6, 5.0), wanted, rtol=1e-4, atol=1e-4)
