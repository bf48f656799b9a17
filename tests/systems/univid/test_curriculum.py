"""Stage III's curriculum, and the annotations of full-scale trainings."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.errors import UserError
from unireel.systems.univid.stages.curriculum import STAGE_ONE, STAGE_THREE, STAGE_TWO, Curriculum
from unireel.systems.univid.stages.datasets import (
    CaptionedFilm,
    Curation,
    Dialogue,
    find_video,
    read_dialogues,
    read_films,
)

HEAD = "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds,new_id"


def test_sets_are_the_papers():
    assert set(STAGE_ONE) == {"connector", "lora"}
    assert set(STAGE_TWO) == {"vit", "merger"}
    assert set(STAGE_THREE["semantic"]) == {"vit", "merger"}
    assert "vit" not in STAGE_THREE["mixing"] and "lora" in STAGE_THREE["mixing"]
    assert set(STAGE_THREE["joint"]) == {"vit", "merger", "connector", "lora"}


def test_phases_follow_one_another():
    own = Curriculum(batches=100, semantic=0.25, mixing=0.35)
    phases = [own.phase(index) for index in range(100)]
    assert [phases.count(each) for each in ("semantic", "mixing", "joint")] == [25, 35, 40]
    assert phases == sorted(phases, key=("semantic", "mixing", "joint").index)


@given(st.integers(0, 999), st.floats(0, 1))
def test_the_mix_goes_from_vit_to_vae_and_ends_whole(index, draw):
    own = Curriculum(batches=1000, semantic=0.2, mixing=0.5)
    mix = own.mix(index, draw)
    match own.phase(index):
        case "semantic":
            assert (mix.vit, mix.vae) == (1, 0)
        case "mixing":
            assert mix.vit + mix.vae == pytest.approx(1)
            assert mix.vae <= (index / 1000 - 0.2) / 0.5 + 1e-9
        case "joint":
            assert (mix.vit, mix.vae) == (1, 1)


def test_the_largest_share_of_the_vae_grows():
    own = Curriculum(batches=1000, semantic=0.2, mixing=0.5)
    largest = [own.mix(index, 1.0).vae for index in range(200, 700)]
    assert largest == sorted(largest) and largest[0] == 0 and largest[-1] > 0.99


def test_impossible_phases_are_refused():
    with pytest.raises(ValueError, match="together at most 1"):
        Curriculum(semantic=0.7, mixing=0.5)


def rows(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEAD, *lines)) + "\n")
    return path


def test_openvid_rows_are_curated(tmp_path):
    table = rows(
        tmp_path / "OpenVid-1M.csv",
        'a.mp4,"a dog, and a cat, in the rain",5.1,4.0,0.99,pan_left,120,24,5.0,1',
        "b.mp4,a dog runs on the beach,4.4,4.0,0.99,static,120,24,5.0,2",
        "c.mp4,a dog runs on the beach,5.0,2.9,0.99,static,120,24,5.0,3",
        "d.mp4,a dog runs on the beach,5.0,3.0,0.79,static,120,24,5.0,4",
        "e.mp4,a dog runs on the beach,5.0,3.0,0.8,static,72,24,2.9,5",
        "f.mp4,short,5.0,3.0,0.8,static,120,24,5.0,6",
        "g.mp4,a dog runs on the beach,4.5,3.0,0.8,static,72,24,3.0,7",
    )
    assert read_films(table) == [
        CaptionedFilm("a.mp4", "a dog, and a cat, in the rain"),
        CaptionedFilm("g.mp4", "a dog runs on the beach"),
    ]
    assert len(read_films(table, most=1)) == 1
    assert len(read_films(table, Curation(0, 0, 0, 0, 0))) == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("video,caption\na.mp4,b\n", "no column 'aesthetic score'"),
        (f"{HEAD}\na.mp4,a dog in the rain,good,4,0.9,x,1,24,5,1\n", "line 2: 'aesthetic score' is 'good'"),
        (f"{HEAD}\na.mp4,a dog in the rain,1,4,0.9,x,1,24,5,1\n", "no film that is good enough"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, content, words):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        read_films(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_films(tmp_path / "nothing.csv")


def test_video_chatgpt_dialogues(tmp_path):
    content = [
        {
            "id": "v_1",
            "video": "v_1.mp4",
            "conversations": [
                {"from": "human", "value": "<video>\nwhat is he doing?"},
                {"from": "gpt", "value": "bowling"},
                {"from": "human", "value": "where?"},
                {"from": "gpt", "value": "indoors"},
            ],
        }
    ]
    (tmp_path / "q.json").write_text(json.dumps(content))
    assert read_dialogues(tmp_path / "q.json") == [
        Dialogue("v_1.mp4", "what is he doing?", "bowling"),
        Dialogue("v_1.mp4", "where?", "indoors"),
    ]
    content[0]["conversations"].pop()
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="row 1: human and gpt must take turns"):
        read_dialogues(tmp_path / "bad.json")


def test_activitynet_qa_as_published(fixtures_dir):
    files = [fixtures_dir / f"activitynetqa_val_{each}.json" for each in "qa"]
    found = read_dialogues(*files)
    questions, answers = (json.loads(each.read_text()) for each in files)
    by_id = {each["question_id"]: each["answer"] for each in answers}
    first = questions[0]
    assert found[0] == Dialogue(first["video_name"], first["question"], by_id[first["question_id"]])
    assert len(found) == len(questions) and len(read_dialogues(*files, most=7)) == 7


def test_videos_are_found_under_the_names_that_annotations_use(tmp_path):
    for name in ("a.mp4", "v_b.mkv"):
        (tmp_path / name).touch()
    assert [find_video(tmp_path, each).name for each in ("a.mp4", "a", "b")] == ["a.mp4", "a.mp4", "v_b.mkv"]
    with pytest.raises(UserError, match="no video 'c'"):
        find_video(tmp_path, "c")
