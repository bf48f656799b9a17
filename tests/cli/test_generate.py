"""``unireel generate``: the paths it writes, what it refuses before any work, and the films themselves."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.cli.generate import frames_for, numbered
from unireel.clip import Clip
from unireel.errors import UsageError

PROMPT = "a red star jumps twice"


@given(st.integers(2, 3000))
def test_numbered_paths_are_distinct_and_sort_in_order(count):
    paths = numbered(Path("films") / "star.mp4", count)
    assert len(set(paths)) == count
    assert sorted(map(str, paths)) == [str(path) for path in paths]
    assert all(path.suffix == ".mp4" and path.parent == Path("films") for path in paths)


def test_one_film_keeps_its_name():
    assert numbered(Path("star.gif"), 1) == [Path("star.gif")]
    assert numbered(Path("folder"), 2) == [Path("folder-1"), Path("folder-2")]


@pytest.mark.parametrize(
    ("output", "asked", "frames"),
    [
        ("a.mp4", None, None),
        ("a.gif", 9, 9),
        ("a.png", None, 1),
        ("a.png", 1, 1),
        ("a", 5, 5),
        ("a.MP4", 1, 1),
    ],
)
def test_frames_follow_from_the_output(output, asked, frames):
    assert frames_for(Path(output), asked) == frames


def test_a_film_does_not_fit_in_a_picture():
    with pytest.raises(UsageError, match="cannot hold 17 frames"):
        frames_for(Path("a.png"), 17)


@pytest.mark.parametrize(
    ("code", "words", "part"),
    [
        (2, ["", "-o", "a.mp4"], "prompt is empty"),
        (2, ["  \n", "-o", "a.mp4"], "prompt is empty"),
        (2, [PROMPT, "-o", "a.avi"], "unknown suffix"),
        (2, [PROMPT, "-o", "a.png", "--frames", "9"], "picture"),
        (2, [PROMPT, "-o", "a.mp4", "--frames", "0"], "--frames"),
        (2, [PROMPT, "-o", "a.mp4", "--frames", "many"], "not a whole number"),
        (2, [PROMPT, "-o", "a.mp4", "--scale", "0"], "--scale"),
        (2, [PROMPT, "-o", "a.mp4", "--scale", "1000"], "--scale"),
        (2, [PROMPT, "-o", "a.mp4", "--guidance", "nan"], "--guidance"),
        (2, [PROMPT, "-o", "a.mp4", "--seed", "-1"], "--seed"),
        (1, [PROMPT, "-o", "missing/a.mp4"], "does not exist"),
        (1, [PROMPT, "-o", "file.txt/a.mp4"], "does not exist"),
        (2, [PROMPT, "-o", "file.txt"], "unknown suffix"),
        (1, [PROMPT, "-o", "a.mp4", "--image", "missing.png"], "missing.png"),
        (1, [PROMPT, "-o", "a.mp4", "--image", "file.txt"], "file.txt"),
        (1, [PROMPT, "-o", "a.mp4", "--model", "pocket/nothing"], "no model 'pocket/nothing'"),
        (1, [PROMPT, "-o", "a.mp4", "--model", "folder.d"], "unireel.json"),
    ],
)
def test_refusals(fails, tmp_path, code, words, part):
    (tmp_path / "file.txt").write_text("words, not pixels")
    (tmp_path / "folder.d").mkdir()
    before = sorted(tmp_path.iterdir())
    assert part in fails(code, "generate", *words)
    assert sorted(tmp_path.iterdir()) == before


def test_output_that_is_a_folder(fails, tmp_path):
    (tmp_path / "a.mp4").mkdir()
    assert "it is a folder" in fails(1, "generate", PROMPT, "-o", "a.mp4")


def test_film_is_the_same_for_the_same_seed(unireel, weights, tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        result = unireel("generate", PROMPT, "-o", name, "--seed", seed, "--model", weights)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{name}  17 frames, ") and result.stdout.endswith(f"seed {seed}\n")
        assert result.stderr == ""
    one, two, other = (Clip.load(tmp_path / name).frames for name in ("one", "two", "other"))
    assert one.shape == (17, 48, 48, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_several_films_continue_the_seeds(unireel, weights, tmp_path):
    result = unireel("generate", PROMPT, "-o", "star.gif", "-n", 2, "--scale", 4, "--steps", 4, "--seed", 7)
    assert result.returncode == 0, result.stderr
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == ["star-1.gif", "star-2.gif"]
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["7", "8"]
    assert Clip.load(tmp_path / "star-2.gif").frames.shape[1:3] == (192, 192)


def test_picture(unireel, weights, tmp_path):
    result = unireel("generate", "a red star", "-o", "star.png")
    assert result.returncode == 0, result.stderr
    assert "a picture, 48x48" in result.stdout
    assert Clip.load(tmp_path / "star.png").frames.shape == (1, 48, 48, 3)


def test_first_frame_is_kept(unireel, weights, film, tmp_path):
    film[:1].save(tmp_path / "first.png")
    result = unireel("generate", PROMPT, "--image", "first.png", "-o", "film")
    assert result.returncode == 0, result.stderr
    made = Clip.load(tmp_path / "film").frames[0].astype(float)
    error = np.mean((made - film.frames[0]) ** 2)
    assert 10 * np.log10(255**2 / error) > 25


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a red dinosaur jumps twice"], "dinosaur"),
        ([PROMPT, "--frames", "7"], "7"),
        ([PROMPT, "--device", "tpu9"], "tpu9"),
    ],
)
def test_refusals_of_the_model(unireel, weights, tmp_path, words, part):
    result = unireel("generate", *words, "-o", "a.mp4", "--model", weights)
    assert result.returncode in (1, 2) and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("unireel: error: ") and part in line
    assert not (tmp_path / "a.mp4").exists()
