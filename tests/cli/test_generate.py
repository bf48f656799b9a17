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


def test_films_are_the_same_for_the_same_seed(here, untrained, tmp_path):
    """A batch continues the seeds, and its films are those that each seed makes alone."""
    for name, seed, count in (("one", 7, 1), ("two", 7, 1), ("other", 6, 2)):
        result = here("generate", PROMPT, "-o", name, "--seed", seed, "-n", count, "--model", untrained)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert [line.split()[-1] for line in result.stdout.splitlines()] == [
            str(seed + i) for i in range(count)
        ]
    one, two, other, same = (
        Clip.load(tmp_path / name).frames for name in ("one", "two", "other-1", "other-2")
    )
    assert one.shape == (17, 48, 48, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.abs(one.astype(int) - same).max() <= 1


def test_gif_enlarged(here, untrained, tmp_path):
    result = here(
        "generate", PROMPT, "-o", "a.gif", "--scale", 4, "--frames", 5, "--steps", 1, "--model", untrained
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "a.gif  5 frames, 192x192, 8 fps, seed 0\n"
    assert Clip.load(tmp_path / "a.gif").frames.shape == (5, 192, 192, 3)


def test_picture_from_a_picture(here, untrained, film, tmp_path):
    film[:1].save(tmp_path / "first.png", scale=2)
    result = here("generate", "a red star", "-o", "a.png", "--image", "first.png", "--model", untrained)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "a.png  a picture, 48x48, seed 0\n"
    assert Clip.load(tmp_path / "a.png").frames.shape == (1, 48, 48, 3)


def test_first_frame_is_kept(here, weights, film, tmp_path):
    film[:1].save(tmp_path / "first.png")
    result = here("generate", PROMPT, "--image", "first.png", "-o", "film", "--model", weights)
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
def test_refusals_of_the_model(here, untrained, tmp_path, words, part):
    result = here("generate", *words, "-o", "a.mp4", "--model", untrained)
    assert result.returncode in (1, 2) and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("unireel: error: ") and part in line
    assert not (tmp_path / "a.mp4").exists()
