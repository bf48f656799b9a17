"""Fingerprints of model folders, so that results of two versions of a model are never mixed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unireel.hub import CARD, find_model, read_card

WHOLE = 64 * 2**20
"""Bytes up to which a file is read whole; of a larger one, its size and this many bytes at both ends count."""

SUFFIXES = (".safetensors", ".json")


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits that change with the weights and configurations in ``folder``, and with those it shares."""
    digest = hashlib.sha256()
    shared = read_card(folder).get("shares") if (folder / CARD).is_file() else None
    if shared is not None:
        digest.update(fingerprint(find_model(shared)).encode())
    for path in sorted(each for each in folder.rglob("*") if each.suffix in SUFFIXES and each.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(WHOLE))
            if size > WHOLE:
                file.seek(max(WHOLE, size - WHOLE))
                digest.update(file.read())
    return digest.hexdigest()[:16]
