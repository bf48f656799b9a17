"""The published Omni-Video 11B, from its own file layout into folders of safetensors.

Its folder holds ``transformer/model.pt`` (all four trained parts), ``adapter/model.pt`` and
``vision_head/vision_head/pytorch_model.bin`` (two of them once more), ``wan/wanxiang1_3b/config.json``,
``special_tokens/tokens.pkl``, ``unconditioned_context/context.pkl`` and ``ar_model/checkpoint`` (VILA). All of it is
pickles but the last: nothing in them is run (:mod:`unireel.backbones.pickles`).
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from unireel.backbones.pickles import read_pickle, read_tensors
from unireel.backbones.wan_files import from_original_config, to_diffusers, wan_t2v_1_3b
from unireel.backbones.weights import KeyReport, read_json
from unireel.errors import UserError
from unireel.systems.omnivideo.context import MARKS
from unireel.systems.omnivideo.heads import ContextAdapter, VisionHead
from unireel.systems.omnivideo.sampling import RELEASED
from unireel.systems.omnivideo.visual_context import VisualContextAdapter

TRANSFORMER = Path("transformer/model.pt")
HEADS = 8
"""Attention heads of the released vision head and adapter, which their weights do not tell."""

PREFIXES = {
    "wan_model.": "transformer",
    "adapter.": "adapter",
    "ar_vision_head.": "vision_head",
    "visual_context_adapter.": "visual_context",
}
"""How names in ``transformer/model.pt`` begin, and the component that they belong to."""

RENAMED = {"adapter": "adapter.", "vision_head": "visionHeadAdapter."}
"""How the release's names of the inner transformer begin within a component; ours begin with ``transformer.``."""

ALONE = {
    "adapter": ("adapter/model.pt", ("model_state_dict",)),
    "vision_head": ("vision_head/vision_head/pytorch_model.bin", ()),
}
"""Where two of the components are stored once more: file, and the keys that they may be wrapped in."""

UNCONDITIONAL = ("text_emb", "vlm_last_hidden_states")
"""What the release drops conditions to: text states, and states of the language model."""


@dataclass(frozen=True)
class Converted:
    """What was found.

    Attributes:
        parameters: of each component.
        notes: what a person should know, a line each.
        absent: files that were not there, with what is missing without them.
    """

    parameters: dict[str, int]
    notes: tuple[str, ...]
    absent: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{name}: {count:,} parameters" for name, count in self.parameters.items()]
        return "\n".join([*lines, *self.notes, *(f"not there: {each}" for each in self.absent)])


def convert(source: str | Path, target: str | Path | None) -> Converted:
    """Read the published layout in ``source`` and write it to ``target``; None only looks.

    Raises:
        UserError: a file is missing or damaged, or any tensor is missing, unexpected or of another shape; nothing is
            written then.
    """
    source = Path(source)
    parts, notes = _components(source)
    models = {name: _model(name, source, tensors) for name, tensors in parts.items()}
    marks, unconditional, absent = _extras(source)
    if target is not None:
        target = Path(target)
        if target.exists() and any(target.iterdir()):
            raise UserError(f"'{target}' is not empty; name a new folder")
        for name, model in models.items():
            model.save_pretrained(target / name)
        for name, tensors in (("marks", marks), ("unconditional", unconditional)):
            if tensors:
                save_file(tensors, target / f"{name}.safetensors")
        (target / "omnivideo.json").write_text(json.dumps(_card(), indent=2) + "\n", encoding="utf-8")
    counts = {name: sum(each.numel() for each in model.parameters()) for name, model in models.items()}
    return Converted(counts, tuple(notes), tuple(absent))


def _components(source: Path) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Each component's tensors under our names, and how its two copies relate."""
    everything = read_tensors(source / TRANSFORMER, "module")
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in PREFIXES.values()}
    strange = []
    for name, tensor in everything.items():
        prefix = next((each for each in PREFIXES if name.startswith(each)), None)
        if prefix is None:
            strange.append(name)
        else:
            parts[PREFIXES[prefix]][name.removeprefix(prefix)] = tensor
    KeyReport(unexpected=tuple(strange)).require(source / TRANSFORMER)
    notes = []
    for name, (file, wrappers) in ALONE.items():
        if not (source / file).is_file():
            continue
        alone = read_tensors(source / file, *wrappers)
        if not parts[name]:
            parts[name] = alone
            notes.append(f"{name} is from {file}: {TRANSFORMER} has none")
            continue
        other = [
            key for key in parts[name] if key not in alone or not torch.equal(parts[name][key], alone[key])
        ]
        notes.append(
            f"{file} differs from {TRANSFORMER} in {len(other)} tensors; the latter is used, as the release does"
            if other
            else f"{file} is the same as in {TRANSFORMER}"
        )
    return {name: _renamed(name, tensors) for name, tensors in parts.items()}, notes


def _renamed(component: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if component == "transformer":
        return to_diffusers(tensors)
    before = RENAMED.get(component)
    if before is None:
        return dict(tensors)
    return {re.sub(rf"^{re.escape(before)}", "transformer.", name): value for name, value in tensors.items()}


def _model(name: str, source: Path, tensors: dict[str, Tensor]) -> ModelMixin:
    """The component with its tensors, checked one by one."""
    if not tensors:
        raise UserError(f"'{source / TRANSFORMER}' holds no {name}")
    with torch.device("meta"):
        model = _BUILD[name](source, tensors)
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    report = KeyReport.compare(wanted, {key: tuple(value.shape) for key, value in tensors.items()})
    if not report.clean:
        raise UserError(f"'{source}' holds another {name}: {report}")
    model.load_state_dict(tensors, assign=True)
    return model


def _wan(source: Path, tensors: Mapping[str, Tensor]) -> WanTransformer3DModel:
    folder = source / "wan" / "wanxiang1_3b"
    if (folder / "config.json").is_file():
        return from_original_config(read_json(folder / "config.json"))
    return wan_t2v_1_3b()


def _reader(kind: type) -> Callable[[Path, Mapping[str, Tensor]], Any]:
    def build(source: Path, tensors: Mapping[str, Tensor]) -> Any:
        first = _shape(tensors, "fc.0.weight", source)
        layers = {key.split(".")[3] for key in tensors if key.startswith("transformer.encoder.layers.")}
        return kind(
            source=first[1],
            width=first[0],
            queries=_shape(tensors, "decoder_query", source)[1],
            layers=len(layers),
            heads=HEADS,
            ffn=_shape(tensors, "transformer.encoder.layers.0.linear1.weight", source)[0],
        )

    return build


def _visual_context(source: Path, tensors: Mapping[str, Tensor]) -> VisualContextAdapter:
    hidden, channels, _, patch, _ = _shape(tensors, "patch_embedding.weight", source, 5)
    width = _shape(tensors, "projection.weight", source)[0]
    return VisualContextAdapter(channels, hidden, width, patch, positions=False)


_BUILD: dict[str, Callable[[Path, dict[str, Tensor]], Any]] = {
    "transformer": _wan,
    "adapter": _reader(ContextAdapter),
    "vision_head": _reader(VisionHead),
    "visual_context": _visual_context,
}


def _shape(tensors: Mapping[str, Tensor], name: str, source: Path, axes: int = 0) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim < max(axes, 2):
        raise UserError(f"'{source}' is not Omni-Video's: it lacks {name}")
    return tuple(tensors[name].shape)


def _extras(source: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Marks of segments, what conditions are dropped to, and what is not there."""
    absent, marks, unconditional = [], {}, {}
    path = source / "special_tokens" / "tokens.pkl"
    wanted = [name for pair in MARKS.values() for name in pair]
    if path.is_file():
        found = read_pickle(path)
        found = found if isinstance(found, dict) else {}
        marks = {name: found[name].contiguous() for name in wanted if isinstance(found.get(name), Tensor)}
        names = {name: tuple(value.shape[1:]) for name, value in marks.items()}
        KeyReport.compare(dict.fromkeys(wanted, next(iter(names.values()), ())), names).require(path)
    else:
        absent.append("special_tokens/tokens.pkl: segments of the context are not marked")
    path = source / "unconditioned_context" / "context.pkl"
    if path.is_file():
        found = read_pickle(path)
        found = found if isinstance(found, dict) else {}
        for name in UNCONDITIONAL:
            value = found.get(name)
            value = value[0] if isinstance(value, list | tuple) and value else value
            if not isinstance(value, Tensor):
                raise UserError(f"'{path}' holds no {name}")
            unconditional[name] = value.contiguous()
    else:
        absent.append("unconditioned_context/context.pkl: guidance drops to the empty prompt")
    if not (source / "ar_model" / "checkpoint" / "config.json").is_file():
        absent.append("ar_model/checkpoint: the language model (VILA)")
    return marks, unconditional, absent


def _card() -> dict[str, Any]:
    return {"profile": "released", "sampling": {name: asdict(each) for name, each in RELEASED.items()}}
