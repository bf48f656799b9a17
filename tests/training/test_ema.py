"""The running average against its closed form."""

import torch

from unireel.training.ema import Ema


def test_average_is_the_weighted_sum_of_all_past_weights():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    ema = Ema({"w": weight}, decay=0.9, warmup=4)
    history = []
    for step in range(30):
        with torch.no_grad():
            weight.copy_(torch.randn(3, 4))
        history.append(weight.detach().double().clone())
        ema.update(step)
    expected, remaining = torch.zeros(3, 4, dtype=torch.float64), 1.0
    for step in reversed(range(30)):
        decay = min(0.9, step / (step + 4))
        expected += remaining * (1 - decay) * history[step]
        remaining *= decay
    assert remaining == 0.0, "the initial weights must have no part in the average"
    torch.testing.assert_close(ema.state()["w"].double(), expected, rtol=1e-5, atol=1e-6)


def test_without_warmup_the_decay_is_constant():
    assert [Ema({}, 0.5, 0).rate(step) for step in range(1, 4)] == [0.5, 0.5, 0.5]


def test_applied_puts_the_average_in_and_the_weights_back():
    layers = {"a": torch.nn.Parameter(torch.randn(5)), "b": torch.nn.Parameter(torch.randn(2, 2).bfloat16())}
    ema = Ema(layers, decay=0.99, warmup=0)
    before = {name: p.detach().clone() for name, p in layers.items()}
    ema.update(0)
    with torch.no_grad():
        for parameter in layers.values():
            parameter.mul_(3)
    tripled = {name: p.detach().clone() for name, p in layers.items()}
    with ema.applied():
        for name, parameter in layers.items():
            assert torch.equal(parameter, before[name])
    for name, parameter in layers.items():
        assert torch.equal(parameter, tripled[name])


def test_bfloat16_weights_are_averaged_in_float32():
    weight = torch.nn.Parameter(torch.ones(1).bfloat16())
    ema = Ema({"w": weight}, decay=0.999, warmup=0)
    ema.update(0)
    with torch.no_grad():
        weight.fill_(2)
    for step in range(1, 100):
        ema.update(step)
    torch.testing.assert_close(ema.state()["w"], torch.tensor([2 - 0.999**99]), rtol=1e-5, atol=0)
