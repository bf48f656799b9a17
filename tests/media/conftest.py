"""What the tests of the media layer share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from numbered_films import numbered, write_film

WriteNumbered = Callable[..., Path]


@pytest.fixture
def write_numbered(tmp_path: Path) -> WriteNumbered:
    """Function ``(name, stamps, **settings)`` that writes a film of numbered frames shown at ``stamps``."""

    def write(
        name: str, stamps: Sequence[float], *, size: tuple[int, int] = (48, 64), **settings: Any
    ) -> Path:
        frames = [numbered(number, *size) for number in range(len(stamps))]
        return write_film(tmp_path / name, frames, stamps, **settings)

    return write
