"""Optimisers against torch.optim, against singular value decompositions, and the choice of groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stages import GroupedStage, Network, RegressionConfig

from unireel.training.optimizers import Muon, Optimizers, orthogonalise
from unireel.training.recipe import OptimizerConfig
from unireel.training.stage import ParameterRule


def _twins(width: int = 12) -> tuple[Network, Network]:
    torch.manual_seed(0)
    one, two = Network(width), Network(width)
    two.load_state_dict(one.state_dict())
    return one, two


def _backward(network: Network, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, label = torch.randn(4, 6, generator=generator), torch.randint(0, 5, (4,), generator=generator)
    network.eval()(x, label).square().sum().backward()


def test_adamw_is_torchs_adamw_with_decay_on_matrices_only():
    ours, theirs = _twins()
    config = OptimizerConfig(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    optimizer = Optimizers(ours, config)
    decayed = [p for m in theirs.modules() for n, p in m.named_parameters(recurse=False)
               if n == "weight" and isinstance(m, torch.nn.Linear | torch.nn.Conv1d)]  # fmt: skip
    rest = [p for p in theirs.parameters() if all(p is not d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), eps=1e-6, foreach=False)
    for step in range(5):
        for group in reference.param_groups:
            group["lr"] = 0.01 * (1 - step / 10)
        _backward(ours, step)
        _backward(theirs, step)
        optimizer.step(1 - step / 10)
        reference.step()
        reference.zero_grad()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_muon(shape, nesterov):
    torch.manual_seed(1)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    options = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    optimizer = Muon([ours], steps=5, **options)
    reference = torch.optim.Muon([theirs], ns_steps=5, **options)
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    # torch iterates in bfloat16, of relative precision 2^-8; an update is about 0.05 per singular value.
    assert (ours - theirs).norm() / (0.05 * 4 * min(shape) ** 0.5) < 0.03


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(4, 6), st.integers(0, 10**6))
def test_orthogonalise_keeps_singular_vectors_and_maps_singular_values(rows, columns, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, rank, generator=generator, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(columns, rank, generator=generator, dtype=torch.float64))
    values = torch.rand(rank, generator=generator, dtype=torch.float64) * 0.9 + 0.1
    result = orthogonalise((7.0 * u @ torch.diag(values) @ v.T)[None], steps)[0]
    a, b, c = 3.4445, -4.7750, 2.0315
    expected = values / values.norm()
    for _ in range(steps):
        expected = a * expected + b * expected**3 + c * expected**5
    torch.testing.assert_close(result, u @ torch.diag(expected) @ v.T, rtol=1e-6, atol=1e-6)
    if steps == 5:
        assert expected.min() > 0.6 and expected.max() < 1.3


@pytest.mark.parametrize("shape", [(6, 6), (4, 20), (20, 4)])
def test_orthogonalise_nearly_singular_matrices_in_float32(shape):
    torch.manual_seed(5)
    rank = min(shape)
    u, _ = torch.linalg.qr(torch.randn(shape[0], rank, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(shape[1], rank, dtype=torch.float64))
    exact = u @ torch.diag(torch.logspace(0, -9, rank, dtype=torch.float64)) @ v.T
    in_double = orthogonalise(exact[None], 5)
    torch.testing.assert_close(orthogonalise(exact.float()[None], 5).double(), in_double, rtol=0, atol=2e-3)


def test_orthogonalise_zero_is_zero():
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 9), 5), torch.zeros(2, 3, 9))


def test_orthogonalise_a_batch_is_each_matrix_alone():
    for columns in (5, 9):
        matrices = torch.randn(3, 5, columns)
        together = orthogonalise(matrices, 4)
        for one, matrix in zip(together, matrices, strict=True):
            torch.testing.assert_close(one, orthogonalise(matrix[None], 4)[0], rtol=1e-4, atol=1e-5)


def test_convolutions_are_matrices_to_muon():
    torch.manual_seed(2)
    kernel = torch.nn.Parameter(torch.randn(6, 3, 2, 2))
    flat = torch.nn.Parameter(kernel.detach().reshape(6, 12).clone())
    grad = torch.randn(6, 3, 2, 2)
    kernel.grad, flat.grad = grad, grad.reshape(6, 12).clone()
    for parameter in (kernel, flat):
        Muon([parameter], 0.1, 0.9, True, 0.0, 5).step()
    torch.testing.assert_close(kernel.reshape(6, 12), flat)


def _assignment(optimizers: Optimizers) -> dict[str, tuple[str, float, float]]:
    return {
        optimizers.names[p]: (type(optimizer).__name__, group["base_lr"], group["weight_decay"])
        for optimizer in optimizers.parts
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    config = OptimizerConfig("muon", lr=1e-3, weight_decay=0.1, muon_lr=0.02, muon_weight_decay=0.3)
    found = _assignment(Optimizers(Network(8), config))
    assert found["blocks.0.up.weight"] == found["blocks.1.down.weight"] == ("Muon", 0.02, 0.3)
    assert found["conv.weight"] == ("Muon", 0.02, 0.3)
    assert found["head.weight"] == ("AdamW", 1e-3, 0.1)
    assert found["embedding.weight"] == ("AdamW", 1e-3, 0.0)
    assert found["blocks.0.norm.weight"] == found["blocks.0.up.bias"] == ("AdamW", 1e-3, 0.0)
    assert set(found) == {name for name, _ in Network(8).named_parameters()}


def test_rules_change_rate_decay_and_optimiser_and_the_first_match_wins():
    rules = [
        ParameterRule("blocks.0.*", lr=0.1, weight_decay=False, muon=False),
        ParameterRule("blocks.*", lr=3.0),
        ParameterRule("head.*", lr=0.0),
    ]
    found = _assignment(Optimizers(Network(8), OptimizerConfig("muon", lr=1e-3, muon_lr=0.02), rules))
    assert found["blocks.0.up.weight"] == ("AdamW", pytest.approx(1e-4), 0.0)
    assert found["blocks.1.up.weight"] == ("Muon", pytest.approx(0.06), 0.01)
    assert "head.weight" not in found


def test_a_frozen_rule_freezes_and_is_not_counted():
    stage = GroupedStage(RegressionConfig())
    optimizers = Optimizers(stage.module, OptimizerConfig(), stage.parameter_groups())
    before = stage.module.state_dict()["head.weight"].clone()
    _backward(stage.module, 0)  # type: ignore[arg-type]
    optimizers.step(1.0)
    assert torch.equal(stage.module.state_dict()["head.weight"], before)
    assert "head.weight" not in optimizers.names.values()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_round_trip_continues_bit_for_bit(name):
    one, two = _twins()
    config = OptimizerConfig(name)
    first, second = Optimizers(one, config), Optimizers(two, config)
    for step in range(3):
        _backward(one, step)
        first.step(1.0)
    two.load_state_dict(one.state_dict())
    second.load({key: tensor.clone() for key, tensor in first.state().items()})
    for network, optimizers in ((one, first), (two, second)):
        _backward(network, 9)
        optimizers.step(0.5)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
