"""The context: its layout, its budgets, and that a decoder does not see its padding."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel

from unireel.backbones.context_mask import ContextMask
from unireel.backbones.fast import accelerate
from unireel.errors import UserError
from unireel.systems.omnivideo.context import Assembler, Context, Row
from unireel.systems.omnivideo.profile import PROFILES, profile_of

BUDGETS = {"source": 6, "visual": 4, "text": 5}


def rows() -> list[Row]:
    def segment(count: int, value: float) -> torch.Tensor:
        return torch.full((count, 3), value)

    return [
        Row(segment(6, 1.0), segment(2, 2.0), segment(4, 3.0)),
        Row(None, segment(4, 2.0), segment(1, 3.0)),
    ]


def test_source_then_visual_tokens_then_text():
    context = Assembler(PROFILES["paper"], BUDGETS)(rows())
    assert context.tokens[..., 0].tolist() == [
        [1.0] * 6 + [2.0] * 2 + [3.0] * 4,
        [2.0] * 4 + [3.0] + [0.0] * 7,
    ]
    assert context.mask is not None
    assert context.mask.sum(1).tolist() == [12, 5]


def test_the_release_pads_to_its_length_without_a_mask_and_marks_segments():
    marks = {name: torch.full((1, 3), 9.0) for name in ("<img_st>", "<img_ed>", "<ipl_st>", "<ipl_ed>")}
    profile = replace(PROFILES["released"], length=20)
    context = Assembler(profile, BUDGETS, marks)(rows())
    assert context.mask is None
    first = [9.0] + [1.0] * 6 + [9.0, 9.0] + [2.0] * 2 + [9.0] + [3.0] * 4 + [0.0] * 4
    assert context.tokens[0, :, 0].tolist() == first
    assert profile_of("released").length == 2560


@pytest.mark.parametrize(("name", "count"), [("source", 7), ("visual", 5), ("text", 6)])
def test_nothing_is_cut(name, count):
    row = replace(rows()[0], **{name: torch.zeros(count, 3)})
    with pytest.raises(
        UserError, match=rf"the {name} needs {count} tokens of context and may have {count - 1}"
    ):
        Assembler(PROFILES["paper"], BUDGETS)([row])


def test_a_context_longer_than_the_released_length():
    with pytest.raises(UserError, match=r"the context needs 12 tokens of 11"):
        Assembler(replace(PROFILES["released"], length=11), BUDGETS)(rows())


def test_text_is_never_missing():
    with pytest.raises(ValueError, match="empty prompt"):
        Assembler(PROFILES["paper"], BUDGETS)([Row(torch.zeros(2, 3))])


def test_batches_of_branches_are_padded_to_the_longest():
    assembler = Assembler(PROFILES["paper"], BUDGETS)
    together = Context.cat([assembler(rows()), assembler(rows()[1:])])
    assert together.tokens.shape == (3, 12, 3)
    assert together.mask is not None
    assert together.mask.sum(1).tolist() == [12, 5, 5]


@torch.no_grad()
@pytest.mark.parametrize("fast", [False, True])
def test_a_masked_decoder_is_the_stock_one_without_padding(generator, fast):
    torch.manual_seed(0)
    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 8,
    }
    stock = WanTransformer3DModel(**sizes, freq_dim=16, ffn_dim=16, num_layers=2, rope_max_seq_len=16).eval()
    masked = WanTransformer3DModel.from_config(stock.config).eval()
    masked.load_state_dict(stock.state_dict())
    mask = ContextMask(masked)
    if fast:
        accelerate(masked)
    latents = torch.randn((2, 4, 2, 4, 4), generator=generator)
    text = torch.randn((2, 5, 8), generator=generator)
    time = torch.tensor([500, 300])

    def run(model, rows, tokens):
        return model(latents[rows], time[rows], tokens, return_dict=False)[0]

    with mask.of(torch.tensor([[True] * 5, [True] * 3 + [False] * 2])):
        got = run(masked, slice(None), text)
    torch.testing.assert_close(got[:1], run(stock, slice(0, 1), text[:1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1:], run(stock, slice(1, 2), text[1:, :3]), rtol=1e-4, atol=1e-5)
    everything = run(stock, slice(None), text)
    torch.testing.assert_close(run(masked, slice(None), text), everything, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got[1], everything[1], atol=1e-3)
