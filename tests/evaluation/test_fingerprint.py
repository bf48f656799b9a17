"""Fingerprints: what changes them and what does not."""

from pathlib import Path

import pytest

from unireel.evaluation import fingerprint as module
from unireel.evaluation.fingerprint import fingerprint


def write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def test_weights_and_configurations_count_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "vae/model.safetensors", b"weights")
    write(tmp_path, "unireel.json", b'{"system": "base"}')
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path)
    write(tmp_path, "README.md", b"words")
    assert first == fingerprint(tmp_path)
    write(tmp_path, "vae/model.safetensors", b"weightz")
    second = fingerprint(tmp_path)
    assert second != first
    write(tmp_path, "unireel.json", b'{"system": "base", "steps": 1}')
    assert fingerprint(tmp_path) not in (first, second)


@pytest.mark.parametrize("place", [0, 7, 8, 15, 16, 19])
def test_of_large_files_both_ends_and_the_size_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(module, "WHOLE", 8)
    content = bytearray(20)
    write(tmp_path, "model.safetensors", bytes(content))
    first = fingerprint(tmp_path)
    write(tmp_path, "model.safetensors", bytes(21))
    assert fingerprint(tmp_path) != first
    content[place] = 1
    write(tmp_path, "model.safetensors", bytes(content))
    seen = place < 8 or place >= 12
    assert (fingerprint(tmp_path) != first) is seen
