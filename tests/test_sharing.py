"""Models that take components from another: what is left out, what is found again, and what is refused."""

import json

import pytest
import torch

import unireel
from unireel.errors import UsageError, UserError
from unireel.evaluation.fingerprint import fingerprint
from unireel.hub import CARD, component, find_model
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
    left = share(changed, out, BASE)
    assert {"vae", "text_encoder", "tokenizer", "transformer", "vlm"} <= set(left)
    assert sorted(each.name for each in out.iterdir()) == ["planner", CARD]
    assert component(out, "vae") == find_model(BASE) / "vae" and component(out, "planner") == out / "planner"
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
