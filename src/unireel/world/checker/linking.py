"""Linking: which figures of different frames are one object."""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportAssignmentType=false

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

STEP = 0.19
"""Longest way between two frames, in canvas sides (a fast orbit makes about 0.13)."""

REST = 0.1
"""Longest way over two or more frames in which an object was not seen (hidden objects do not move); one unseen
frame is a flicker and may hide motion."""

_COLOUR_PENALTY = 0.1  # canvas sides
_MASS_PENALTY = 0.12  # canvas sides per factor e of area


def link(
    frame: np.ndarray, x: np.ndarray, y: np.ndarray, mass: np.ndarray, colour: np.ndarray
) -> list[np.ndarray]:
    """Chains of figures, each an array of figure numbers in the order of frames.

    Args: arrays (N,), sorted by frame: frame number, world place in canvas sides, area in shares of the canvas,
        colour (any integers).
    """
    chains: list[list[int]] = []
    for now in np.unique(frame):
        numbers = np.flatnonzero(frame == now)
        if not chains:
            chains = [[n] for n in numbers]
            continue
        last = np.array([chain[-1] for chain in chains])
        way = np.hypot(x[last][:, None] - x[numbers], y[last][:, None] - y[numbers])
        resting = (now - frame[last] > 2)[:, None]
        cost = (
            way**2
            + (_COLOUR_PENALTY * (colour[last][:, None] != colour[numbers])) ** 2
            + (_MASS_PENALTY * np.log(mass[last][:, None] / mass[numbers])) ** 2
        )
        possible = way < np.where(resting, REST, STEP)
        rows, columns = linear_sum_assignment(np.where(possible, cost, 1.0))
        taken = set()
        for row, column in zip(rows, columns, strict=True):
            if possible[row, column]:
                chains[row].append(int(numbers[column]))
                taken.add(column)
        chains += [[int(n)] for column, n in enumerate(numbers) if column not in taken]
    return [np.array(chain) for chain in chains]
