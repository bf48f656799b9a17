"""unireel world: the picture and the samples, through the command itself."""

import json

import pytest
from PIL import Image

from unireel.cli.main import main
from unireel.world.facts import Fact, Referent, holds_in
from unireel.world.language import parse
from unireel.world.scene import Scene


def test_preview_writes_a_picture(tmp_path, capsys):
    target = tmp_path / "preview.png"
    assert main(["world", "preview", "-o", str(target), "--rows", "3", "--split", "test"]) == 0
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**20) or []) > 50
    assert str(target) in capsys.readouterr().out


def test_samples_are_scenes_with_true_texts(capsys):
    assert main(["world", "sample", "--n", "3", "--json", "--category", "two objects", "--size", "48"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 3
    for record in records:
        scene = Scene.from_dict(record["scene"])
        assert scene.size == 48
        assert len(scene.objects) == 2
        facts = {fact(each) for each in record["facts"]}
        assert facts == set(parse(record["prompt"]))
        assert all(holds_in(scene, each) for each in (*facts, *parse(record["caption"])))
        assert len(record["questions"]) > 4


def fact(fields: dict) -> Fact:
    """A fact from its JSON fields."""
    referents = {name: Referent(**fields[name]) for name in ("subject", "other") if name in fields}
    return Fact(**{**fields, **referents})


def test_samples_can_be_read_by_people(capsys):
    assert main(["world", "sample", "--n", "1", "--seed", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("prompt   ")
    assert "caption  there " in out or "caption  the film shows" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["preview", "-o", "film.mp4"], ".png"),
        (["preview", "-o", "nowhere/film.png"], "nowhere"),
        (["sample", "--category", "weather"], "counting"),
        (["sample", "--n", "0"], "1 to"),
        (["sample", "--size", "50"], "64"),
        ([], "ACTION"),
    ],
)
def test_bad_requests_get_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["world", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert list(tmp_path.iterdir()) == []
