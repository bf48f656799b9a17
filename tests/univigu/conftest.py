"""A small model with two streams, for whoever samples from it."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

import pytest
import torch

from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.wan import pocket_transformer


def small(vocabulary: int, **settings) -> UniWanTransformer:
    """Random in every part: what starts at zero or as a copy is moved away from it."""
    torch.manual_seed(0)
    video = pocket_transformer(48, 2, 2, 64, 4, 2, 24)
    model = with_text(video, vocabulary, **({"text_mask": True, "text_slots": 64} | settings)).eval()
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.startswith(("text", "slot")) or name.endswith("_t") or "ffn_t" in name:
                each.add_(0.3 * torch.randn_like(each))
    return model


@pytest.fixture(scope="package")
def make():
    return small
