"""A whole but tiny and untrained Omni-Video, and a film."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportReturnType=false

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unireel.clip import Clip
from unireel.systems.omnivideo.building import Sizes
from unireel.systems.omnivideo.pipeline import OmniVideo
from unireel.systems.omnivideo.settings import Budgets, Settings

SMALL = Sizes(head_layers=1, head_ffn=32, expansion=4, adapter_layers=1, adapter_ffn=32, heads=2)


@pytest.fixture(scope="session")
def clip() -> Clip:
    from unireel.world.render import render
    from unireel.world.sampling import sample_scene

    return render(sample_scene(5, 1, "test", size=48))


@pytest.fixture(scope="session")
def make_model(untrained: Path):
    """``make_model(**settings)``: an untrained model, the same for the same settings."""
    import unireel

    def make(**settings) -> OmniVideo:
        return OmniVideo.from_base(
            unireel.load(untrained), replace(Settings(budgets=Budgets(visual=20)), **settings), SMALL
        )

    return make


@pytest.fixture(scope="session")
def model(make_model) -> OmniVideo:
    return make_model()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
