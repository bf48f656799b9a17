"""Flows on text against closed forms, on spaces small enough to write down every state."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from unireel.flow.discrete import DiscreteFlow
from unireel.flow.embedding import EmbeddingFlow, VelocityFlow
from unireel.flow.formulations import FORMULATIONS, text_flow
from unireel.flow.text import draw

V, L = 3, 2
DATA = torch.tensor(list(product(range(V), repeat=L)))
KINDS = pytest.mark.parametrize("uniform", [0.0, 1.0, 0.3], ids=["masked", "uniform", "hybrid"])
LAW = torch.tensor([0.3, 0.02, 0.08, 0.05, 0.2, 0.05, 0.1, 0.15, 0.05], dtype=torch.float64)
"""A law of two dependent words: what is said of one changes what is likely for the other."""


class World:
    """Every state of a discrete flow with its law, and the exact network."""

    def __init__(self, uniform: float, data: torch.Tensor = DATA, law: torch.Tensor = LAW) -> None:
        self.flow, self.data, self.of_data = DiscreteFlow(V, uniform), data, law
        self.places = data.shape[1]
        self.states = torch.tensor(list(product(range(self.flow.states), repeat=self.places)))

    def likelihood(self, time: float) -> torch.Tensor:
        """p(state | data), (states, data), written down from the path's definition."""
        share = self.flow.uniform
        one = time * torch.tensor([share / V] * V + ([1 - share] if share < 1 else []))[:, None].double()
        one = one + (1 - time) * torch.eye(self.flow.states, V)  # p(state of a word | word)
        return torch.stack([one[self.states[:, i]][:, self.data[:, i]] for i in range(self.places)]).prod(0)

    def law(self, time: float) -> torch.Tensor:
        return self.likelihood(time) @ self.of_data

    def network(self, time: float) -> torch.Tensor:
        """Logits of the exact p(word | state) for every state, (states, L, V)."""
        joint = self.likelihood(time) * self.of_data
        words = torch.stack([joint @ (word == self.data).double() for word in range(V)], -1)
        total = words.sum(-1, keepdim=True)
        # States that cannot occur may be told anything.
        return torch.where(total > 0, words / total, 1 / V).log()

    def kernel(self, now: float, then: float, churn: float = 0.0) -> torch.Tensor:
        """The sampler's matrix of transitions between whole states, from its own one-word distributions."""
        flow, logits = self.flow, self.network(now)
        lower = (1 - churn) * then
        each = flow.transition(flow.probabilities(logits, self.states), self.states, now, lower)
        each = each @ flow.forget(lower, then)
        return torch.stack([each[:, i][:, self.states[:, i]] for i in range(self.places)]).prod(0)

    def sampled(self, steps: int, churn: float = 0.0, until: float = 0.0) -> torch.Tensor:
        """The law of the state after the sampler's steps, without drawing anything."""
        law = self.law(1.0)
        for now, then in pairwise(np.linspace(1, until, steps + 1)):
            law = law @ self.kernel(now, then, churn)
        return law


@KINDS
@pytest.mark.parametrize("churn", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_law_of_a_single_word_is_exact_at_any_number_of_steps(uniform, steps, churn):
    world = World(uniform, torch.arange(V)[:, None], torch.tensor([0.5, 0.1, 0.4]).double())
    for until in (0.0, 0.35):
        assert torch.allclose(world.sampled(steps, churn, until), world.law(until), atol=1e-12)


@KINDS
def test_the_rate_is_the_paths(uniform):
    """One step of length h from the path's law misses the law at t - h by O(h^2): the rate is right, in the limit."""
    world = World(uniform)
    for now in (0.9, 0.4):
        errors = [
            float((world.law(now) @ world.kernel(now, now - h) - world.law(now - h)).abs().sum())
            for h in (0.02, 0.01, 0.005)
        ]
        assert errors[0] < 1e-3
        assert all(3.7 < one / two < 4.3 for one, two in pairwise(errors))


@KINDS
@pytest.mark.parametrize("churn", [0.0, 0.3])
def test_the_whole_law_is_reached_as_steps_grow(uniform, churn):
    """Dependent words are drawn together in a step: an error of first order in its length, whatever the source.

    Coming back by forgetting lengthens steps in the end: the error falls more slowly.
    """
    world = World(uniform)
    misses = [float((world.sampled(steps, churn) - world.law(0.0)).abs().sum() / 2) for steps in (32, 128)]
    assert misses[1] < 0.01
    assert (2 if churn else 3) < misses[0] / misses[1] < 5


def test_a_wrong_rate_is_noticed():
    """Uni-ViGU's released probability, i / (N - 1) at step i, is not the path's: the law on the way is wrong."""
    steps = 8
    world = World(1.0, torch.arange(V)[:, None], torch.tensor([0.5, 0.1, 0.4]).double())
    law = world.law(1.0)
    for i in range(steps // 2):
        move, words = i / (steps - 1), world.network(1 - i / steps).exp()
        law = law @ (move * words + (1 - move) * torch.eye(V))[:, 0]
    assert float((law - world.law(0.5)).abs().max()) > 0.02


def test_the_masked_loss_of_the_exact_network_is_the_entropy():
    """The weight 1 / t makes the mean over times the bound of arXiv 2406.07524, tight for the exact network."""
    world = World(0.0)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        law = world.likelihood(node) * LAW
        logits = world.network(node)
        for j, ids in enumerate(DATA):
            many = ids.expand(len(world.states), -1)
            loss = world.flow.loss(logits, many, world.states, torch.full(many.shape, node))
            total += weight * float((law[:, j, None] * loss).nan_to_num().sum())
    assert total == pytest.approx(float(-(LAW * LAW.log()).sum()), abs=1e-6)


@KINDS
def test_the_exact_network_has_the_least_loss(uniform):
    world = World(uniform)
    joint = world.likelihood(0.6) * LAW
    exact = world.network(0.6)

    def expected(logits: torch.Tensor) -> float:
        time = torch.full((len(world.states), L), 0.6)
        losses = [world.flow.loss(logits, ids.expand(len(logits), -1), world.states, time) for ids in DATA]
        each = torch.stack(losses, 1).double().sum(-1)
        return float((joint * each)[joint > 0].sum())

    least = expected(exact)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        other = exact.clamp_min(-20) + 0.3 * torch.randn(exact.shape, generator=generator)
        assert expected(other) > least + 1e-4


@KINDS
def test_corruption_and_steps_are_drawn_from_their_distributions(uniform):
    world, count = World(uniform), 20_000
    flow, generator = world.flow, torch.Generator().manual_seed(0)
    ids = torch.tensor([[0, 2]]).expand(count, -1)
    time = torch.tensor([[0.3, 0.8]]).expand(count, -1)
    state = flow.corrupt(ids, time, generator)
    for place, (word, t) in enumerate(((0, 0.3), (2, 0.8))):
        wanted = t * flow.source()
        wanted[word] += 1 - t
        assert_drawn_from(state[:, place], wanted)
    start = len(world.states) - 1
    logits = world.network(0.8)[start].expand(count, -1, -1)
    before = world.states[start].expand(count, -1)
    after = flow.step(logits, before, 0.8, 0.5, generator)
    words = flow.probabilities(logits, before)
    wanted = flow.transition(words, before, 0.8, 0.5)[0]
    for place in range(L):
        assert_drawn_from(after[:, place], wanted[place])
    churned = flow.step(logits, before, 0.8, 0.5, generator, churn=0.5)
    wanted = flow.transition(words, before, 0.8, 0.25)[0] @ flow.forget(0.25, 0.5)
    assert_drawn_from(churned[:, 0], wanted[0])


def assert_drawn_from(numbers: torch.Tensor, wanted: torch.Tensor) -> None:
    shares = torch.bincount(numbers, minlength=len(wanted)) / len(numbers)
    assert ((shares - wanted).abs() <= 4.5 * (wanted * (1 - wanted) / len(numbers)).sqrt() + 1e-9).all()


def test_drawing_keeps_the_tail():
    generator = torch.Generator().manual_seed(0)
    law = torch.tensor([0.0, 0.7, 0.3 - 1e-3, 1e-3, 0.0], dtype=torch.float64)
    assert_drawn_from(draw(law.expand(50_000, -1), generator), law)


def test_masked_words_that_are_known_stay():
    flow = DiscreteFlow(V, 0.0)
    state = torch.tensor([[1, V]])
    output = torch.randn(1, 2, V)
    words = flow.probabilities(output, state)
    assert words[0, 0].tolist() == [0, 1, 0]
    assert torch.allclose(words[0, 1].float(), output[0, 1].softmax(-1))
    assert (flow.loss(output, torch.tensor([[1, 2]]), state, torch.full((1, 2), 0.5)) > 0).tolist() == [
        [False, True]
    ]


def test_settling_fixes_the_surest_first():
    flow = DiscreteFlow(V, 0.0)
    words = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0], [0.6, 0.2, 0.2]]]).double()
    unknown = torch.tensor([[True, True, False, True]])
    state = torch.tensor([[V, V, 2, V]])
    state, unknown = flow.settle(words, state, unknown, torch.tensor([1]))
    assert state.tolist() == [[V, 1, 2, V]] and unknown.tolist() == [[True, False, False, True]]
    state, unknown = flow.settle(words, state, unknown, torch.tensor([5]))
    assert state.tolist() == [[0, 1, 2, 0]] and not unknown.any()


def exact_logits(flow, state, time):
    """Bayes with a Gaussian likelihood: logits of p(word | z) for whole states (B, L, d)."""
    table = flow.table()
    centres = (1 - time) * table[DATA]  # (data, L, d)
    distance = (state[:, None] - centres).square().sum((-1, -2)) / (2 * time**2)
    joint = (LAW.log() - distance).softmax(-1)
    return torch.stack([joint @ (word == DATA).double() for word in range(V)], -1).clamp_min(1e-300).log()


def test_score_interpolation_carries_noise_to_the_datas_law():
    codes = torch.tensor([[1.0, 0.2], [-0.4, 1.0], [-0.7, -0.8]], dtype=torch.float64)
    flow, count, steps = EmbeddingFlow(codes), 6000, 60
    state = flow.noise((count, L), torch.Generator().manual_seed(0)).double()
    times = np.linspace(1, 0, steps + 1)
    for now, then in pairwise(times):
        logits = exact_logits(flow, state, now)
        state = flow.step(logits, state, now, then)
    words = flow.probabilities(logits, state, torch.zeros(count, L)).argmax(-1)
    assert_drawn_from(words[:, 0] * V + words[:, 1], LAW)
    assert torch.allclose(state, flow.clean(words), atol=0.05)


def test_both_continuous_flows_have_the_same_exact_velocity():
    """E[noise - data | z] by enumeration; the mean vector gives it, and regression is least at it."""
    codes = torch.tensor([[1.0, 0.2], [-0.4, 1.0], [-0.7, -0.8]], dtype=torch.float64)
    one, two = EmbeddingFlow(codes), VelocityFlow(codes)
    state, now = torch.randn(5, L, 2, generator=torch.Generator().manual_seed(1)).double(), 0.7
    logits = exact_logits(one, state, now)
    data = logits.exp() @ one.table()
    velocity = (state - (1 - now) * data) / now - data  # E[noise] - E[data]
    h = 0.1
    assert torch.allclose(one.step(logits, state, now, now - h), state - h * velocity)
    assert torch.allclose(two.step(velocity, state, now, now - h), state - h * velocity)
    ids = torch.randint(V, (5, L), generator=torch.Generator().manual_seed(2))
    noise = torch.randn(5, L, 2).double()
    time = torch.full((5, L), now, dtype=torch.float64)
    at = (1 - now) * two.clean(ids) + now * noise
    truth = noise - two.clean(ids)
    assert float(two.loss(truth, ids, at, time).max()) < 1e-12
    assert torch.equal(two.probabilities(truth, at, time).argmax(-1), ids)


def test_vectors_have_the_noises_size_whatever_is_learned():
    flow = EmbeddingFlow(1e-3 * torch.randn(7, 16))
    assert torch.allclose(flow.table().square().mean(-1), torch.ones(7))
    assert flow.corrupt(torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), 0.5)).shape == (2, 3, 16)
    assert flow.shown(torch.zeros(2, 3, 7)).shape == (2, 3, 16)


def test_formulations_by_name():
    codes = torch.randn(V, 4)
    for name in FORMULATIONS:
        flow = text_flow(name, V, codes)
        ids = torch.randint(V, (2, 5))
        assert torch.equal(flow.corrupt(ids, torch.zeros(2, 5)), flow.clean(ids))
    with pytest.raises(ValueError, match="needs the vectors"):
        text_flow("embedding", V)
    with pytest.raises(ValueError, match="between 0 and 1"):
        DiscreteFlow(V, 1.5)
