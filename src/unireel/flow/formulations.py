"""The formulations of text as a flow, by name."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from unireel.flow.discrete import DiscreteFlow
from unireel.flow.embedding import EmbeddingFlow, VelocityFlow
from unireel.flow.text import TextFlow

Formulation = Literal["masked", "uniform", "hybrid", "embedding", "velocity"]
FORMULATIONS: tuple[Formulation, ...] = ("masked", "uniform", "hybrid", "embedding", "velocity")


def text_flow(
    formulation: Formulation, vocabulary: int, codes: Tensor | None = None, uniform: float = 0.1
) -> TextFlow:
    """The flow of a formulation.

    Args:
        vocabulary: V.
        codes: vectors of words (V, d), for continuous formulations.
        uniform: share of random words in the noise of the hybrid formulation.

    Raises:
        ValueError: a continuous formulation has no codes.
    """
    if formulation in ("embedding", "velocity"):
        if codes is None:
            raise ValueError(f"the formulation '{formulation}' needs the vectors of words")
        return (EmbeddingFlow if formulation == "embedding" else VelocityFlow)(codes)
    shares = {"masked": 0.0, "uniform": 1.0, "hybrid": uniform}
    return DiscreteFlow(vocabulary, shares[formulation])
