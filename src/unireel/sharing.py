"""Models of different systems that have components in common: write one without what another has already.

    python -m unireel.sharing runs/univid/stage3/export src/unireel/assets/pocket/univid --base pocket/base

Components whose weights (in bfloat16) and configuration are those of the base are left out, and the card says where
they are: :func:`unireel.hub.component`. Of the others only tensors that differ are kept: :mod:`unireel.partial`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from unireel.errors import UsageError
from unireel.hub import ASSETS, CARD, component, find_model, packaged_models, read_card
from unireel.partial import write_partial

KEPT_WHOLE = ("adapters",)
"""Folders whose weights stay in the precision they have."""

OF_SAVING = ("dtype", "torch_dtype", "is_local", "local_files_only", "_name_or_path", "_diffusers_version")
"""Entries of configurations that say how a component was saved or where from, not what it is."""


def share(
    folder: Path, out: Path, base: str, like: Mapping[str, str] | None = None, rank: int = 0
) -> tuple[list[str], list[str]]:
    """Write the model in ``folder`` to ``out`` in bfloat16, without what it has in common with the packaged ``base``.

    Args:
        like: components by other names that share tensors with the base's, such as ``{"editor": "transformer"}``; by
            default a component shares with the base's of its own name.
        rank: matrices that differ from the base's by one of at most this rank are kept as its factors; 0: none are.

    Returns:
        The names of the components that are left out, and of those of which only a part is kept.

    Raises:
        UserError: ``folder`` is no model.
        UsageError: ``base`` is not packaged, or ``out`` exists.
    """
    card = read_card(folder)
    if base not in packaged_models():
        raise UsageError(f"'{base}' is not packaged; packaged models: {', '.join(packaged_models())}")
    if out.exists():
        raise UsageError(f"'{out}' exists; choose another folder")
    left, partial = [], []
    for part in sorted(each for each in folder.iterdir() if each.is_dir()):
        copy = out / part.name
        shutil.copytree(component(folder, part.name), copy)
        if part.name not in KEPT_WHOLE:
            for weights in copy.glob("*.safetensors"):
                save_file(
                    {name: _short(each) for name, each in load_file(weights).items()},
                    weights,
                    {"format": "pt"},
                )
        if _same(copy, ASSETS / base / part.name):
            shutil.rmtree(copy)
            left.append(part.name)
            continue
        name = (like or {}).get(part.name, part.name)
        if part.name not in KEPT_WHOLE and write_partial(copy, ASSETS / base / name, name, rank):
            partial.append(part.name)
    (out / CARD).write_text(json.dumps(card | {"shares": base}, indent=2) + "\n", encoding="utf-8")
    return left, partial


def _short(weights: torch.Tensor) -> torch.Tensor:
    return weights.to(torch.bfloat16) if weights.is_floating_point() else weights


def _same(one: Path, two: Path) -> bool:
    """Whether two components have the same files, weights and words."""
    names = {each.name for each in one.iterdir()}
    if not two.is_dir() or names != {each.name for each in two.iterdir()}:
        return False
    return all(_equal(one / name, two / name) for name in names)


def _equal(one: Path, two: Path) -> bool:
    if one.suffix == ".json":
        return _meant(one) == _meant(two)
    if one.suffix != ".safetensors":
        return one.read_bytes() == two.read_bytes()
    first, second = load_file(one), load_file(two)
    return first.keys() == second.keys() and all(
        torch.equal(_short(first[key]), second[key]) for key in first
    )


def _meant(path: Path) -> dict[str, Any]:
    """A configuration without what says how it was saved."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in OF_SAVING}


def main() -> None:
    """Share from the command line."""
    parser = argparse.ArgumentParser(description="Write a model without the components that another has.")
    parser.add_argument("model", help="folder, as a training exports it")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--base", default="pocket/base", help="packaged model (default: %(default)s)")
    parser.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="NAME=OTHER",
        help="component NAME shares tensors with the base's OTHER",
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=0,
        help="keep differences of this rank as factors (default: whole matrices)",
    )
    args = parser.parse_args()
    like = dict(each.split("=", 1) for each in args.like if "=" in each)
    left, partial = share(find_model(args.model), args.out, args.base, like, args.rank)
    print(
        f"shared with {args.base}: {', '.join(left) or 'nothing'}; in part: {', '.join(partial) or 'nothing'}"
    )


if __name__ == "__main__":
    main()
