"""Strict configuration: what is accepted, what is refused, and with which words."""

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unireel.config import apply_overrides, flatten, from_dict, load_yaml, to_dict
from unireel.errors import UsageError, UserError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"'rate' is {self.rate}: it must be 0 or more")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int = 1
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[str, ...] = ()
    listed: list[int] = field(default_factory=list)
    named: dict[str, Inner] = field(default_factory=dict)
    maybe: int | None = None
    either: int | str = 0
    colour: Colour = Colour.RED
    path: Path = Path("here")
    free: dict[str, Any] = field(default_factory=dict)


FULL = {
    "name": "x",
    "count": 3,
    "flag": True,
    "inner": {"rate": 1, "kind": "b"},
    "pair": [4, 5],
    "many": ["p", "q"],
    "listed": [1, 2],
    "named": {"one": {"rate": 0.25}},
    "maybe": None,
    "either": "text",
    "colour": "blue",
    "path": "there/x",
    "free": {"anything": [1, {"deep": None}]},
}


def test_every_type_is_read():
    assert from_dict(Outer, FULL) == Outer(
        "x", 3, True, Inner(1.0, "b"), (4, 5.0), ("p", "q"), [1, 2], {"one": Inner(0.25)}, None, "text",
        Colour.BLUE, Path("there/x"), {"anything": [1, {"deep": None}]},
    )  # fmt: skip


def test_to_dict_survives_yaml_and_reads_back_equal():
    config = from_dict(Outer, FULL)
    assert from_dict(Outer, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": {"rat": 1}}, ["'inner.rat'", "did you mean 'inner.rate'", "kind"]),
        ({"nonsense": 1}, ["'nonsense'", "accepted keys", "colour"]),
        ({"count": "3"}, ["'count'", "'3'", "whole number"]),
        ({"count": True}, ["'count'", "whole number"]),
        ({"count": 1.5}, ["'count'", "1.5"]),
        ({"flag": 1}, ["'flag'", "true or false"]),
        ({"inner": {"rate": "fast"}}, ["'inner.rate'", "finite number"]),
        ({"inner": {"rate": float("nan")}}, ["'inner.rate'", "finite number"]),
        ({"inner": {"kind": "c"}}, ["'inner.kind'", "one of a, b"]),
        ({"inner": {"rate": -1.0}}, ["inner: 'rate'", "0 or more"]),
        ({"inner": 3}, ["inner must be a mapping"]),
        ({"pair": [1]}, ["'pair'", "a list of 2 items"]),
        ({"pair": [1, "x"]}, ["'pair[1]'"]),
        ({"many": "text"}, ["'many'", "a list"]),
        ({"named": {"one": {"kind": 1}}}, ["'named.one.kind'"]),
        ({"colour": "green"}, ["'colour'", "one of red, blue"]),
        ({"either": [1]}, ["'either'", "a whole number or text"]),
        ({"name": None}, ["'name' is empty", "text"]),
    ],
)
def test_refusals_name_the_key_and_what_is_accepted(change, words):
    with pytest.raises(UsageError) as caught:
        from_dict(Outer, {**FULL, **change})
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match="'name' is missing: it must be text"):
        from_dict(Outer, {})


def test_overrides_reach_deep_and_leave_the_original_alone():
    data = {"name": "x", "inner": {"kind": "a"}}
    changed = apply_overrides(
        data, ["inner.rate=1e-3", "count=7", "named.one.kind=b", "many=[a, b]", "maybe=null"]
    )
    assert data == {"name": "x", "inner": {"kind": "a"}}
    expected = Outer("x", 7, inner=Inner(1e-3, "a"), named={"one": Inner(kind="b")}, many=("a", "b"))
    assert from_dict(Outer, changed) == expected


@pytest.mark.parametrize("override", ["count", "=3", "inner..rate=1", "name.part=1", "count=[1"])
def test_broken_overrides_are_refused(override):
    with pytest.raises(UsageError, match=r"override"):
        apply_overrides({"name": "x"}, [override])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_read_as_that_float(value):
    changed = apply_overrides({}, [f"rate={abs(value)!r}"])
    assert from_dict(Inner, changed).rate == abs(value)


@pytest.mark.parametrize("text", ["1e-3", "1E5", "-2e+3", "3.e2", "1_0e1"])
def test_exponents_without_a_point_are_numbers(text):
    value = apply_overrides({}, [f"x={text}"])["x"]
    assert isinstance(value, float) and value == float(text.replace("_", ""))


def test_yaml_files(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: {c: 2e-1}\n")
    assert load_yaml(path) == {"a": 1, "b": {"c": 0.2}}
    assert flatten(load_yaml(path)) == {"a": 1, "b.c": 0.2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("- 1\n", "must hold a mapping"),
        ("a: [\n", "not valid YAML"),
        ("", "mapping"),
    ],
)
def test_bad_yaml_files(tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        load_yaml(path)
    assert "a.yaml" in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_yaml(tmp_path / "b.yaml")
