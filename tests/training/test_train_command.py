"""``unireel train``: its happy path and its errors, each one line with the right exit code."""

import pytest

from unireel.cli.main import main

RECIPE = """\
stage: stages:RegressionStage
output: {output}
steps: 6
log_every: 3
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(output=tmp_path / "run"))
    return file


def test_plan_train_resume_export(path, tmp_path, capsys):
    assert main(["train", str(path), "--plan", "optimizer.name=muon", "--debug", "seed=3"]) == 0
    out = capsys.readouterr().out
    assert "would start from nothing" in out and "Muon: 5 tensors" in out and "batch.x: float32 (8, 6)" in out
    assert not (tmp_path / "run").exists()

    assert main(["train", str(path)]) == 0
    err = capsys.readouterr().err
    assert "step 3/6 loss" in err and "samples/s" in err and "left" in err and "done: 6 steps" in err
    folder = tmp_path / "run"
    assert (folder / "export" / "weights.safetensors").is_file() and list((folder / "tensorboard").iterdir())

    assert main(["train", str(path), "--resume", "steps=8"]) == 0
    assert "resumed at step 6 of 8" in capsys.readouterr().err
    assert main(["train", str(path), "--plan", "ema.decay=0.5"]) == 0
    out = capsys.readouterr().out
    assert "would go on from step 8" in out and "ema.decay: was 0.999, is 0.5" in out
    (folder / "export" / "weights.safetensors").unlink()
    assert main(["train", str(path), "--export"]) == 0
    assert (folder / "export" / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{tmp}/none.yaml"], 1, "No such file"),
        ([], 2, "RECIPE"),
        (["{path}", "steps"], 2, "not of the form key=value"),
        (["{path}", "stpes=3"], 2, "did you mean 'steps'"),
        (["{path}", "steps=many"], 2, "'steps' is 'many': it must be a whole number"),
        (["{path}", "stage=stages:None"], 2, "has no Stage named None"),
        (["{path}", "stage_config.size=3"], 2, "unknown key 'stage_config.size'"),
        (["{path}", "--resume"], 1, "has no checkpoint to resume from"),
        (["{path}", "--export"], 1, "has no checkpoint to export"),
        (["{path}", "--resume", "--fresh"], 2, "not allowed with"),
        (["{path}", "output={path}/below"], 1, "cannot write to 'output'"),
    ],
)
def test_errors_are_one_line(path, tmp_path, capsys, words, code, message):
    filled = [word.format(path=path, tmp=tmp_path) for word in words]
    assert main(["train", *filled]) == code
    err = capsys.readouterr().err.strip()
    assert message in err and err.count("\n") == 0 and err.startswith("unireel: error:")


def test_a_changed_recipe_is_one_line_that_names_the_key(path, capsys):
    assert main(["train", str(path)]) == 0
    capsys.readouterr()
    assert main(["train", str(path), "optimizer.lr=0.5", "steps=9"]) == 1
    assert "optimizer.lr: was 0.001, is 0.5" in capsys.readouterr().err
    assert main(["train", str(path), "--allow", "optimizer.lr", "optimizer.lr=0.5", "steps=9"]) == 0
