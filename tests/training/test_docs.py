"""The example of docs/training.md does what it says."""

import re
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import load_file

from unireel.training import Recipe, run
from unireel.training.recipe import OptimizerConfig, ScheduleConfig

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
IMPORTS = """\
from dataclasses import dataclass
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from unireel.training import Stage
"""


def test_the_stage_in_the_documentation_learns_its_line(tmp_path, monkeypatch):
    example = re.search(r"```python\n(@dataclass.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    module = types.ModuleType("documented")
    monkeypatch.setitem(sys.modules, "documented", module)
    exec(IMPORTS + example.group(1), module.__dict__)
    settings = {"optimizer": OptimizerConfig(lr=0.1, weight_decay=0.0), "schedule": ScheduleConfig(warmup=5)}
    assert run(Recipe("documented:LineStage", tmp_path / "line", steps=150, tensorboard=False, **settings))
    weights = load_file(tmp_path / "line" / "export" / "line.safetensors")
    torch.testing.assert_close(weights["weight"], torch.tensor([[3.0]]), rtol=0, atol=0.05)
