"""A hundred broken files (thousands: ``python benchmarks/media_fuzz.py``): each is read or refused, nothing else."""

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "media_fuzz.py"


def test_broken_files_neither_crash_nor_hang_nor_grow() -> None:
    spec = importlib.util.spec_from_file_location("media_fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    media_fuzz = sys.modules["media_fuzz"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(media_fuzz)
    tally = media_fuzz.fuzz(count=100, seed=1)
    assert tally.worst == []
    assert sum(tally.outcomes.values()) == 100
    assert tally.outcomes["read"] and tally.outcomes["damaged"] and tally.outcomes["unknown_format"]
    files = media_fuzz.sound_files()
    assert media_fuzz.broken(files, 1, 7) == media_fuzz.broken(files, 1, 7)
