"""Plans of large trainings against closed forms, published counts and a real step."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from unireel.config import from_dict, load_yaml
from unireel.training.plan_scale import ScalePlan, build, estimate, main, measure_step, shard

RECIPES = Path(__file__).parents[2] / "recipes" / "scale"
MODEL = {
    "num_attention_heads": 2, "attention_head_dim": 32, "in_channels": 4, "out_channels": 4, "ffn_dim": 96,
    "num_layers": 3, "text_dim": 24, "freq_dim": 32, "rope_max_seq_len": 64,
}  # fmt: skip
SMALL = ScalePlan(model=MODEL, latents=(3, 8, 8), text_rows=16, devices=(1, 4), ema=False)
N, T, D, F = 48, 16, 64, 96
"""Tokens, rows of text, width, width of the feed-forward layer."""


def test_operations_of_a_block_are_the_closed_form() -> None:
    one, two = measure_step(SMALL, 1), measure_step(SMALL, 2)
    products = 8 * N * D**2 + 4 * N * D**2 + 4 * T * D**2 + 4 * N * D * F
    attention = 4 * N**2 * D + 4 * N * T * D
    assert two.forward - one.forward == products + attention
    assert two.backward - one.backward == 2 * products + attention * 5 // 2


def test_all_blocks_are_alike() -> None:
    one, two, three = (measure_step(SMALL, blocks) for blocks in (1, 2, 3))
    assert one.with_blocks(two, 3) == three


def real_step() -> int:
    """Bytes that a step keeps for its way back."""
    model = WanTransformer3DModel(**MODEL | {"num_layers": 2}).to(torch.bfloat16).train()
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    latents, text = torch.randn(1, 4, 3, 8, 8).bfloat16(), torch.randn(1, 16, 24).bfloat16()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(latents, torch.ones(1).bfloat16(), text, return_dict=False)
    return sum(each.untyped_storage().nbytes() for place, each in kept.items() if place not in own)


def test_saved_activations_are_those_of_a_real_step() -> None:
    # In a process of its own: what PyTorch keeps depends on what ran in a process before.
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    assert measure_step(SMALL, 2).saved == pytest.approx(int(run.stdout), rel=0.05)


def test_bytes_are_those_of_the_shards() -> None:
    assert shard([torch.nn.Parameter(torch.zeros(10, 3))], 4) == 9
    counts, (alone, four) = estimate(SMALL)
    total = sum(each.numel() for each in build(SMALL).parameters())
    assert counts["parameters"] == counts["trained"] == total
    assert (alone.memory["weights"], alone.memory["optimiser"]) == (4 * total, 8 * total)
    assert four.memory["weights"] == 4 * shard(build(SMALL).parameters(), 4)
    assert alone.communication == 0 < four.communication
    kept = replace(SMALL, checkpointing=False)
    assert estimate(kept)[1][0].memory["activations"] > alone.memory["activations"]
    assert estimate(kept)[0]["operations"] < counts["operations"]


def test_adapters_train_little() -> None:
    counts, (alone, _) = estimate(replace(SMALL, train="lora", rank=4))
    assert counts["trained"] == 3 * 2 * 4 * 2 * 4 * D  # blocks, attentions, projections, halves, rank, width
    full, _ = estimate(SMALL)
    assert counts["operations"] < full["operations"]
    frozen = counts["parameters"] - counts["trained"]
    assert alone.memory["weights"] == 4 * counts["trained"] + 2 * frozen


def test_recipes_are_the_published_model() -> None:
    """Wan2.2-TI2V-5B has 4,999,787,712 parameters."""
    for name, extra in (("full", 0), ("lora", 30 * 2 * 4 * 2 * 32 * 3072)):
        plan = from_dict(ScalePlan, load_yaml(RECIPES / f"ti2v-5b-{name}.yaml"))
        assert sum(each.numel() for each in build(plan).parameters()) == 4_999_787_712 + extra


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = str(RECIPES / "ti2v-5b-full.yaml")
    for words, code, message in (
        ([str(tmp_path / "none.yaml")], 1, "none.yaml"),
        ([recipe, "share=2"], 2, "share is a part of the peak"),
        ([recipe, "train=half"], 2, "train"),
        ([recipe, "colour=red"], 2, "colour"),
    ):
        assert main(words) == code
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert message in error


if __name__ == "__main__":
    print(real_step())
