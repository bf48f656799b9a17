"""Finding models: packaged names, local folders, hub ids, and a clear word for everything else."""

import json

import pytest

import unireel
from unireel.errors import UserError
from unireel.hub import CARD, SYSTEMS, find_model, packaged_models, read_card


def test_packaged_models_have_valid_cards():
    for name in packaged_models():
        card = read_card(find_model(name))
        assert card["system"] in SYSTEMS and card["size"] >= 32


def test_only_safe_files_are_packaged():
    for name in packaged_models():
        kinds = {path.suffix for path in find_model(name).rglob("*") if path.is_file()}
        assert kinds <= {".json", ".txt", ".safetensors", ".jinja"}, name


def test_a_folder_is_found_as_it_is(tmp_path):
    (tmp_path / CARD).write_text(json.dumps({"system": "base"}))
    assert find_model(tmp_path) == tmp_path == find_model(str(tmp_path))
    assert read_card(tmp_path) == {"system": "base"}


@pytest.mark.parametrize("name", ["nonsense", "pocket/nothing", "./missing", "a/b/c", "", "../etc", "a b/c"])
def test_unknown_names_list_what_there_is(name):
    with pytest.raises(UserError, match=r"there is no model|is not a Unireel model") as caught:
        unireel.load(name)
    assert "\n" not in str(caught.value)
    assert all(packaged in str(caught.value) for packaged in packaged_models())


def test_a_hub_id_without_the_hub_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"model 'someone/something' cannot be fetched: the hub cannot be"
    ) as caught:
        unireel.load("someone/something")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, f"it has no {CARD}"),
        ("{", "cannot be read"),
        ("[]", "names the system None"),
        ('{"system": "nothing"}', "known systems: base"),
        ('{"system": ["base"]}', "known systems: base"),
        ("\xff", "cannot be read"),
    ],
)
def test_broken_cards(tmp_path, content, part):
    if content is not None:
        (tmp_path / CARD).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=part):
        unireel.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"device": "tpu9"}, "no device 'tpu9'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"device": "cpu", "dtype": "int8"}, "no precision 'int8'"),
    ],
)
def test_devices_and_precisions_that_do_not_exist(tmp_path, options, part):
    (tmp_path / CARD).write_text(json.dumps({"system": "base"}))
    with pytest.raises(UserError, match=part):
        unireel.load(tmp_path, **options)


def test_lazy_names():
    assert unireel.Clip.__module__ == "unireel.clip"
    with pytest.raises(AttributeError, match="nonsense"):
        unireel.nonsense  # noqa: B018 - the access is what is tested
