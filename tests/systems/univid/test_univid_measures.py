"""What is measured of UniVid: the same prompts under each control, prompts that need a picture, chosen films."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import json

import numpy as np
import pytest

import unireel
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.evaluation.worldbench.generation import TextToVideo
from unireel.evaluation.worldbench.setting import Setting
from unireel.systems.base.verifying import Chosen, Verification
from unireel.systems.univid.measures import ReferringToVideo, SelfVerified, all_measures
from unireel.systems.univid.pipeline import UniVid
from unireel.systems.univid.settings import Sizes
from unireel.world.render import render

SETTING = Setting("test", 0, 48)


class Painter:
    """Draws what the prompt means if it is shown the right picture, and something else if not."""

    size = 48

    def __init__(self, items):
        self.scenes = {item.text: item.scene for item in items}
        self.pictures = {item.text: item.referring.picture for item in items}

    def generate_many(self, prompts, references=None, **options):
        clips = []
        for prompt, picture in zip(prompts, references, strict=True):
            clip = render(self.scenes[prompt])
            right = np.array_equal(picture, self.pictures[prompt])
            clips.append(clip if right else Clip(np.zeros_like(clip.frames), clip.fps))
        return clips


def test_prompts_that_need_a_picture_are_judged_by_what_they_mean():
    task = ReferringToVideo()
    items = [task.item(part, index, SETTING) for part in task.parts for index in range(4)]
    assert len({item.text for item in items}) > 8
    outcomes = task.run(Painter(items), items, SETTING)
    assert sum(each.record["right"] for each in outcomes) >= 11
    wrong = Painter(items)
    wrong.pictures = dict.fromkeys(wrong.pictures, np.zeros((1, 1, 3), np.uint8))
    assert not any(each.record["right"] for each in task.run(wrong, items, SETTING))
    scores = task.scores({task.parts[0]: [each.record for each in outcomes[:4]]})
    assert set(scores) == {"ref/colour", "ref/overall"} and scores["ref/overall"].n == 4


def test_controls_share_prompts_and_noise_with_worldbench():
    tasks = {task.name: task for task in all_measures()}
    assert list(tasks) == ["ref", "t2v", "shuffled", "deaf", "unread", "best"]
    theirs = TextToVideo().item("t2v/overall", 3, SETTING)
    for name in ("shuffled", "deaf", "unread", "best"):
        item = tasks[name].item(f"{name}/overall", 3, SETTING)
        assert (item.text, item.seed, item.scene) == (theirs.text, theirs.seed, theirs.scene)
        assert item.part == f"{name}/overall"


class Chooser:
    """A single film is wrong; of two the second is right, which it chooses."""

    size = 48

    def __init__(self, scenes):
        self.scenes = scenes

    def generate_many(self, prompts, **options):
        frames = render(self.scenes[prompts[0]]).frames
        return [Clip(np.zeros_like(frames), 8) for _ in prompts]

    def best_of_many(self, prompts, count, seeds, **options):
        chosen = []
        for prompt in prompts:
            right = render(self.scenes[prompt])
            clips = (Clip(np.zeros_like(right.frames), right.fps), right)
            chosen.append(Chosen(clips[1], clips, 1, (Verification((), -1.0), Verification((), 0.0))))
        return chosen


def test_what_choosing_removes():
    task = SelfVerified()
    items = [task.item("best/overall", index, SETTING) for index in range(4)]
    records = [each.record for each in task.run(Chooser({i.text: i.scene for i in items}), items, SETTING)]
    scores = task.scores({"best/overall": records})
    assert (
        scores["best/one"].value == 0 and scores["best/removed"].value == scores["best/chosen"].value >= 0.75
    )


@pytest.fixture(scope="module")
def folder(untrained, tmp_path_factory):
    made = tmp_path_factory.mktemp("models") / "univid"
    UniVid.from_base(unireel.load(untrained), sizes=Sizes(hidden=16, layers=1)).save_pretrained(made)
    return made


def test_the_command_writes_scores_and_a_report(folder, tmp_path):
    out = tmp_path / "run"
    words = ["evaluate", "univid", "--model", str(folder), "--categories", "ref/shape,shuffled", "--n", "1"]
    assert main([*words, "--steps", "1", "--alignment", "linear", "--views", "vit", "--out", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())["scores"]
    assert {"ref/shape", "ref/overall", "shuffled/overall"} <= set(scores)
    report = (out / "report.html").read_text()
    assert "<span>univid</span> <span>--model</span>" in report and "<span>--alignment</span>" in report


def test_other_models_are_refused(untrained, tmp_path, capsys):
    assert main(["evaluate", "univid", "--model", str(untrained), "--out", str(tmp_path / "x")]) != 0
    assert "this needs univid" in capsys.readouterr().err
    picture = tmp_path / "picture.png"
    Clip(np.zeros((1, 48, 48, 3), np.uint8), 8).save(picture)
    words = ["generate", "a star", "-o", str(tmp_path / "a.mp4"), "--model", str(untrained)]
    assert main([*words, "--reference", str(picture)]) != 0
    assert "--reference needs a model that understands" in capsys.readouterr().err


def test_the_best_film_is_written_with_what_is_believed(folder, tmp_path, capsys):
    path = tmp_path / "star.gif"
    words = ["generate", "a red star jumps twice", "-o", str(path), "--model", str(folder), "--best-of", "2"]
    assert main([*words, "--steps", "1", "--frames", "5"]) == 0
    assert path.exists() and "motion of red star: jump 2" in capsys.readouterr().out
