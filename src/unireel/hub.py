"""``unireel.load``: from a name, a folder or a hub id to a working pipeline.

A model folder holds ordinary diffusers/transformers component folders and a ``unireel.json`` that names the
system: ``{"system": "base", "size": 48, "settings": {...}}``. A card with ``"shares": "pocket/base"`` takes the
components that its folder lacks from that packaged model, and tensors that a component lacks
(:mod:`unireel.partial`). Only safetensors, JSON and text are read.
"""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.errors import UserError
from unireel.partial import MARKER, merged

if TYPE_CHECKING:
    import torch

CARD = "unireel.json"
ASSETS = Path(__file__).parent / "assets"
SYSTEMS = {
    "base": "unireel.systems.base.pipeline:BasePipeline",
    "omnivideo": "unireel.systems.omnivideo.pipeline:OmniVideo",
    "univigu": "unireel.systems.univigu.pipeline:UniViguPipeline",
    "univid": "unireel.systems.univid.pipeline:UniVid",
}
SAFE_PATTERNS = ["*.json", "*.txt", "*.safetensors"]
DTYPES = ("float32", "bfloat16", "float16")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def packaged_models() -> list[str]:
    """Names of the models that ship in the package, such as ``"pocket/base"``, sorted."""
    return sorted(card.parent.relative_to(ASSETS).as_posix() for card in ASSETS.glob(f"*/*/{CARD}"))


def load(
    name_or_path: str | Path,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    fast: bool | str | None = None,
) -> Any:
    """Load a model and return its pipeline.

    Args:
        name_or_path: a packaged model (:func:`packaged_models`), a local folder with a ``unireel.json``, or
            the ``owner/name`` of a hub repository that has one.
        device: where to put it, such as ``"cpu"`` or ``"cuda:1"``; by default CUDA if there is any, else CPU.
        dtype: precision of the weights, ``"float32"``, ``"bfloat16"`` or ``"float16"``; by default what the
            system chooses.
        fast: make films faster (:mod:`unireel.backbones.fast`): by default on processors and without rounding
            anything; True also in bfloat16 where the machine computes faster in it; a name is that of a profile, most
            of which cost quality; False leaves diffusers' classes as they are, to train or to accelerate them later.

    Raises:
        UserError: the model does not exist, cannot be fetched, or is not one of ours; or the device or the
            dtype does not exist here.
        UsageError: ``fast`` and the model has no Wan transformer, or there is no such profile, or it would not act.
    """
    folder = find_model(name_or_path)
    module, _, name = SYSTEMS[read_card(folder)["system"]].partition(":")
    options = {"device": _device(device), "dtype": _dtype(dtype)}
    pipeline = getattr(import_module(module), name).from_pretrained(folder, **options)
    if fast or (fast is None and pipeline.device.type == "cpu"):
        from unireel.backbones.fast import LOSSLESS, accelerate, can_accelerate, speed_up

        if fast:
            speed_up(pipeline, LOSSLESS if fast is True else fast)
        elif can_accelerate(pipeline):
            accelerate(pipeline)
    return pipeline


def find_model(name_or_path: str | Path) -> Path:
    """The folder of a model; fetched from the hub if ``name_or_path`` is neither packaged nor a local folder.

    Raises:
        UserError: there is no such model.
    """
    name = str(name_or_path)
    if name in packaged_models():
        return ASSETS / name
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return folder
    if name.strip() and folder.exists():
        raise UserError(f"'{name}' is a file; a model is a folder with a {CARD}")
    if _HUB_ID.fullmatch(name) and not name.startswith("pocket/"):
        return _fetch(name)
    packaged = ", ".join(packaged_models()) or "none"
    raise UserError(
        f"there is no model '{name}'; packaged models: {packaged}; "
        "also accepted: a model folder or a hub id owner/name"
    )


def read_card(folder: Path) -> dict[str, Any]:
    """The checked content of ``folder/unireel.json``.

    Raises:
        UserError: it is missing, is not JSON, or names a system that does not exist.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{folder}' is not a Unireel model: it has no {CARD}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"'{path}' cannot be read: {error}") from None
    system = card.get("system") if isinstance(card, dict) else None
    if not isinstance(system, str) or system not in SYSTEMS:
        raise UserError(f"'{path}' names the system {system!r}; known systems: {', '.join(SYSTEMS)}")
    shared = card.get("shares")
    if shared is not None and shared not in packaged_models():
        listed = ", ".join(packaged_models())
        raise UserError(f"'{path}' shares the components of {shared!r}; packaged models: {listed}")
    return card


def component(folder: Path, name: str) -> Path:
    """The folder of a model's component ``name``: its own, or that of the model it shares with; it need not exist.

    Of a component that holds a part of its weights it is a temporary folder with all of them.

    Raises:
        UserError: as :func:`read_card`, if the model does not have it itself; or as :func:`unireel.partial.merged`.
    """
    own = folder / name
    partial = (own / MARKER).is_file()
    if (own.is_dir() and not partial) or not (folder / CARD).is_file():
        return own
    shared = read_card(folder).get("shares")
    if partial:
        return merged(own, ASSETS / shared if shared else folder)
    return own if shared is None else ASSETS / shared / name


def _fetch(repository: str) -> Path:
    """Fetch the hub repository ``owner/name``; its card first, so that nothing large comes for a stranger."""
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )
    from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url

    # The error of the HTTP client below the hub library, whichever that is: it changed between versions.
    client_error: Any = HfHubHTTPError.__bases__[0]
    try:
        if not isinstance(try_to_load_from_cache(repository, CARD), str):
            # One attempt: the library's download retries for half a minute where there is no network.
            get_hf_file_metadata(hf_hub_url(repository, CARD), timeout=10)
        read_card(Path(hf_hub_download(repository, CARD)).parent)
        return Path(snapshot_download(repository, allow_patterns=SAFE_PATTERNS))
    except LocalEntryNotFoundError:
        reason = "the hub cannot be reached and not all of it is stored here"
    except EntryNotFoundError:
        reason = f"it is not a Unireel model: it has no {CARD}"
    except HfHubHTTPError as error:
        reason = _first_line(error)
    except (HFValidationError, OSError, client_error) as error:
        reason = f"the hub cannot be reached ({_first_line(error)})"
    packaged = ", ".join(packaged_models()) or "none"
    raise UserError(f"model '{repository}' cannot be fetched: {reason}; packaged models: {packaged}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _device(device: "str | torch.device | None") -> "torch.device":
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"there is no device '{device}'; accepted: cpu, cuda, cuda:0, mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no device '{device}': this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return chosen


def _dtype(dtype: "str | torch.dtype | None") -> "torch.dtype | None":
    import torch

    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise UserError(f"there is no precision '{dtype}'; accepted: {', '.join(DTYPES)}")
    return getattr(torch, dtype)
