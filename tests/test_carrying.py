"""Carrying a model over to a base that was trained further: what it changed is added to what the base has become."""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import unireel
from unireel import carrying
from unireel.carrying import carry, moved_tensor
from unireel.errors import UsageError, UserError
from unireel.partial import weights_file
from unireel.systems.omnivideo.decoder import add_gate, widen


@pytest.fixture
def further(untrained, tmp_path):
    """The untrained model after a training that changed its transformer."""
    folder = tmp_path / "further"
    shutil.copytree(untrained, folder)
    file = weights_file(folder / "transformer")
    torch.manual_seed(1)
    save_file(
        {key: each + 0.1 * torch.randn_like(each) for key, each in load_file(file).items()},
        file,
        {"format": "pt"},
    )
    return folder


def test_a_change_is_added_to_what_the_base_has_become(untrained, further, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(untrained, own)
    file = weights_file(own / "transformer")
    tensors = load_file(file)
    name = "blocks.0.ffn.net.2.weight"
    tensors[name] = tensors[name] + 1.0
    save_file(tensors, file, {"format": "pt"})
    assert carry(own, untrained, further, tmp_path / "out", {}) == ["transformer"]
    new, out = (load_file(weights_file(each / "transformer")) for each in (further, tmp_path / "out"))
    for key, each in out.items():
        torch.testing.assert_close(each.float(), new[key].float() + (key == name), atol=2e-2, rtol=1e-2)
    assert unireel.load(tmp_path / "out").generate("a red star", frames=1).frames.shape == (1, 48, 48, 3)
    with pytest.raises(UsageError, match="exists; choose another folder"):
        carry(own, untrained, further, tmp_path / "out", {})


def test_a_wider_decoder_moves_as_the_bases_does(untrained, further):
    """What is widened after the further training is what is moved after the widening."""
    before, after = (unireel.load(each, fast=False).transformer for each in (untrained, further))
    old, new = ({key: each.clone() for key, each in model.state_dict().items()} for model in (before, after))
    for model in (before, after):
        widen(model, seed=3)
        add_gate(model)
    wanted = after.state_dict()
    for key, own in before.state_dict().items():
        torch.testing.assert_close(moved_tensor(key, own, old.get(key), new.get(key)), wanted[key])


def test_what_does_not_fit_is_named(untrained, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="'x' is \\(2, 2\\), which does not hold the base's \\(3, 4\\)"):
        moved_tensor("x", torch.zeros(2, 2), torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(UserError, match="'y' has 7 rows, which do not hold the base's 4"):
        moved_tensor("y", torch.zeros(7, 2), torch.zeros(4, 2), torch.ones(4, 2))
    arguments = [str(untrained), str(tmp_path / "same"), "--old", str(untrained), "--new", str(untrained)]
    monkeypatch.setattr(sys, "argv", ["carrying", *arguments])
    carrying.main()
    assert capsys.readouterr().out == "moved: nothing\n"
