"""Accelerated pipelines make the same films, and encode each prompt once."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import copy

import pytest
import torch
from comparing import distance
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

import unireel
from unireel.backbones.fast import accelerate
from unireel.backbones.text import pocket_text_encoder, word_tokenizer


@pytest.fixture
def pipeline(weights: WanTransformer3DModel) -> WanPipeline:
    """diffusers' own, of tiny parts."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a", "red", "star", "blue", "ring"])
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    encoder = pocket_text_encoder(len(tokenizer), 24, 1, 2).eval()
    made = WanPipeline(
        tokenizer, encoder, vae, FlowMatchEulerDiscreteScheduler(shift=5.0), copy.deepcopy(weights)
    )
    made.set_progress_bar_config(disable=True)
    return made


def film(pipeline: WanPipeline, prompt: str = "a red star") -> torch.Tensor:
    """(1, F, 3, H, W) in [0, 1], always of the same noise."""
    made = pipeline(
        prompt, "a blue ring", height=32, width=48, num_frames=9, num_inference_steps=2,
        generator=torch.Generator().manual_seed(0), output_type="pt",
    )  # fmt: skip
    return made.frames


def test_wan_pipelines(pipeline: WanPipeline) -> None:
    before, method = film(pipeline), type(pipeline)._get_t5_prompt_embeds
    calls: list[int] = []
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    acceleration = accelerate(pipeline)
    assert distance(film(pipeline), before) < 1e-5
    assert len(calls) == 2
    film(pipeline, "a red ring")
    film(pipeline)
    assert len(calls) == 3
    acceleration.refresh()
    film(pipeline)
    assert len(calls) == 5
    acceleration.remove()
    assert pipeline._get_t5_prompt_embeds.__func__ is method
    assert torch.equal(film(pipeline), before)


def test_in_bfloat16_encoding_stays_exact(pipeline: WanPipeline) -> None:
    before, decoder = film(pipeline), copy.deepcopy(pipeline.vae.decoder.state_dict())
    theirs = distance(film(copy.deepcopy(pipeline).to(torch.bfloat16)), before)
    acceleration = accelerate(pipeline, "bfloat16")
    assert "bfloat16 decoding" in acceleration.levers
    assert {each.dtype for each in pipeline.vae.decoder.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in pipeline.vae.encoder.parameters()} == {torch.float32}
    after = film(pipeline)
    assert after.dtype == torch.float32
    assert 1e-5 < distance(after, before) < 1.2 * theirs
    acceleration.remove()
    for name, weight in pipeline.vae.decoder.state_dict().items():
        assert torch.equal(weight, decoder[name]), name


def test_the_pocket_model() -> None:
    model = unireel.load("pocket/base", device="cpu", fast=False)
    options = {"num_frames": 5, "num_inference_steps": 2, "output_type": "pt", "extend_prompt": False}
    noise = torch.randn(1, 16, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    before = model("a red star jumps twice", latents=noise, **options).frames
    calls: list[int] = []
    model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    accelerate(model)
    for _ in range(2):
        assert distance(model("a red star jumps twice", latents=noise, **options).frames, before) < 1e-5
    assert len(calls) == 1
