"""Models that take components from another: what is left out, what is found again, and what is refused."""

# A component's file of weights is there in these tests.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import unireel
from unireel.errors import UsageError, UserError
from unireel.evaluation.fingerprint import fingerprint
from unireel.hub import CARD, component, find_model
from unireel.partial import MARKER, merged, weights_file, write_partial
from unireel.sharing import main, share

BASE = "pocket/base"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """The base with another planner, as a training exports it: in float32."""
    folder = tmp_path_factory.mktemp("models") / "changed"
    model = unireel.load(BASE)
    with torch.no_grad():
        next(model.planner.parameters()).add_(1.0)
    model.save_pretrained(folder, torch.float32)
    return folder


def test_what_is_the_base_s_is_left_out_and_found_again(changed, tmp_path):
    out = tmp_path / "shared"
    left, partial = share(changed, out, BASE)
    assert {"vae", "text_encoder", "tokenizer", "transformer", "vlm"} <= set(left)
    assert partial == ["planner"] and sorted(each.name for each in out.iterdir()) == ["planner", CARD]
    assert component(out, "vae") == find_model(BASE) / "vae"
    assert len(load_file(weights_file(out / "planner"))) == 1
    assert (
        weights_file(out / "planner").stat().st_size < weights_file(changed / "planner").stat().st_size / 10
    )
    whole, shared = unireel.load(changed), unireel.load(out)
    for name, part in whole.components.items():
        if isinstance(part, torch.nn.Module):
            other = getattr(shared, name).state_dict()
            for key, value in part.state_dict().items():
                torch.testing.assert_close(other[key], value.bfloat16().float(), rtol=0, atol=0)
    assert whole.tokenizer.get_vocab() == shared.tokenizer.get_vocab()


def test_a_shared_base_counts_in_the_fingerprint(changed, tmp_path):
    share(changed, tmp_path / "one", BASE)
    first = fingerprint(tmp_path / "one")
    (tmp_path / "one" / "planner" / "config.json").write_text("{}")
    assert fingerprint(tmp_path / "one") != first != fingerprint(find_model(BASE))


TENSORS = {
    "kept": torch.arange(6.0).view(2, 3),
    "changed": torch.ones(4),
    "grown": torch.zeros(2),
    "gone": torch.zeros(1),
}


@pytest.fixture
def parts(tmp_path):
    """A component of a base, and one beside it that has one tensor of it, one that is other, longer, new or missing."""
    base, own = tmp_path / "base" / "net", tmp_path / "own" / "net"
    for folder, tensors in (
        (base, TENSORS),
        (
            own,
            {
                **TENSORS,
                "changed": torch.zeros(4),
                "grown": torch.zeros(3),
                "new": torch.ones(1, dtype=torch.int64),
            },
        ),
    ):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"of": folder.parent.name}))
        wanted = {key: each for key, each in tensors.items() if folder == base or key != "gone"}
        save_file(wanted, folder / "model.safetensors")
    return base, own


def test_only_tensors_that_differ_are_kept_and_all_come_back(parts):
    base, own = parts
    whole = load_file(own / "model.safetensors")
    assert write_partial(own, base, "net")
    assert set(load_file(own / "model.safetensors")) == {"changed", "grown", "new"}
    folder = merged(own, base.parent)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == whole.keys()
    for key, value in whole.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value)
    assert json.loads((folder / "config.json").read_text()) == {"of": "own"}
    assert sorted(each.name for each in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not write_partial(own, base, "net"), "a part is not taken apart again"


@pytest.mark.parametrize("most", [4, 12])
def test_differences_of_low_rank_are_kept_as_factors(tmp_path, most):
    base, own = tmp_path / "base" / "net", tmp_path / "own" / "net"
    torch.manual_seed(0)
    known = {name: torch.randn(48, 64).bfloat16() for name in ("same", "low", "high")}
    low = torch.randn(48, 4) @ torch.randn(4, 64) / 8
    tensors = {
        "same": known["same"],
        "low": (known["low"].float() + low).bfloat16(),
        "high": (known["high"].float() + 0.1 * torch.randn(48, 64)).bfloat16(),
    }
    for folder, content in ((base, known), (own, tensors)):
        folder.mkdir(parents=True)
        save_file(content, folder / "model.safetensors")
    assert write_partial(own, base, "net", rank=most)
    kept = load_file(own / "model.safetensors")
    assert {key: tuple(each.shape) for key, each in kept.items()} == {
        "low.up": (48, 4),
        "low.down": (4, 64),
        "high": (48, 64),
    }
    found = load_file(merged(own, base.parent) / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert torch.equal(found["same"], tensors["same"]) and torch.equal(found["high"], tensors["high"])
    error = (found["low"] - known["low"].float() - low).norm() / low.norm()
    assert error < 0.01, "the factors hold the difference better than bfloat16 matrices do"


def test_nothing_in_common_is_left_as_it_is(parts, tmp_path):
    base, own = parts
    save_file({"kept": torch.zeros(2, 3)}, own / "model.safetensors")
    assert not write_partial(own, base, "net") and not (own / MARKER).exists()
    assert not write_partial(own, tmp_path / "nowhere", "net")


def test_other_weights_of_the_base_are_refused(parts):
    base, own = parts
    write_partial(own, base, "net")
    save_file({**TENSORS, "changed": torch.full((4,), 7.0)}, base / "model.safetensors")
    merged(own, base.parent)  # what is not taken may change
    save_file({**TENSORS, "kept": TENSORS["kept"] + 1e-3}, base / "model.safetensors")
    with pytest.raises(UserError, match="other weights than those"):
        merged(own, base.parent)


@pytest.mark.parametrize(
    "marker",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"component": "nothing", "without": [], "digest": ""}),
        json.dumps({"component": "../other/net", "without": [], "digest": ""}),
    ],
)
def test_bad_markers_are_one_line(parts, marker):
    base, own = parts
    (own / MARKER).write_text(marker)
    with pytest.raises(UserError, match=r"cannot be read|is not in") as caught:
        merged(own, base.parent)
    assert "\n" not in str(caught.value)


def test_whole_folders_are_made_once_and_removed_at_the_end(parts):
    base, own = parts
    write_partial(own, base, "net")
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: merged(own, base.parent), range(8)))
    assert len(set(folders)) == 1
    code = (
        "import sys; from pathlib import Path; from unireel.partial import merged\n"
        "folder = merged(Path(sys.argv[1]), Path(sys.argv[2])); assert folder.is_dir(); print(folder)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, own, base.parent], capture_output=True, text=True, check=True
    )
    other = done.stdout.strip()
    assert other != str(folders[0])
    assert not Path(other).exists() and folders[0].is_dir()


def test_a_component_may_share_under_another_name(changed, tmp_path):
    folder = tmp_path / "two"
    model = unireel.load(BASE)
    model.save_pretrained(folder)
    (folder / "transformer").rename(folder / "editor")
    weights = load_file(weights_file(folder / "editor"))
    weights["proj_out.bias"] = weights["proj_out.bias"] + 1
    save_file(weights, weights_file(folder / "editor"), {"format": "pt"})
    _, partial = share(folder, tmp_path / "out", BASE, {"editor": "transformer"})
    assert partial == ["editor"]
    found = load_file(weights_file(component(tmp_path / "out", "editor")))
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


def test_bad_requests_are_one_line(changed, tmp_path):
    with pytest.raises(UsageError, match="'pocket/nothing' is not packaged"):
        share(changed, tmp_path / "a", "pocket/nothing")
    with pytest.raises(UsageError, match="exists"):
        share(changed, tmp_path, BASE)
    with pytest.raises(UserError, match="not a Unireel model"):
        share(tmp_path, tmp_path / "b", BASE)
    (tmp_path / CARD).write_text(json.dumps({"system": "base", "shares": "../../etc"}))
    with pytest.raises(UserError, match="packaged models: pocket/base"):
        unireel.load(tmp_path)


def test_the_command_says_what_is_shared(changed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sharing", str(changed), str(tmp_path / "out")])
    main()
    assert "shared with pocket/base: " in capsys.readouterr().out
