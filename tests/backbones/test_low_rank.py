"""Low-rank differences in linear layers: they start as nothing, are all that learns, and are matrices when written."""

import pytest
import torch
from torch import nn

from unireel.backbones.low_rank import LowRankLinear, add_low_rank, approximate, as_matrices
from unireel.errors import UsageError


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"one": nn.Linear(6, 8), "two": nn.Sequential(nn.GELU(), nn.Linear(8, 4, bias=False))}
    )


def run(network, inputs):
    return network["two"](network["one"](inputs))


def test_they_start_as_nothing_and_are_all_that_learns(network):
    inputs = torch.randn(5, 6)
    before = run(network, inputs)
    weights = {name: each.clone() for name, each in network.state_dict().items()}
    assert add_low_rank(network, {"one": 2, "two.*": 3}) == ["one", "two.1"]
    torch.testing.assert_close(run(network, inputs), before)
    learns = {name: tuple(each.shape) for name, each in network.named_parameters() if each.requires_grad}
    assert learns == {"one.up": (8, 2), "one.down": (2, 6), "two.1.up": (4, 3), "two.1.down": (3, 8)}
    optimizer = torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        run(network, inputs).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(run(network, inputs), before)
    for name, each in weights.items():
        assert torch.equal(network.state_dict()[name], each), name


def test_written_they_are_ordinary_layers_of_the_same_function(network):
    names = set(network.state_dict())
    start = network["one"].weight.detach().clone()
    add_low_rank(network, {"*": 2})
    for layer in (network["one"], network["two"][1]):
        nn.init.normal_(layer.up)
    inputs = torch.randn(5, 6)
    output = run(network, inputs)
    with as_matrices(network):
        assert type(network["one"]) is nn.Linear and set(network.state_dict()) == names
        torch.testing.assert_close(run(network, inputs), output)
        difference = network["one"].weight - start
    assert isinstance(network["one"], LowRankLinear)
    assert int(torch.linalg.matrix_rank(difference)) == 2


@pytest.mark.parametrize("own", [0, 1, 2])
def test_a_difference_of_lower_rank_is_kept_and_the_rest_can_learn(network, own):
    base = network["one"].weight.detach().clone()
    with torch.no_grad():
        network["one"].weight += torch.randn(8, own) @ torch.randn(own, 6)
    whole = network["one"].weight.detach().clone()
    add_low_rank(network, {"one": 3})
    layer = network["one"]
    approximate(layer, base)
    assert torch.equal(layer.weight, base)
    torch.testing.assert_close(layer.whole(), whole, rtol=1e-4, atol=1e-5)
    layer(torch.randn(5, 6)).square().mean().backward()
    assert (layer.up.grad.norm(dim=0) > 0).all()


@pytest.mark.parametrize("ranks", [{"three": 2}, {"one": 0}])
def test_bad_ranks(network, ranks):
    with pytest.raises(UsageError, match="low_rank"):
        add_low_rank(network, ranks)
