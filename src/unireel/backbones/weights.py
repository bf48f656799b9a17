"""Published weights into our models: the files' headers are compared with the model before anything is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_module_tensor_to_device
from safetensors import SafetensorError, safe_open
from torch import nn

from unireel.errors import UserError

SHOWN = 3
"""Names of each kind that a report's one line lists."""


@dataclass(frozen=True)
class KeyReport:
    """How the tensors in files differ from those of a model.

    Attributes:
        missing: names that the model has and the files lack.
        unexpected: names that the files have and the model lacks.
        misshapen: names whose shapes differ, with both shapes.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    @classmethod
    def compare(
        cls, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
    ) -> KeyReport:
        """The report for two maps of names to shapes."""
        both = sorted(wanted.keys() & found.keys())
        return cls(
            tuple(sorted(wanted.keys() - found.keys())),
            tuple(sorted(found.keys() - wanted.keys())),
            tuple(
                f"{name} {found[name]} instead of {wanted[name]}"
                for name in both
                if found[name] != wanted[name]
            ),
        )

    @property
    def clean(self) -> bool:
        """Whether there is no difference."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = []
        for what in ("missing", "unexpected", "misshapen"):
            names = getattr(self, what)
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                parts.append(f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})")
        return "; ".join(parts) or "all tensors are there"

    def require(self, files: str | Path) -> None:
        """Raise a :class:`UserError` in one line unless the report is clean."""
        if not self.clean:
            raise UserError(f"'{files}' holds the weights of another model: {self}")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises:
        UserError: it cannot be read or is not a mapping.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{path.parent}' has no file '{path.name}'") from None
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' cannot be read: it holds no mapping")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component's folder, those of its index if there is one.

    Raises:
        UserError: there are none, or some that the index names are missing.
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        names = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent or not names:
            raise UserError(
                f"'{folder}' lacks {len(absent)} of {len(names)} files of weights: {', '.join(absent[:SHOWN])}"
            )
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"'{folder}' has no safetensors files")
    return files


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in safetensors files, from their headers alone.

    Raises:
        UserError: a file is not safetensors, or is cut off.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with _opened(path) as tensors:
            shapes.update({name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118
    return shapes


def load_weights(
    model: nn.Module,
    files: list[Path],
    rename: Callable[[str], str] = str,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    strict: bool = True,
) -> KeyReport:
    """Fill ``model``, which may be on the meta device, tensor by tensor.

    Args:
        model: its parameters keep whether they are trained. Those that diffusers wants in float32
            (``_keep_in_fp32_modules``) are.
        files: safetensors.
        rename: name in the files to name in the model.
        dtype, device: what to load into.
        strict: any difference is an error, and nothing is loaded; otherwise what fits is, and the rest of the model
            stays as it was.

    Raises:
        UserError: see ``strict``, and :func:`stored_shapes`.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    report = KeyReport.compare(wanted, {rename(name): shape for name, shape in stored_shapes(files).items()})
    if strict:
        report.require(files[0].parent)
    wrong = {text.split()[0] for text in report.misshapen}
    exact: Iterable[str] = getattr(model, "_keep_in_fp32_modules", None) or ()
    for path in files:
        with _opened(path) as tensors:
            for stored in tensors.keys():  # noqa: SIM118 - not a mapping
                name = rename(stored)
                if name in wanted and name not in wrong:
                    precision = torch.float32 if set(exact) & set(name.split(".")) else dtype
                    value = tensors.get_tensor(stored)
                    set_module_tensor_to_device(model, name, device, value=value, dtype=precision)
    return report


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{path}' cannot be read as safetensors: {str(error).splitlines()[0]}") from error
