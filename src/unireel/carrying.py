"""Models that went on from a base's component, carried over to that base as it is after a further training.

    python -m unireel.carrying pocket/univigu --old pocket/base --new my-base out --like film_transformer=transformer

What a model changed in a component is added to what the base has become: new + (own - old), matrix by matrix (task
arithmetic, arXiv 2212.04089). That is exact if neither training disturbs the other, and a start for a short training if
they do: measure what comes out. Where a component is larger than the base's, the base's part of it moves.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unireel.errors import UsageError, UserError
from unireel.hub import CARD, component, find_model, read_card
from unireel.partial import weights_file


def carry(model: Path, old: Path, new: Path, out: Path, like: Mapping[str, str]) -> list[str]:
    """Write ``model`` to ``out``, whole, with its components moved from those of ``old`` to those of ``new``.

    Args:
        model, old, new: folders of models; ``new`` may lack what did not change.
        like: components of ``model`` by the name of that in ``old`` from which they went on, such as
            ``{"editor": "transformer"}``; others from that of their own name.

    Returns:
        The components that moved.

    Raises:
        UserError: ``model`` is no model, or one of its tensors does not hold the base's.
        UsageError: ``out`` exists.
    """
    if out.exists():
        raise UsageError(f"'{out}' exists; choose another folder")
    card = read_card(model)
    shared = card.pop("shares", None)
    names = {each.name for each in model.iterdir() if each.is_dir()}
    names |= {each.name for each in find_model(shared).iterdir() if each.is_dir()} if shared else set()
    moved = []
    for name in sorted(names):
        shutil.copytree(component(model, name), out / name)
        base = like.get(name, name)
        before, after = component(old, base), component(new, base)
        if not (before.is_dir() and after.is_dir()):
            continue
        own, first, then = (weights_file(each) for each in (out / name, before, after))
        if own is None or first is None or then is None:
            continue
        tensors, known, become = load_file(own), load_file(first), load_file(then)
        found = {
            key: moved_tensor(key, each, known.get(key), become.get(key)) for key, each in tensors.items()
        }
        if any(not torch.equal(found[key], each) for key, each in tensors.items()):
            save_file(found, own, {"format": "pt"})
            moved.append(name)
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return moved


def moved_tensor(name: str, own: Tensor, old: Tensor | None, new: Tensor | None) -> Tensor:
    """``own`` plus what became of ``old``, in its precision; as it is where the base has no such tensor.

    A tensor with more columns than the base's (input channels that came later) moves in the first of them; one with
    more rows holds, of each place of a patch, first the base's channels (``proj_out`` of a decoder with a gate).

    Raises:
        UserError: the shapes do not fit in one of these ways.
    """
    if old is None or new is None or torch.equal(old, new):
        return own
    if own.shape == old.shape and torch.equal(own, old):
        return new.to(own.dtype)
    change = new.float() - old.float()
    whole = own.float().clone()
    if own.shape == old.shape:
        whole += change
    elif own.ndim > 1 and own.shape[0] == old.shape[0] and own.shape[2:] == old.shape[2:]:
        whole[:, : old.shape[1]] += change
    elif own.shape[1:] == old.shape[1:] and own.shape[0] > old.shape[0]:
        places = own.shape[0] - old.shape[0]  # one more channel for each
        if old.shape[0] % places:
            raise UserError(f"'{name}' has {own.shape[0]} rows, which do not hold the base's {old.shape[0]}")
        rows = whole.unflatten(0, (places, -1))
        rows[:, : old.shape[0] // places] += change.unflatten(0, (places, -1))
    else:
        raise UserError(f"'{name}' is {tuple(own.shape)}, which does not hold the base's {tuple(old.shape)}")
    return whole.to(own.dtype)


def main() -> None:
    """Carry a model over from the command line."""
    parser = argparse.ArgumentParser(
        description="Move a model's components to a base that was trained further."
    )
    parser.add_argument("model", help="folder or packaged model")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--old", required=True, help="the base that it went on from")
    parser.add_argument("--new", required=True, help="the base as it is now")
    parser.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="NAME=OTHER",
        help="component NAME went on from the base's OTHER",
    )
    args = parser.parse_args()
    like = dict(each.split("=", 1) for each in args.like if "=" in each)
    moved = carry(find_model(args.model), find_model(args.old), find_model(args.new), args.out, like)
    print(f"moved: {', '.join(moved) or 'nothing'}")


if __name__ == "__main__":
    main()
