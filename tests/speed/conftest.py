"""Small Wan models of random weights, stock and accelerated."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from comparing import Inputs
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import attention_backend

from unireel.backbones.fast import accelerate


@pytest.fixture(autouse=True)
def own_attention_backend() -> Iterator[None]:
    """A model's ``set_attention_backend`` also sets that of all models of the process: here until the test's end."""
    with attention_backend():
        yield


@pytest.fixture(scope="session")
def weights() -> WanTransformer3DModel:
    """Two blocks of two heads of 32, texts of 24 channels."""
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4, text_dim=24,
        freq_dim=32, ffn_dim=96, num_layers=2, rope_max_seq_len=64,
    ).eval()  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight")):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@pytest.fixture
def stock(weights: WanTransformer3DModel) -> WanTransformer3DModel:
    """A copy that is diffusers' own."""
    return copy.deepcopy(weights)


@pytest.fixture
def fast(weights: WanTransformer3DModel) -> WanTransformer3DModel:
    """An accelerated copy."""
    model = copy.deepcopy(weights)
    accelerate(model)
    return model


@pytest.fixture(scope="session")
def inputs() -> Callable[..., Inputs]:
    """What a transformer takes: latents of 3 x 4 x 6 (18 tokens), texts of 40 rows of which ``used`` are not zero."""

    def make(batch: int = 2, used: int = 7, length: int = 40, seed: int = 1) -> Inputs:
        random = torch.Generator().manual_seed(seed)
        text = torch.randn(batch, length, 24, generator=random)
        text[:, used:] = 0
        latents = torch.randn(batch, 4, 3, 4, 6, generator=random)
        return {
            "hidden_states": latents,
            "timestep": torch.full((batch,), 700.0),
            "encoder_hidden_states": text,
        }

    return make
