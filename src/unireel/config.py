"""Strict configuration: a tree of frozen dataclasses read from YAML, with dotted overrides on top.

Nothing is guessed: an unknown key, a value of the wrong type and an impossible combination are errors that
name the dotted key and say what is accepted, before any weight is loaded.
"""

import dataclasses
import difflib
import enum
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from unireel.errors import UsageError, UserError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``1e-3`` is a number (YAML 1.1: text), a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise UsageError(f"key '{key.value}' is given twice (line {key.start_mark.line + 1})")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{where} is not valid YAML: {reason}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UserError: the file cannot be read.
        UsageError: it is not YAML, not a mapping, or gives a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read '{path}': {reason}") from error
    data = _parse_yaml(text, f"'{path}'")
    if not isinstance(data, dict):
        raise UsageError(f"'{path}' must hold a mapping of keys to values, not {_describe(data)}")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with overrides such as ``"optimizer.lr=1e-3"``; values are read as YAML.

    Keys that do not exist yet are created; :func:`from_dict` refuses them if the class lacks them.

    Raises:
        UsageError: an override is not ``key=value``, or goes through something that is not a mapping.
    """
    result = _copy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UsageError(
                f"override '{override}' is not of the form key=value, for example optimizer.lr=1e-3"
            )
        here = result
        for depth, part in enumerate(parts[:-1]):
            if here.get(part) is None:
                here[part] = {}
            if not isinstance(here[part], dict):
                prefix = ".".join(parts[: depth + 1])
                raise UsageError(
                    f"override '{override}': {prefix} is a single value and has no key '{parts[depth + 1]}'"
                )
            here = here[part]
        here[parts[-1]] = _parse_yaml(text, f"the value of override '{override}'")
    return result


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from plain data, strictly.

    Accepted field types: ``int``, ``float`` (an ``int`` will do), ``bool``, ``str``, ``Path``, ``Literal``,
    enums (by value), ``X | None``, unions, ``tuple[X, ...]``, ``tuple[X, Y]``, ``list[X]``, ``dict[str, X]``,
    ``Any`` and nested dataclasses. A class checks combinations of its fields in ``__post_init__`` by raising
    ``ValueError``.

    Args:
        cls: a dataclass type.
        data: mapping of field names to plain values, as YAML gives it.
        where: dotted key of ``data`` within the whole configuration, for messages.

    Raises:
        UsageError: names the dotted key and what is accepted.
    """
    if not isinstance(data, Mapping):
        raise UsageError(
            f"{where or 'the configuration'} must be a mapping of keys to values, not {_describe(data)}"
        )
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{_join(where, close[0])}'? " if close else ""
            accepted = ", ".join(fields) or "none"
            raise UsageError(f"unknown key '{_join(where, key)}': {hint}accepted keys: {accepted}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"key '{_join(where, name)}' is missing: it must be {_accepted(hints[name])}")
    try:
        return cls(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}" if where else str(error)) from error


def to_dict(config: Any) -> Any:
    """Plain data (dicts, lists, numbers, strings) that :func:`from_dict` reads back into an equal object."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    if isinstance(config, enum.Enum):
        return config.value
    if isinstance(config, Path):
        return str(config)
    return config


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """``{"optimizer": {"lr": 1}}`` as ``{"optimizer.lr": 1}``; lists and empty mappings stay whole."""
    if not isinstance(data, Mapping) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(flatten(value, _join(prefix, key)))
    return flat


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, arguments, value, where)
    if origin is typing.Literal:
        matches = [choice for choice in arguments if choice == value and type(choice) is type(value)]
        if not matches:
            raise _refuse(where, hint, value)
        return matches[0]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if origin in (tuple, list) or hint in (tuple, list):
        kind = list if list in (origin, hint) else tuple
        return _convert_sequence(hint, kind, arguments, value, where)
    if origin in (dict, Mapping) or hint is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _refuse(where, hint, value)
        inner = arguments[1] if arguments else Any
        return {key: _convert(inner, item, _join(where, key)) for key, item in value.items()}
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is type(None) and value is None:
        return None
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value in [member.value for member in hint]:
            return hint(value)
        raise _refuse(where, hint, value)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise _refuse(where, hint, value)
        return float(value)
    if hint in (int, bool, str) and type(value) is hint:
        return value
    raise _refuse(where, hint, value)


def _convert_union(hint: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    inner = [argument for argument in arguments if argument is not type(None)]
    if len(inner) == 1:
        return _convert(inner[0], value, where)
    for argument in inner:
        try:
            return _convert(argument, value, where)
        except UsageError:
            continue
    raise _refuse(where, hint, value)


def _convert_sequence(hint: Any, kind: type, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _refuse(where, hint, value)
    if kind is list or not arguments or arguments[-1] is Ellipsis:
        inner = [arguments[0] if arguments else Any] * len(value)
    elif len(arguments) == len(value):
        inner = list(arguments)
    else:
        raise _refuse(where, hint, value)
    return kind(
        _convert(t, item, f"{where}[{i}]") for i, (t, item) in enumerate(zip(inner, value, strict=True))
    )


def _refuse(where: str, hint: Any, value: Any) -> UsageError:
    return UsageError(f"'{where}' is {_describe(value)}: it must be {_accepted(hint)}")


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_NAMES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", Path: "a path"}


def _accepted(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _NAMES:
        return _NAMES[hint]
    if hint is type(None):
        return "null"
    if origin is typing.Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_accepted(argument) for argument in arguments)
    if dataclasses.is_dataclass(hint):
        return "a mapping with the keys " + ", ".join(field.name for field in dataclasses.fields(hint))
    if origin in (tuple, list) and arguments:
        if origin is list or arguments[-1] is Ellipsis:
            return f"a list, each item {_accepted(arguments[0])}"
        return f"a list of {len(arguments)} items: " + ", ".join(
            _accepted(argument) for argument in arguments
        )
    if origin is dict and len(arguments) == 2:
        return f"a mapping, each value {_accepted(arguments[1])}"
    return "a value" if hint is Any else getattr(hint, "__name__", str(hint))


def _join(prefix: str, key: Any) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}
