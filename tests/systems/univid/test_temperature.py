"""Temperature alignment against the paper's formulas, attention written out, and plain pipelines of diffusers."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false

import math

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from torch import Tensor

from unireel.errors import UsageError, UserError
from unireel.flow.matching import shift_time
from unireel.systems.univid.temperature import (
    SCHEDULES,
    AlignedAttention,
    TemperatureAlignment,
    align,
    flow_progress,
)

STEPS = 10
GRID = [number / 100 for number in range(101)]


def tiny_transformer(**changes) -> WanTransformer3DModel:
    torch.manual_seed(0)
    sizes = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
    }
    model = WanTransformer3DModel(**{**sizes, **changes}).eval()
    # Large enough that attention is far from uniform, or the gains would hardly show.
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            torch.nn.init.normal_(attention.norm_q.weight, 2.0, 0.5)
            torch.nn.init.normal_(attention.norm_k.weight, 2.0, 0.5)
    return model


def scheduler(kind: str):
    if kind == "unipc":
        return UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
        )
    return FlowMatchEulerDiscreteScheduler(shift=5.0)


def inputs(batch: int = 1, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 4, 3, 4, 4, generator=generator),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, 7, 16, generator=generator),
    }


@torch.no_grad()
def run(model, batch=None) -> Tensor:
    return model(**(batch or inputs()), return_dict=False)[0]


class TestGains:
    def test_the_paper(self):
        alignment = TemperatureAlignment()
        for u in GRID:
            text = 1 + 0.15 * (1 + math.cos(math.pi * u / 0.4)) if u <= 0.4 else 1.0
            image = 1.0 if u <= 0.6 else 1 + 0.15 * (1 - math.cos(math.pi * (u - 0.6) / 0.4))
            assert alignment.text_gain(u) == pytest.approx(text, abs=1e-12)
            assert alignment.image_gain(u) == pytest.approx(image, abs=1e-12)
        assert [alignment.text_gain(u) for u in (0.0, 0.2, 0.4)] == pytest.approx([1.3, 1.15, 1.0])
        assert alignment.image_gain(1.0) == pytest.approx(1.3)

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_every_schedule_has_the_same_ends(self, schedule):
        alignment = TemperatureAlignment(schedule)
        start, end = alignment.text_gain(0.0), alignment.text_gain(1.0)
        assert start == pytest.approx(1.0 if schedule == "none" else 1.3)
        assert end == pytest.approx(1.3 if schedule == "constant" else 1.0)
        # The picture's gain mirrors the text's where both last as long.
        for middle in (each + 0.005 for each in GRID[:-1]):
            assert alignment.image_gain(1 - middle) == pytest.approx(alignment.text_gain(middle))

    def test_straight_lines_and_steps(self):
        linear, step = TemperatureAlignment("linear"), TemperatureAlignment("step")
        for u in GRID:
            assert linear.text_gain(u) == pytest.approx(1 + 0.3 * max(0.0, 1 - u / 0.4))
            assert step.text_gain(u) == pytest.approx(1.3 if u <= 0.4 else 1.0)

    def test_progress_of_a_flow_time(self):
        time = torch.linspace(0, 1, 21)
        for shift in (1.0, 3.0, 5.0):
            assert torch.allclose(1 - flow_progress(shift_time(time, shift), shift), time, atol=1e-6)

    @pytest.mark.parametrize(
        "settings", [{"schedule": "sine"}, {"text_strength": -0.1}, {"text_until": 0.0}, {"image_from": 1.0}]
    )
    def test_impossible_settings(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            TemperatureAlignment(**settings)


def attention_by_hand(attention, states: Tensor, context: Tensor, gain: Tensor, rotary=None) -> Tensor:
    """softmax(gain * Q K^T / sqrt(d)) V in float64, ``gain`` per key; turns by complex numbers where ``rotary``."""
    query, key = attention.norm_q(attention.to_q(states)), attention.norm_k(attention.to_k(context))
    query, key, value = (
        each.double().unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for each in (query, key, attention.to_v(context))
    )
    if rotary is not None:
        turn = torch.complex(rotary[0][..., 0::2], rotary[1][..., 0::2])[:, :, 0][None].squeeze(1)
        query, key = (
            torch.view_as_real(
                torch.view_as_complex(each.unflatten(-1, (-1, 2)).contiguous()) * turn
            ).flatten(-2)
            for each in (query, key)
        )
    scores = query @ key.mT / query.shape[-1] ** 0.5 * gain
    output = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2).float()
    return attention.to_out[0](output)


class TestAttention:
    @torch.no_grad()
    def test_text_logits_are_multiplied(self):
        model = tiny_transformer()
        attention = model.blocks[1].attn2
        states, context = torch.randn(2, 12, 24), torch.randn(2, 7, 24)
        plain = attention_by_hand(attention, states, context, torch.ones(7))
        expected = attention_by_hand(attention, states, context, torch.full((7,), 1.15))
        with align(model) as aligned:
            aligned.set(0.2)
            given = attention(states, context)
        assert torch.allclose(given, expected, atol=1e-5)
        assert (expected - plain).abs().max() > 0.01

    @torch.no_grad()
    def test_logits_of_the_first_frames_keys_are_multiplied(self):
        model = tiny_transformer()
        attention = model.blocks[0].attn1
        latents, states = inputs()["hidden_states"], torch.randn(1, 12, 24)
        rotary = model.rope(latents)
        gain = torch.ones(12)
        plain = attention_by_hand(attention, states, states, gain, rotary)
        gain[:4] = 1.15  # u = 0.8; 2 x 2 tokens a frame
        expected = attention_by_hand(attention, states, states, gain, rotary)
        with align(model, reference=True) as aligned:
            aligned.set(0.8)
            run(model)  # the size of a frame is known from a forward of the model
            given = attention(states, None, None, rotary)
        assert torch.allclose(given, expected, atol=1e-5)
        assert (expected - plain).abs().max() > 0.005

    @torch.no_grad()
    def test_image_cross_attention_where_the_model_has_one(self):
        model = tiny_transformer(image_dim=8, added_kv_proj_dim=24)
        attention = model.blocks[0].attn2
        states, context = torch.randn(1, 12, 24), torch.randn(1, 3 + 512, 24)
        before = attention(states, context)
        key, value = attention.add_k_proj(context[:, :3]), attention.add_v_proj(context[:, :3])
        query, key = attention.norm_q(attention.to_q(states)), attention.norm_added_k(key)
        query, key, value = (each.unflatten(2, (2, -1)).transpose(1, 2) for each in (query, key, value))
        picture = [(gain * query @ key.mT / 12**0.5).softmax(-1) @ value for gain in (1.0, 1.15)]
        change = attention.to_out[0]((picture[1] - picture[0]).transpose(1, 2).flatten(2))
        with align(model, reference=True) as aligned:
            aligned.set(0.8)
            given = attention(states, context)
        assert torch.allclose(given, before + change - attention.to_out[0].bias, atol=1e-5)
        assert not torch.allclose(given, before, atol=1e-3)

    def test_a_gain_of_one_changes_no_bit(self):
        model = tiny_transformer()
        before = run(model)
        with align(model, reference=True) as aligned:
            aligned.set(0.5)
            assert [float(gain) for gain in aligned.gains] == [1.0, 1.0]
            assert torch.equal(run(model), before)
            aligned.set(0.1)
            assert not torch.equal(run(model), before)
        assert torch.equal(run(model), before)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_gain_of_one_in_this_precision(self, dtype):
        model = tiny_transformer().to(dtype)
        batch = {name: each.to(dtype) for name, each in inputs(2).items()}
        before = run(model, batch)
        with align(model) as aligned:
            aligned.set(torch.tensor([0.5, 0.6]), torch.tensor([True, False]))
            after = run(model, batch)
        assert after.dtype == dtype and torch.equal(after, before)

    def test_each_sample_at_its_own_time(self):
        model = tiny_transformer()
        batch = inputs(2)
        with align(model) as aligned:
            aligned.set(torch.tensor([0.1, 0.9]), torch.tensor([False, True]))
            together = run(model, batch)
            for row, (progress, reference) in enumerate([(0.1, False), (0.9, True)]):
                aligned.set(progress, reference)
                alone = run(model, {name: each[row : row + 1] for name, each in batch.items()})
                assert torch.allclose(together[row], alone[0], atol=1e-5)

    def test_it_can_be_trained_through(self):
        model = tiny_transformer()
        with align(model) as aligned:
            aligned.set(torch.tensor([0.1, 0.9]), torch.tensor([True, True]))
            model(**inputs(2), return_dict=False)[0].square().mean().backward()
        assert model.blocks[0].attn1.to_k.weight.grad.abs().sum() > 0

    def test_no_weight_changes_and_none_is_added(self):
        model = tiny_transformer()
        before = {name: each.clone() for name, each in model.state_dict().items()}
        with align(model, reference=True) as aligned:
            aligned.set(0.1)
            run(model)
            after = model.state_dict()
            assert after.keys() == before.keys()
            assert all(torch.equal(after[name], before[name]) for name in before)

    def test_compiled_once_for_all_gains(self):
        from torch._dynamo.testing import CompileCounter

        counter = CompileCounter()
        model = tiny_transformer()
        expected = []
        with align(model, reference=True) as aligned:
            for u in (0.0, 0.1, 0.2, 0.7, 0.9):
                aligned.set(u)
                expected.append(run(model))
            compiled = torch.compile(model, backend=counter)
            frames = []
            for u, eager in zip((0.0, 0.1, 0.2, 0.7, 0.9), expected, strict=True):
                aligned.set(u)
                assert torch.allclose(run(compiled), eager, atol=1e-5)
                frames.append(counter.frame_count)
        assert len(set(frames)) == 1


def text_pipeline(kind: str) -> WanPipeline:
    return WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        scheduler=scheduler(kind),
        transformer=tiny_transformer(),
    )


def image_pipeline(kind: str) -> WanImageToVideoPipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4,
                           latents_std=[1.0] * 4, temperal_downsample=[False, True, True])  # fmt: skip
    return WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae,
        scheduler=scheduler(kind),
        transformer=tiny_transformer(),
        expand_timesteps=True,
    )


def sample(pipe, callback=None, steps: int = STEPS) -> Tensor:
    """Latents of a run with guidance; a pipeline from pictures gets a grey one."""
    pipe.set_progress_bar_config(disable=True)
    embeds = torch.randn(2, 1, 7, 16, generator=torch.Generator().manual_seed(1))
    more = {"image": Image.new("RGB", (32, 32), (90, 120, 150))} if "ImageTo" in type(pipe).__name__ else {}
    return pipe(
        prompt_embeds=embeds[0],
        negative_prompt_embeds=embeds[1],
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(2),
        output_type="latent",
        callback_on_step_end=callback,
        **more,
    ).frames


def seen_gains(pipe, aligned: AlignedAttention) -> list[tuple[float, float]]:
    """What acts at each forward of the transformer from now on."""
    seen: list[tuple[float, float]] = []
    pipe.transformer.register_forward_hook(lambda *_: seen.append(tuple(map(float, aligned.gains))))
    return seen


@pytest.mark.parametrize("kind", ["unipc", "euler"])
class TestPipelines:
    def test_two_lines(self, kind):
        pipe = text_pipeline(kind)
        plain = sample(pipe)
        aligned = align(pipe)
        seen = seen_gains(pipe, aligned)
        film = sample(pipe)
        alignment = TemperatureAlignment()
        expected = [alignment.text_gain(step / STEPS) for step in range(STEPS)]
        # Both branches of guidance, one after the other, under the gain of their step.
        assert [text for text, _ in seen[0::2]] == pytest.approx(expected)
        assert [text for text, _ in seen[1::2]] == pytest.approx(expected)
        assert {picture for _, picture in seen} == {1.0}
        assert film.isfinite().all() and not torch.allclose(film, plain, atol=1e-3)
        aligned.remove()
        assert torch.equal(sample(pipe), plain)

    def test_a_strength_of_zero_and_no_schedule_change_no_bit(self, kind):
        pipe = text_pipeline(kind)
        plain = sample(pipe)
        for alignment in (TemperatureAlignment("none"), TemperatureAlignment(text_strength=0.0)):
            with align(pipe, alignment):
                assert torch.equal(sample(pipe), plain)

    def test_a_picture_gains_late(self, kind):
        pipe = image_pipeline(kind)
        plain = sample(pipe)
        aligned = align(pipe, TemperatureAlignment(text_strength=0.0))
        seen = seen_gains(pipe, aligned)
        film = sample(pipe)
        alignment = TemperatureAlignment()
        expected = [alignment.image_gain(step / STEPS) for step in range(STEPS)]
        assert [picture for _, picture in seen[0::2]] == pytest.approx(expected)
        assert not torch.equal(film, plain)

    def test_a_broken_run_leaves_nothing_behind(self, kind):
        pipe = text_pipeline(kind)
        aligned = align(pipe)
        first = sample(pipe)

        def stop(pipe, step, time, values):
            if step == 3:
                raise KeyboardInterrupt
            return values

        with pytest.raises(KeyboardInterrupt):
            sample(pipe, stop)
        seen = seen_gains(pipe, aligned)
        assert torch.equal(sample(pipe), first)
        assert seen[0][0] == pytest.approx(1.3)

    def test_another_number_of_steps(self, kind):
        pipe = text_pipeline(kind)
        aligned = align(pipe)
        seen = seen_gains(pipe, aligned)
        sample(pipe, steps=4)
        alignment = TemperatureAlignment()
        assert [text for text, _ in seen[::2]] == pytest.approx(
            [alignment.text_gain(step / 4) for step in range(4)]
        )


class TestMistakes:
    def test_no_wan_model(self):
        with pytest.raises(UserError, match="needs a Wan transformer"):
            align(torch.nn.Linear(2, 2))

    def test_aligned_twice(self):
        model = tiny_transformer()
        aligned = align(model)
        with pytest.raises(UsageError, match="already aligned"):
            align(model)
        aligned.remove()
        align(model)

    def test_progress_out_of_range(self):
        with pytest.raises(UsageError, match="outside 0 to 1"):
            align(tiny_transformer()).set(1.5)
