"""Accelerated Wan transformers compute what diffusers' own do, whatever else is put on them."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import copy
from collections.abc import Callable

import pytest
import torch
from comparing import Inputs, distance, outcome
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from torch import nn

from unireel.backbones.fast import accelerate
from unireel.backbones.fast.attention import attend
from unireel.backbones.fast.precision import halve
from unireel.backbones.fast.text import collapse_padding
from unireel.backbones.fast.times import MOST_RUNS, group_times
from unireel.backbones.wan import MatmulAttention
from unireel.errors import UsageError

EXACT = 1e-5

Make = Callable[..., Inputs]


def per_token(*samples: list[float]) -> torch.Tensor:
    """Times per token, each given time for as many of 18 tokens."""
    return torch.tensor([[time for time in times for _ in range(18 // len(times))] for times in samples])


TIMES = {
    "one": torch.tensor([700.0, 700.0]),
    "one of each sample": torch.tensor([700.0, 300.0]),
    "per token, all the same": per_token([700.0], [700.0]),
    "clean first frame": per_token([0.0, 700.0, 700.0], [0.0, 700.0, 700.0]),
    "clean first frame of one sample": per_token([0.0, 700.0, 700.0], [400.0, 400.0, 400.0]),
    "another for each token": torch.arange(36.0).view(2, 18),
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
@pytest.mark.parametrize("backend", [None, "native"], ids=["few operations", "module by module"])
def test_equal_to_diffusers(
    stock: WanTransformer3DModel,
    fast: WanTransformer3DModel,
    inputs: Make,
    times: torch.Tensor,
    backend: str | None,
) -> None:
    if backend:
        fast.set_attention_backend(backend)
    given = inputs() | {"timestep": times}
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT


@pytest.mark.parametrize("backend", [None, "native"], ids=["few operations", "module by module"])
def test_bfloat16_is_no_worse_than_diffusers_bfloat16(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make, backend: str | None
) -> None:
    given, exact = inputs(), outcome(stock, inputs())
    if backend:
        fast.set_attention_backend(backend)
    halve(stock)
    halve(fast)
    narrow = {name: each.bfloat16() if name != "timestep" else each for name, each in given.items()}
    theirs = distance(outcome(stock, narrow), exact)
    assert 1e-4 < distance(outcome(fast, narrow), exact) < 1.2 * theirs
    wide = outcome(fast, given)
    assert wide.dtype == torch.float32
    assert distance(wide, exact) < 1.2 * theirs
    assert stock.scale_shift_table.dtype == torch.float32 and stock.proj_out.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("keys", [40, 600], ids=["all heads at once", "head by head"])
@pytest.mark.parametrize("size", [1.0, 12.0], ids=["small logits", "large logits"])
def test_attention_as_products_is_a_softmax(keys: int, size: float) -> None:
    """In bfloat16, against float64; with large logits exponentials alone would overflow."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, count, 64) for count in (300, keys, keys))
    query, key, value = (size * query).bfloat16(), (size * key).bfloat16(), value.bfloat16()
    found = attend(query, key, value)
    weights = (query.double() @ key.double().transpose(-1, -2) / 8).softmax(-1)
    assert found.shape == query.shape and bool(found.isfinite().all())
    assert distance(found, weights @ value.double()) < (0.01 if size == 1 else 0.15)


@pytest.mark.parametrize("used", [0, 1, 30, 33, 40])
def test_any_amount_of_padding(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make, used: int
) -> None:
    given = inputs(used=used)
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT


def test_collapsed_padding_weighs_as_much() -> None:
    text = torch.zeros(2, 512, 4)
    text[0, :3], text[1, :9] = 1.0, 2.0
    kept, bias = collapse_padding(text)
    assert bias is not None
    assert kept.shape == (2, 16, 4)
    assert torch.equal(kept, text[:, :16])
    assert float(bias.exp().sum()) == pytest.approx(512)
    assert collapse_padding(torch.ones(1, 8, 4))[1] is None


def test_times_are_grouped_up_to_a_limit() -> None:
    for given, times, runs in (
        (per_token([0.0, 5.0, 5.0], [0.0, 5.0, 5.0]), [[0.0, 5.0]], ((0, 6), (6, 18))),
        (torch.tensor([3.0, 4.0]), [[3.0], [4.0]], ((0, 18),)),
    ):
        grouped = group_times(given, 18)
        assert grouped is not None
        assert (grouped[0].tolist(), grouped[1]) == (times, runs)
    assert group_times(torch.arange(MOST_RUNS + 1.0)[None], MOST_RUNS + 1) is None


def counted(module: nn.Module) -> list[int]:
    """A list that grows with every call of ``module``."""
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_text_is_embedded_once(
    fast: WanTransformer3DModel, stock: WanTransformer3DModel, inputs: Make
) -> None:
    embedded = counted(fast.condition_embedder.text_embedder)
    given = inputs()
    keys = counted(fast.blocks[0].attn2.to_v)
    for step in range(3):
        again = given | {"encoder_hidden_states": given["encoder_hidden_states"].clone()}
        outcome(fast, again | {"timestep": given["timestep"] - step})
    assert (len(embedded), len(keys)) == (1, 3)  # a hook on the values means that they are not kept
    given["encoder_hidden_states"][0, 0] += 1
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT
    assert len(embedded) == 2


def test_new_weights_are_seen(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make
) -> None:
    given = inputs()
    outcome(fast, given)
    other = {name: each + 0.1 * each.abs().mean() for name, each in stock.state_dict().items()}
    for model in (stock, fast):
        model.load_state_dict(other)
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT
    for model in (stock, fast):
        with torch.no_grad():
            model.blocks[1].attn1.to_k.weight.mul_(1.5)
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT
    for model in (stock, fast):
        model.double().float()
    assert distance(outcome(fast, given), outcome(stock, given)) < EXACT


def test_training_is_diffusers_own(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make
) -> None:
    outcome(fast, inputs())
    gradients = []
    for model in (stock, fast):
        model.train()(**inputs(), return_dict=False)[0].square().mean().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7), name


@pytest.mark.parametrize("backend", ["_native_flash", "_native_math"])
def test_attention_back_ends(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make, backend: str
) -> None:
    """The first takes no bias on the logits: there, padding stays."""
    for model in (stock, fast):
        model.set_attention_backend(backend)
    assert distance(outcome(fast, inputs()), outcome(stock, inputs())) < EXACT


def test_adapters(stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make) -> None:
    peft = pytest.importorskip("peft")
    given, plain = inputs(), outcome(fast, inputs())
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "text_embedder.linear_1"]
    for model in (stock, fast):
        torch.manual_seed(3)
        model.add_adapter(peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
        model.eval()
    adapted = outcome(stock, given)
    assert distance(adapted, plain) > 1e-2
    assert distance(outcome(fast, given), adapted) < EXACT
    half = {"attention_kwargs": {"scale": 0.5}}
    assert distance(outcome(fast, given, **half), outcome(stock, given, **half)) < EXACT
    fast.fuse_lora()
    fast.unload_lora()
    assert distance(outcome(fast, given), adapted) < EXACT


def test_group_offload(stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make) -> None:
    device = torch.device("cpu")
    for kind, options in (("block_level", {"num_blocks_per_group": 1}), ("leaf_level", {})):
        model = copy.deepcopy(fast) if kind == "block_level" else fast
        model.enable_group_offload(device, device, offload_type=kind, **options)
        for _ in range(2):
            assert distance(outcome(model, inputs()), outcome(stock, inputs())) < EXACT


def test_layers_in_eight_bits(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make
) -> None:
    """Stored in float8, computed in float32: layers have hooks that diffusers puts there."""
    for model in (stock, fast):
        model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert distance(outcome(fast, inputs()), outcome(stock, inputs())) < EXACT


def test_step_cache(stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make) -> None:
    given, results = inputs(), []
    for model in (stock, fast):
        model.enable_cache(FirstBlockCacheConfig(threshold=0.5))
        last = counted(model.blocks[1].ffn)
        with model.cache_context("cond"):
            results.append(
                [outcome(model, given | {"timestep": given["timestep"] - step}) for step in range(4)]
            )
        assert len(last) < 4
    for theirs, ours in zip(*results, strict=True):
        assert distance(ours, theirs) < EXACT


def test_temperature_alignment(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make
) -> None:
    """Its gains on the keys change with every step, so that keys must not be kept."""
    from unireel.systems.univid.temperature import align

    given = inputs()
    alignments = [align(model, reference=True) for model in (stock, fast)]
    for progress in (0.0, 0.3, 0.9):
        for each in alignments:
            each.set(progress)
        assert distance(outcome(fast, given), outcome(stock, given)) < EXACT


def test_blocks_are_one_graph(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make
) -> None:
    """All of a block is seen by a compiler, the same one for both prompts."""
    fast.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch._dynamo.utils.counters.clear()
    for used in (7, 4):
        given = inputs(used=used) | {"timestep": TIMES["clean first frame"]}
        assert distance(outcome(fast, given), outcome(stock, given)) < EXACT
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_taken_off_again(
    stock: WanTransformer3DModel, fast: WanTransformer3DModel, inputs: Make, tmp_path
) -> None:
    model, given = copy.deepcopy(stock), inputs()
    acceleration = accelerate(model)
    outcome(model, given)
    model.save_pretrained(tmp_path)
    reloaded = WanTransformer3DModel.from_pretrained(tmp_path).eval()
    for name, setting in stock.config.items():
        if not name.startswith("_"):
            assert reloaded.config[name] == (list(setting) if isinstance(setting, tuple) else setting), name
    acceleration.remove()
    for same in (model, reloaded):
        assert type(same) is type(stock)
        assert torch.equal(outcome(same, given), outcome(stock, given))


def test_misuse_is_one_clear_line(stock: WanTransformer3DModel, fast: WanTransformer3DModel) -> None:
    with pytest.raises(UsageError, match="accelerated already"):
        accelerate(fast)
    with pytest.raises(UsageError, match="only Wan transformers of diffusers can be accelerated, not Linear"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="object has no Wan transformer"):
        accelerate(object())
    own = type("Own", (MatmulAttention,), {})()
    stock.blocks[1].attn2.set_processor(own)
    with pytest.raises(UsageError, match="a processor of its own, Own: accelerate before that"):
        accelerate(stock)
    assert stock.blocks[1].attn2.processor is own
    stock.blocks[1].attn2.set_processor(MatmulAttention())
    stock.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(UsageError, match="accelerate before that"):
        accelerate(stock)
