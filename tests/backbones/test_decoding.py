"""Beam search on a small chain of words, against all of its sentences."""

import itertools
import math

import torch

from unireel.backbones.decoding import BeamSearch

WORDS, END, LONGEST = 4, 3, 5


def chain(seed: int) -> torch.Tensor:
    """Log-probabilities of the next word by the last, (WORDS, WORDS); the row of END is where sentences begin."""
    return torch.randn(WORDS, WORDS, generator=torch.Generator().manual_seed(seed)).mul(1.5).log_softmax(-1)


def mean_likelihood(table: torch.Tensor, sentence: tuple[int, ...]) -> float:
    steps = itertools.pairwise([END, *sentence])
    return sum(float(table[one, two]) for one, two in steps) / len(sentence)


def sentences() -> list[tuple[int, ...]]:
    """All that end within LONGEST words, the end included, and those that are cut there."""
    whole = [(*words, END) for n in range(LONGEST) for words in itertools.product(range(WORDS - 1), repeat=n)]
    return whole + list(itertools.product(range(WORDS - 1), repeat=LONGEST))


def search(tables: list[torch.Tensor], beams: int, forbidden=None) -> list[tuple[list[int], list[float]]]:
    found = BeamSearch(len(tables), beams, END, forbidden)
    table = torch.stack(tables)
    last = torch.full((len(tables), 1), END)
    for _ in range(LONGEST):
        width = last.shape[1]
        rows = table[torch.arange(len(tables))[:, None], last]
        before, token = found.step(rows.reshape(len(tables) * width, WORDS))
        kept = len(token) // len(tables)
        assert (before // width == torch.arange(len(tables)).repeat_interleave(kept)).all()
        if found.done:
            break
        last = token.view(len(tables), kept)
    return [(said.ids, said.probabilities) for said in found.best()]


def test_enough_beams_find_the_best_of_all_sentences():
    tables = [chain(seed) for seed in range(6)]
    for table, (ids, probabilities) in zip(tables, search(tables, beams=400), strict=True):
        best = max(sentences(), key=lambda each: mean_likelihood(table, each))
        assert ids == [word for word in best if word != END]
        assert math.isclose(
            sum(map(math.log, probabilities)) / len(probabilities), mean_likelihood(table, best), rel_tol=1e-4
        )


def test_one_beam_is_greedy():
    for seed in range(6):
        table, last, expected = chain(seed), END, []
        for _ in range(LONGEST):
            last = int(table[last].argmax())
            if last == END:
                break
            expected.append(last)
        assert search([table], beams=1)[0][0] == expected


def test_what_is_forbidden_is_not_said():
    def twice(said: list[int]) -> list[int]:
        return said[-1:]

    for ids, _ in search([chain(seed) for seed in range(6)], beams=4, forbidden=twice):
        assert all(one != two for one, two in itertools.pairwise(ids))
    assert any(
        one == two
        for ids, _ in search([chain(seed) for seed in range(6)], beams=4)
        for one, two in itertools.pairwise(ids)
    )
