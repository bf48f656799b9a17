"""Having films edited by a model: resumable, divided into shards, failures listed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.pairs import Pair
from unireel.evaluation.journal import Journal
from unireel.evaluation.sampling import Advance, seed_of


class Editor(Protocol):
    """What is asked to edit."""

    def edit(self, clip: Clip, instruction: str, seed: int = ..., **options: Any) -> Clip:
        """``clip``, changed as ``instruction`` says; ``options`` are ``steps``, ``guidance``, ``source_guidance``."""
        ...


def missing(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs whose edited film is not there yet: films appear whole or not at all."""
    return [pair for pair in pairs if not pair.edited.exists()]


def edit_films(
    model: Editor,
    pairs: Sequence[Pair],
    source: Callable[[Pair], Clip],
    seed: int,
    options: Mapping[str, Any],
    failures: Journal,
    advance: Advance | None = None,
) -> None:
    """Make the edited films that are missing, as folders of lossless pictures: what is measured is the model, no codec.

    A film that cannot be read or that the model refuses (:class:`UserError`) is written to ``failures`` and passed
    over; a rerun tries it again. A pair of the test "inverse" is edited twice, by its instruction and by
    what undoes it.

    Args:
        source: gives the film that a pair begins with.
        seed: of the run; every pair's noise is its own and the same whatever else is made.
    """
    todo = missing(pairs)
    for number, pair in enumerate(todo, 1):
        begun = time.perf_counter()
        try:
            film = model.edit(source(pair), pair.instruction, seed=seed_of(seed, pair.id, 0), **options)
            if pair.test == "inverse":
                film = model.edit(film, pair.undo, seed=seed_of(seed, pair.id, 1), **options)
            pair.edited.parent.mkdir(parents=True, exist_ok=True)
            film.save(pair.edited)
        except UserError as error:
            failures.append([{"id": pair.id, "prompt": pair.instruction, "error": str(error)}])
        if advance:
            advance(1, len(todo) - number, time.perf_counter() - begun)
