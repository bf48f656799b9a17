"""The published file layout: read without running it, checked tensor by tensor, with the release's own numerics."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unireel.backbones.pickles import read_pickle, read_tensors
from unireel.backbones.wan_files import from_original_config, to_original
from unireel.cli.main import main
from unireel.errors import UserError
from unireel.systems.omnivideo.heads import ContextAdapter, VisionHead
from unireel.systems.omnivideo.released import convert

WAN = {
    "model_type": "t2v", "num_heads": 2, "dim": 24, "in_dim": 4, "out_dim": 4, "text_dim": 16, "freq_dim": 16,
    "ffn_dim": 16, "num_layers": 2, "eps": 1e-6,
}  # fmt: skip
HEAD, ADAPTER = (12, 16, 4, 24), (16, 16, 6, 32)


class Reader(nn.Module):
    """A vision head or an adapter as the release names it, made of PyTorch's own transformer."""

    def __init__(self, inner: str, source: int, width: int, queries: int, ffn: int) -> None:
        super().__init__()
        self.decoder_query = nn.Parameter(torch.randn(1, queries, width))
        self.fc = nn.Sequential(nn.Linear(source, width), nn.GELU(), nn.Linear(width, width))
        self.inner = inner
        setattr(self, inner, nn.Transformer(width, 8, 2, 2, ffn, 0.0, batch_first=True, norm_first=True))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.inner)(self.fc(tokens), self.decoder_query.expand(len(tokens), -1, -1))


@pytest.fixture(scope="module")
def parts() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head, adapter = Reader("visionHeadAdapter", *HEAD), Reader("adapter", *ADAPTER)
    visual = nn.ModuleDict(
        {"patch_embedding": nn.Conv3d(4, 24, (1, 4, 4), (1, 4, 4)), "projection": nn.Linear(24, 16)}
    )
    wan = from_original_config(WAN)
    return {
        "ar_vision_head": head.eval(),
        "adapter": adapter.eval(),
        "visual_context_adapter": visual,
        "wan_model": wan,
    }


@pytest.fixture
def layout(parts, tmp_path) -> Path:
    """The release's folder at a tiny size."""
    folder = tmp_path / "omni_ckpts"
    weights = {}
    for name, part in parts.items():
        state = to_original(part.state_dict()) if name == "wan_model" else part.state_dict()
        weights |= {f"{name}.{key}": value for key, value in state.items()}
    for name in (
        "transformer",
        "adapter",
        "vision_head/vision_head",
        "special_tokens",
        "unconditioned_context",
    ):
        (folder / name).mkdir(parents=True)
    (folder / "wan" / "wanxiang1_3b").mkdir(parents=True)
    (folder / "wan" / "wanxiang1_3b" / "config.json").write_text(json.dumps(WAN))
    torch.save({"module": weights, "step": 3}, folder / "transformer" / "model.pt")
    alone = {f"module.{key}": value for key, value in parts["adapter"].state_dict().items()}
    torch.save({"model_state_dict": alone, "epoch": 1}, folder / "adapter" / "model.pt")
    head = {key: value + 1 for key, value in parts["ar_vision_head"].state_dict().items()}
    torch.save(head, folder / "vision_head" / "vision_head" / "pytorch_model.bin")
    marks = {
        name: torch.randn(2, 16)
        for name in ("<img_st>", "<img_ed>", "<ipl_st>", "<ipl_ed>", "<prp_st>", "<prp_ed>")
    }
    (folder / "special_tokens" / "tokens.pkl").write_bytes(pickle.dumps(marks))
    dropped = {"text_emb": [torch.randn(3, 16)], "vlm_last_hidden_states": torch.randn(1, 5, 12).half()}
    (folder / "unconditioned_context" / "context.pkl").write_bytes(pickle.dumps(dropped))
    return folder


@torch.no_grad()
def test_every_part_computes_what_the_release_does(parts, layout, tmp_path, generator):
    found = convert(layout, tmp_path / "new")
    head = VisionHead.from_pretrained(tmp_path / "new" / "vision_head")
    adapter = ContextAdapter.from_pretrained(tmp_path / "new" / "adapter")
    states = torch.randn((1, 7, 12), generator=generator)
    visual = parts["ar_vision_head"](states)
    torch.testing.assert_close(head(states), visual)
    each = [
        parts["adapter"](token[None, None]) for token in visual[0]
    ]  # the release reshapes to one token a row
    torch.testing.assert_close(adapter(visual), torch.cat(each, dim=1))
    stored = load_file(next((tmp_path / "new" / "transformer").glob("*.safetensors")))
    wan = parts["wan_model"].state_dict()
    assert stored.keys() == wan.keys()
    assert all(torch.equal(stored[name], wan[name]) for name in wan)
    marks = load_file(tmp_path / "new" / "marks.safetensors")
    assert marks["<prp_ed>"].shape == (2, 16)
    dropped = load_file(tmp_path / "new" / "unconditional.safetensors")
    assert dropped["text_emb"].shape == (3, 16)
    assert json.loads((tmp_path / "new" / "omnivideo.json").read_text())["profile"] == "released"
    assert found.parameters["adapter"] == sum(each.numel() for each in parts["adapter"].parameters())
    assert "adapter/model.pt is the same" in str(found)
    assert "pytorch_model.bin differs from transformer/model.pt in" in str(found)
    assert "not there: ar_model/checkpoint" in str(found)


def damaged(layout: Path, change) -> None:
    path = layout / "transformer" / "model.pt"
    content = torch.load(path, weights_only=True)
    change(content["module"])
    torch.save(content, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("adapter.fc.2.bias"), r"another adapter: 1 missing \(fc.2.bias\)"),
        (
            lambda w: w.update({"adapter.fc.3.bias": torch.ones(1)}),
            r"another adapter: 1 unexpected \(fc.3.bias\)",
        ),
        (
            lambda w: w.update({"wan_model.patch_embedding.bias": torch.ones(1)}),
            r"another transformer: 1 misshapen",
        ),
        (lambda w: w.update({"else.bias": torch.ones(1)}), r"another model: 1 unexpected \(else.bias\)"),
        (lambda w: w.pop("ar_vision_head.fc.0.weight"), r"not Omni-Video's: it lacks fc.0.weight"),
    ],
)
def test_any_other_tensor_is_an_error_and_nothing_is_written(layout, tmp_path, change, message):
    damaged(layout, change)
    with pytest.raises(UserError, match=message):
        convert(layout, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_part_that_only_lies_alone_is_taken_from_there(parts, layout):
    damaged(layout, lambda w: [w.pop(name) for name in list(w) if name.startswith("adapter.")])
    assert "adapter is from adapter/model.pt" in str(convert(layout, None))


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [lambda x, p: p.write_bytes(pickle.dumps(x)), torch.save])
def test_what_is_in_a_pickle_is_not_run(tmp_path, write):
    write({"weight": Harm(tmp_path / "harm")}, tmp_path / "file.pkl")
    with pytest.raises(UserError, match=r"file.pkl' cannot be read as weights"):
        read_pickle(tmp_path / "file.pkl")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("new", [False, True])
def test_pickles_of_tensors_in_all_formats(tmp_path, new):
    content = {"one": torch.arange(6).view(2, 3).half(), "list": [torch.ones(2, dtype=torch.bfloat16)[1:]]}
    torch.save(content, tmp_path / "saved", _use_new_zipfile_serialization=new)
    (tmp_path / "plain").write_bytes(pickle.dumps(content))
    for name in ("saved", "plain"):
        read = read_pickle(tmp_path / name)
        assert torch.equal(read["one"], content["one"])
        assert torch.equal(read["list"][0], content["list"][0])


def test_errors_in_one_line(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_pickle(tmp_path / "nothing")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_pickle(tmp_path / "text")
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(UserError, match="no map of names to tensors"):
        read_tensors(tmp_path / "list")


def test_the_command(layout, tmp_path, capsys):
    assert main(["convert", "omnivideo", str(layout), str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "vision_head: " in printed
    assert "written to" in printed
    assert main(["convert", "omnivideo", str(layout), str(tmp_path / "new")]) == 1
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert main(["convert", "omnivideo", str(tmp_path)]) == 1
    assert "there is no file" in capsys.readouterr().err
