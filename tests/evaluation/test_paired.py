"""Paired tests against closed forms and scipy; two runs side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.comparison_page import page
from unireel.evaluation.paired import compare_items, holm, mcnemar, permutation
from unireel.evaluation.runs import compare_runs, read_run


def test_mcnemar_in_closed_form() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)


def test_right_or_wrong_items() -> None:
    one, two = [True] * 10 + [False] * 10, [True] * 10 + [True] * 6 + [False] * 4
    found = compare_items(one, two, [str(each) for each in range(20)])
    assert (found.first, found.second, found.wins, found.losses) == (0.5, 0.8, 6, 0)
    assert (found.p, found.test) == (pytest.approx(2 / 2**6), "McNemar")
    assert found.difference.low > 0
    alike = compare_items(one, one, [str(each) for each in range(20)])
    assert (alike.p, alike.difference.value, alike.wins) == (1, 0, 0)
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_items([], [], [])


def test_permutation_agrees_with_the_t_test_on_many_items() -> None:
    generator = np.random.default_rng(3)
    one = generator.normal(0, 1, 400)
    two = one + generator.normal(0.1, 1, 400)
    found = compare_items(one.tolist(), two.tolist(), [str(each) for each in range(400)])
    assert found.test == "permutation"
    assert found.p == pytest.approx(ttest_rel(one, two).pvalue, abs=0.02)
    assert permutation(np.ones(3), ["a", "b", "c"]) == pytest.approx(1 / 4, abs=0.02)


def test_answers_about_one_video_count_once() -> None:
    # 10 questions of each of 3 videos, all won in all: as items this is certain, as videos it is 1 in 4.
    one, two = [False] * 30, [True] * 30
    found = compare_items(one, two, [str(each // 10) for each in range(30)])
    assert found.test == "permutation"
    assert found.p == pytest.approx(1 / 4, abs=0.02)


def test_holm() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.5}) == pytest.approx({"a": 0.08, "b": 0.03, "c": 0.5})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def made(folder: Path, items: list[dict], model: str = "m") -> Path:
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(each) + "\n" for each in items))
    (folder / "run.json").write_text(json.dumps({"model": model}))
    return folder


def test_runs_are_matched_by_part_and_item(tmp_path: Path) -> None:
    def item(part: str, index: int, right: bool, f1: float | None = None) -> dict:
        record = {"part": part, "index": index, "question": f"{part}{index}", "right": right, "seconds": 1.0}
        return record | ({} if f1 is None else {"f1": f1})

    first = [item("qa/color", i, False) for i in range(8)] + [item("caption", i, True, 0.5) for i in range(3)]
    second = [item("qa/color", i, i < 7) for i in range(9)] + [
        item("caption", i, True, 0.75) for i in range(3)
    ]
    found = compare_runs(read_run(made(tmp_path / "a", first, "x")), read_run(made(tmp_path / "b", second)))
    assert (found.shared, found.only_first, found.only_second) == (11, 0, 1)
    rows = {row.name: row for row in found.rows}
    assert set(rows) == {"qa/color/right", "caption/right", "caption/f1"}
    assert rows["qa/color/right"].paired.p == pytest.approx(2 / 2**7)
    assert rows["qa/color/right"].adjusted == pytest.approx(3 * 2 / 2**7)
    assert rows["caption/f1"].paired.difference.value == pytest.approx(0.25)


def test_runs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = made(tmp_path / "a", [{"id": "1", "question": "x", "exact": True}])
    with pytest.raises(UserError, match="no items in common"):
        compare_runs(read_run(one), read_run(made(tmp_path / "b", [{"id": "2", "exact": True}])))
    with pytest.raises(UserError, match="different items: question 'x' and 'y'"):
        compare_runs(
            read_run(one), read_run(made(tmp_path / "c", [{"id": "1", "question": "y", "exact": True}]))
        )
    with pytest.raises(UserError, match="no scores in common"):
        compare_runs(read_run(one), read_run(made(tmp_path / "d", [{"id": "1", "question": "x", "f1": 1.0}])))
    with pytest.raises(UserError, match="holds no evaluation"):
        read_run(tmp_path)
    (one / "items.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"line 1 of .* is not an item"):
        read_run(one)


def test_results_of_vbench_are_compared_film_by_film(tmp_path: Path) -> None:
    """As VBench wrote them; films of one prompt belong together."""
    for name, better in (("a", 0.0), ("b", 0.2)):
        films = [
            {
                "video_path": f"elsewhere/{name}/a cat {prompt}-{n}.mp4",
                "video_results": 0.5 + better + n / 100,
            }
            for prompt in range(9)
            for n in range(3)
        ]
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"model": name}))
        path = tmp_path / name / "results" / "x_eval_results.json"
        path.write_text(json.dumps({"color": [0.5, films], "scene": [0.5, films[:3]]}))
    runs = [read_run(tmp_path / name) for name in "ab"]
    found = compare_runs(*runs)
    assert ([run.name for run in runs], found.shared) == (["a", "b"], 30)
    rows = {row.name: row.paired for row in found.rows}
    assert rows["color/score"].difference.value == pytest.approx(0.2)
    assert rows["color/score"].test == "permutation"
    assert rows["color/score"].p == pytest.approx(2 / 2**9, abs=0.002)
    assert rows["scene/score"].p == 1  # one prompt alone says nothing
    direct = compare_runs(*(read_run(tmp_path / name / "results" / "x_eval_results.json") for name in "ab"))
    assert direct.rows == found.rows
    (tmp_path / "a" / "results" / "x_eval_results.json").write_text('{"color": 0.5}')
    with pytest.raises(UserError, match="no scores of single films"):
        read_run(tmp_path / "a")


def test_results_of_geneval_are_compared_image_by_image(tmp_path: Path) -> None:
    for name, good in (("a", 2), ("b", 6)):
        lines = [
            {
                "filename": f"elsewhere/{name}/{prompt:05d}/samples/{n:04d}.png",
                "tag": "colors",
                "prompt": f"prompt {prompt}",
                "correct": prompt < good,
            }
            for prompt in range(8)
            for n in range(4)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    found = compare_runs(*(read_run(tmp_path / f"{name}.jsonl") for name in "ab"))
    (row,) = found.rows
    assert (row.name, row.paired.first, row.paired.second) == ("colors/correct", 0.25, 0.75)
    assert (row.paired.wins, row.paired.test) == (16, "permutation")
    assert row.paired.p == pytest.approx(2 / 2**4, abs=0.02)
    with pytest.raises(UserError, match="holds no evaluation"):
        read_run(tmp_path)


def test_edits_of_two_models_are_shown_side_by_side(tmp_path: Path) -> None:
    for name, followed in (("a", False), ("b", True)):
        film = np.full((3, 16, 16, 3), 200 if followed else 20, np.uint8)
        item = {"id": "x/style", "part": "edit", "index": "x/style", "video": "x", "prompt": "make it bright"}
        folder = made(tmp_path / name, [item | {"followed": followed, "seen": f"{name} looks so"}], name)
        (folder / "samples" / "x").mkdir(parents=True)
        Clip(film, 8).save(folder / "samples" / "x" / "style")
    one, two = (read_run(tmp_path / name) for name in "ab")
    found = page(one, two, compare_runs(one, two), "unireel compare a b")
    assert found.count("data:image/webp") == 2 and 'alt="a"' in found
    assert "make it bright" in found and "b: b looks so" in found
