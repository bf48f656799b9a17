"""Vision head, adapters: sizes of the published model, and their results against the parts they are made of."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unireel.errors import UsageError
from unireel.systems.omnivideo.heads import (
    ADAPTER_PARAMETERS,
    VISION_HEAD_PARAMETERS,
    ContextAdapter,
    VisionHead,
    vision_loss,
)
from unireel.systems.omnivideo.visual_context import (
    VISUAL_CONTEXT_PARAMETERS,
    VisualContextAdapter,
    place_code,
)


def count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_sizes_of_the_published_model():
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")  # building warns of nothing
        assert count(VisionHead()) == VISION_HEAD_PARAMETERS == 154_840_320
        assert count(ContextAdapter()) == ADAPTER_PARAMETERS == 1_902_141_440
        assert count(VisualContextAdapter()) == VISUAL_CONTEXT_PARAMETERS["1.3B"] == 6_690_304
        assert count(VisualContextAdapter(hidden=5120)) == VISUAL_CONTEXT_PARAMETERS["A14B"] == 22_291_456


def stock(head: VisionHead | ContextAdapter, width: int, heads: int, layers: int, ffn: int) -> nn.Transformer:
    """PyTorch's own transformer with the weights of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = nn.Transformer(width, heads, layers, layers, ffn, 0.0, batch_first=True, norm_first=True)
    inner.load_state_dict(head.transformer.state_dict())
    return inner.eval()


@torch.no_grad()
def test_the_head_is_two_layers_and_a_stock_transformer(generator):
    head = VisionHead(12, 16, 3, 2, 2, 24).eval()
    states = torch.randn((2, 5, 12), generator=generator)
    first, _, second = head.fc
    hidden = F.linear(F.gelu(F.linear(states, first.weight, first.bias)), second.weight, second.bias)
    wanted = stock(head, 16, 2, 2, 24)(hidden, head.decoder_query.expand(2, -1, -1))
    torch.testing.assert_close(head(states), wanted)


@torch.no_grad()
def test_padding_is_not_read(generator):
    head = VisionHead(12, 16, 3, 2, 2, 24).eval()
    states = torch.randn((1, 7, 12), generator=generator)
    mask = torch.arange(7)[None] < 4
    torch.testing.assert_close(head(states, mask), head(states[:, :4]))


@torch.no_grad()
def test_each_visual_token_is_expanded_by_itself(generator):
    adapter = ContextAdapter(16, 8, 5, 1, 2, 12).eval()
    visual = torch.randn((2, 4, 16), generator=generator)
    tokens = adapter(visual)
    assert tokens.shape == (2, 20, 8)
    torch.testing.assert_close(tokens[1, 10:15], adapter(visual[1:, 2:3])[0])
    other = visual.clone()
    other[:, 3] += 1
    torch.testing.assert_close(adapter(other)[:, :15], tokens[:, :15])


def test_vision_losses_are_their_formulas(generator):
    visual, wanted = torch.randn((2, 2, 4, 6), generator=generator)
    squared = [sum((a - b) ** 2 for a, b in zip(v.flatten(), w.flatten(), strict=True)) / 24 for v, w in
               zip(visual, wanted, strict=True)]  # fmt: skip
    torch.testing.assert_close(vision_loss(visual, wanted), torch.stack(squared))
    one, other = visual.mean(1), wanted.mean(1)
    cosine = (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))
    torch.testing.assert_close(vision_loss(visual, wanted, "cosine"), 1 - cosine)
    torch.testing.assert_close(vision_loss(visual, other, "cosine"), 1 - cosine)
    assert float(vision_loss(visual, visual).sum()) == 0


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True])
def test_source_tokens_are_patches_of_latents(generator, positions):
    adapter = VisualContextAdapter(3, 10, 12, 2, positions, base=100.0)
    latents = torch.randn((1, 3, 2, 4, 6), generator=generator)
    tokens = adapter(latents)
    assert tokens.shape == (1, adapter.count(2, 4, 6), 12) == (1, 12, 12)
    patch = latents[0, :, 1, 2:4, 4:6].flatten()  # frame 1, row 1, column 2: the last token
    hidden = adapter.patch_embedding.weight.flatten(1) @ patch + adapter.patch_embedding.bias
    hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-6).sqrt()
    token = adapter.projection(hidden)
    token = (token - token.mean()) / (token.var(unbiased=False) + 1e-6).sqrt()
    if positions:
        rates = torch.tensor([1.0, 0.1])
        angles = [place * rates for place in (1, 1, 2)]
        token = token + torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())])
    torch.testing.assert_close(tokens[0, -1], token, rtol=1e-4, atol=1e-5)


def test_every_place_has_a_code_of_its_own():
    code = place_code(5, 6, 6, 128, 100.0)
    distances = torch.cdist(code, code) + 100 * torch.eye(len(code))
    assert float(distances.min()) > 0.5
    assert place_code(1, 1, 1, 8).shape == (1, 8)


def test_latents_smaller_than_a_patch():
    with pytest.raises(UsageError, match=r"2x2 are smaller than a patch of 4x4"):
        VisualContextAdapter(3, 8, 8, 4)(torch.zeros(1, 3, 1, 2, 2))


def test_folders(tmp_path, generator):
    adapter = VisualContextAdapter(3, 10, 12, 2)
    adapter.save_pretrained(tmp_path)
    latents = torch.randn((1, 3, 1, 2, 2), generator=generator)
    torch.testing.assert_close(VisualContextAdapter.from_pretrained(tmp_path)(latents), adapter(latents))
