"""A widened model computes what the narrow one does, and its copies part in training."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportOptionalMemberAccess=false

import pytest
import torch

from unireel.backbones.vae import pocket_autoencoder
from unireel.backbones.wan import pocket_transformer, predict, token_times
from unireel.backbones.widen import twice_as_wide, widened_reader, with_wider_decoder
from unireel.errors import UserError


def trained(ffn: int = 96):
    """A small transformer none of whose tables, biases and norms is at its start."""
    torch.manual_seed(0)
    model = pocket_transformer(64, 2, 2, ffn, 4, 2, 24).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.05 * torch.randn_like(each))
    return model


def inputs():
    time = token_times(torch.tensor([0.3, 0.8]), torch.tensor([True, False]), 3, 4)
    return torch.randn(2, 4, 3, 4, 4), time, torch.randn(2, 5, 24)


@torch.no_grad()
@pytest.mark.parametrize("ffn", [96, 128, 192])
def test_output_is_the_same(ffn: int):
    model, given = trained(), inputs()
    wide = twice_as_wide(model, ffn, torch.Generator().manual_seed(1)).eval()
    assert wide.config["num_attention_heads"] == 4 and wide.config["ffn_dim"] == ffn
    assert wide.blocks[0].attn1.to_q.weight.shape == (128, 128)
    expected = predict(model, *given)
    assert (predict(wide, *given) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_copies_get_different_gradients():
    wide = twice_as_wide(trained(), 128, torch.Generator().manual_seed(1))
    predict(wide, *inputs()).square().mean().backward()
    one, two = wide.blocks[0].attn1.to_v.weight.grad.chunk(2)
    assert (one - two).norm() > 0.1 * one.norm()


def test_shares_of_copies_add_up():
    weight, sources = torch.randn(5, 3), torch.tensor([0, 1, 2, 0])
    wide = widened_reader(weight, sources)
    assert torch.equal(wide[:, 1:3], weight[:, 1:])
    assert torch.allclose(wide[:, 0] + wide[:, 3], weight[:, 0], atol=1e-6)
    assert (wide[:, 0] - wide[:, 3]).abs().max() > 0


def test_impossible_widths_are_refused():
    with pytest.raises(UserError, match="between 96 and 192"):
        twice_as_wide(trained(), 193)


def autoencoder():
    """A small one none of whose biases and norms is at its start."""
    torch.manual_seed(0)
    model = pocket_autoencoder(8, 8, 4, 1).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.05 * torch.randn_like(each))
    return model


@torch.no_grad()
def test_a_wider_decoder_has_the_same_output_and_the_same_encoder():
    model, latents = autoencoder(), torch.randn(2, 4, 3, 4, 4)
    wide = with_wider_decoder(model, 24, torch.Generator().manual_seed(1)).eval()
    assert wide.decoder.conv_in.conv_s.weight.shape[0] == 24
    expected = model.decode(latents).sample
    assert (wide.decode(latents).sample - expected).abs().max() < 1e-5 * expected.abs().max()
    pixels = torch.rand(1, 3, 9, 16, 16)
    assert torch.equal(wide.encode(pixels).latent_dist.mode(), model.encode(pixels).latent_dist.mode())


def test_a_decoder_keeps_its_width_or_gets_wider():
    model = autoencoder()
    assert with_wider_decoder(model, 8) is model
    with pytest.raises(UserError, match="6 channels: a decoder with 8, 8 cannot be widened to that"):
        with_wider_decoder(model, 6)
