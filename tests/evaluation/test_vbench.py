"""VBench: the leaderboard's aggregation against the papers' printed tables, its file layout, temporal flickering."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.evaluation.intervals import Score
from unireel.evaluation.papers import TABLES, rows
from unireel.evaluation.vbench.aggregate import aggregate
from unireel.evaluation.vbench.dimensions import DIMENSIONS
from unireel.evaluation.vbench.flickering import measure, temporal_flickering
from unireel.evaluation.vbench.published import check_table
from unireel.evaluation.vbench.results import read
from unireel.evaluation.vbench.suite import check_case, of_dimensions, read_suite, wanted_films
from unireel.evaluation.vbench.uncertainty import dimension_scores, group_scores, prompt_of


def test_omni_videos_rows_follow_from_their_columns() -> None:
    checked = check_table(rows("omnivideo_table3"))
    assert len(checked) == 9
    for each in checked:
        assert set(each.deviations()) == {"total", "total (dimensions)", "quality", "semantic"}
        assert max(map(abs, each.deviations().values())) < 0.01, each


def test_univids_table_has_seven_rows_that_do_not() -> None:
    checked = {each.model: each for each in check_table(rows("univid_table1"))}
    assert len(checked) == 11
    wrong = {model: set(each.wrong()) for model, each in checked.items() if each.wrong()}
    assert wrong == {
        "MiniMax-Video-01": {"total (dimensions)", "semantic"},
        "Kling 1.6": {"total", "total (dimensions)", "quality", "semantic"},
        "Wan2.1-T2V-1.3B": {"total", "total (dimensions)", "semantic"},
        "Wan2.2-TI2V-5B": {"total", "total (dimensions)", "quality", "semantic"},
        "HunyuanVideo": {"total", "total (dimensions)", "quality", "semantic"},
        "Gen-3": {"total (dimensions)", "quality"},
        "Vchitect-2.0 (VEnhancer)": {"total (dimensions)", "quality"},
    }
    # The rows that UniVid measured itself, and those of Omni-Video, are sound.
    assert not checked["UniVid (Ours)"].wrong(0.01)
    # With the other paper's cells the rows follow: these cells are the misprints.
    other = {str(row["model"]): row for row in rows("omnivideo_table3")}
    for row in rows("univid_table1"):
        if row["model"] in wrong and row["model"] in other:
            repaired = check_table([other[str(row["model"])]])[0]
            assert not repaired.wrong(0.01)


def test_the_ablations_and_the_exchanged_columns() -> None:
    for name in ("univid_table3", "univid_table4", "univid_table6"):
        assert all(each.deviations() and not each.wrong() for each in check_table(rows(name))), name
    vit, vae, full = check_table(rows("univid_table5"))
    assert not full.wrong()
    for each in (vit, vae):
        assert set(each.wrong()) == {"total", "quality", "semantic"}
        assert each.recomputed is not None
        assert each.recomputed["quality"] == pytest.approx(each.printed["semantic"], abs=0.01)
        assert each.recomputed["semantic"] == pytest.approx(each.printed["quality"], abs=0.01)


def test_every_committed_table_is_there_and_numeric() -> None:
    for name in TABLES:
        found = rows(name)
        assert len(found) >= 2
        assert all(isinstance(row["model"], str) for row in found)
        assert all(any(isinstance(value, float) for value in row.values()) for row in found)
    with pytest.raises(UsageError, match="there is no table 'x'"):
        rows("x")


def test_genevals_overall_in_the_paper_is_the_mean_of_its_columns() -> None:
    full = [row for row in rows("omnivideo_table2") if row["single_object"] is not None]
    assert len(full) == 11
    for row in full:
        *parts, overall = (value for key, value in row.items() if key != "model")
        numbers = [each for each in parts if isinstance(each, float)]
        assert isinstance(overall, float)
        assert sum(numbers) / 6 == pytest.approx(overall, abs=0.01)


PERFECT = dict.fromkeys(DIMENSIONS, 1.0)


def test_a_missing_dimension_is_an_error_not_a_zero() -> None:
    with pytest.raises(UserError, match="2 of the 16 dimensions are missing: color, scene"):
        aggregate({name: 1.0 for name in DIMENSIONS if name not in ("color", "scene")})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"colour": 1.0}, "no dimension 'colour'; accepted: subject_consistency"),
        ({"color": 88.0}, "raw scores are between 0 and 1; if all values are in percent"),
        ({"color": -0.1}, "raw scores are between 0 and 1"),
        ({"color": float("nan")}, "color is nan"),
    ],
)
def test_impossible_scores_are_named(raw: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        aggregate(PERFECT | raw)


def upstream(values: dict[str, float]) -> str:
    content = {
        name: [
            value,
            [{"video_path": f"a/p{i}-{s}.mp4", "video_results": value} for i in range(3) for s in (0, 1)],
        ]
        for name, value in values.items()
    }
    return json.dumps(content)


def test_results_are_read_from_folders_zips_and_plain_files(tmp_path: Path) -> None:
    names = list(DIMENSIONS)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "a_eval_results.json").write_text(upstream(dict.fromkeys(names[:10], 0.5)))
    (folder / "b_eval_results.json").write_text(upstream(dict.fromkeys(names[10:], 0.25)))
    (folder / "b_full_info.json").write_text("[]")
    found = read([folder])
    assert found.raw == dict.fromkeys(names[:10], 0.5) | dict.fromkeys(names[10:], 0.25)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    zipped = read([tmp_path / "s.zip"])
    assert zipped.raw == found.raw
    assert zipped.ignored == [f"{tmp_path / 's.zip'}:b_full_info.json"]
    (tmp_path / "plain.json").write_text(
        json.dumps({name.replace("_", " "): 100 * v for name, v in found.raw.items()})
    )
    assert read([tmp_path / "plain.json"], percent=True).raw == found.raw
    total = group_scores(found.raw, found.films)["total"]
    assert isinstance(total, Score)
    # Films that are all alike leave nothing to be uncertain about.
    assert (total.value, total.low, total.high) == pytest.approx((aggregate(found.raw).total,) * 3)
    assert total.n == 16 * 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "there are no VBench results"),
        ("3", "has no dimensions"),
        ('{"x": 1}', "no dimension 'x'"),
        ('{"color": "high"}', "'color' has no number"),
        ('{"color": [true]}', "'color' has no number"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read([path])


def test_two_values_for_one_dimension_are_refused(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.6)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"color": value}))
    with pytest.raises(UserError, match=r"color is 0\.5 in .*a\.json and 0\.6 in .*b\.json"):
        read([tmp_path])


def test_intervals_come_from_prompts_and_centre_on_the_aggregate() -> None:
    generator = np.random.default_rng(0)
    films = {
        name: [
            (f"x/p{i}-{s}.mp4", float(v)) for i in range(40) for s in range(5) for v in [generator.random()]
        ]
        for name in DIMENSIONS
    }
    raw = {name: float(np.mean([v for _, v in found])) for name, found in films.items()}
    scores = dimension_scores(raw, films)
    group = group_scores(raw, films)
    for name, score in (scores | group).items():
        assert isinstance(score, Score), name
        assert score.low < score.value < score.high
    color = scores["color"]
    assert isinstance(color, Score)
    # Independent uniform films: the standard error of 200 of them is 0.0204; clusters of independents do not widen it.
    assert (color.high - color.low) / 3.92 == pytest.approx(0.0204, rel=0.25)
    assert color.n == 200
    assert group_scores(raw, {"color": films["color"]})["total"] == pytest.approx(aggregate(raw).total)
    assert prompt_of("a/b/a cat, 3-d-12.mp4") == "a cat, 3-d"


def test_temporal_flickering_in_closed_form() -> None:
    frames = np.zeros((4, 2, 2, 3), np.uint8)
    frames[1], frames[3] = 255, 51  # differences of 255, 255 and 51
    assert temporal_flickering(Clip(frames, 8)) == pytest.approx(1 - (255 + 255 + 51) / 3 / 255)
    with pytest.raises(UserError, match="two frames"):
        temporal_flickering(Clip(frames[:1], 8))


def test_temporal_flickering_of_a_real_film_is_upstreams(fixtures_dir: Path) -> None:
    videos = fixtures_dir / "videos"
    results, failed = measure([videos / "fastvideo_ltx2.mp4", videos / "decord_corrupted.mp4"])
    assert results.raw["temporal_flickering"] == pytest.approx(0.97945, abs=1e-4)
    assert [path.name for path, _ in failed] == ["decord_corrupted.mp4"]
    assert "damaged after 28 frames" in failed[0][1]


def test_the_real_suite_has_the_known_size(fixtures_dir: Path) -> None:
    suite = read_suite(fixtures_dir / "vbench_full_info.json")
    assert len(suite) == 946
    assert len({each.text for each in suite}) == 944
    wanted = wanted_films(suite, seed=0)
    assert len({each.path for each in wanted}) == 946 * 5
    assert len({each.path.name for each in wanted}) == 4720
    assert max(len(each.path.name.encode()) for each in wanted) == 216
    # The two prompts that stand in two groups get the same films in both.
    assert len({each.seed for each in wanted}) == 4720
    assert len(of_dimensions(suite, ["color"])) == 85
    assert len(of_dimensions(suite, ["imaging quality", "aesthetic-quality"])) == 93
    assert len(wanted_films(of_dimensions(suite, ["temporal_flickering"]), 0, flicker_samples=25)) == 75 * 25


def test_names_that_differ_in_case_only(
    fixtures_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wanted_films(read_suite(fixtures_dir / "vbench_full_info.json"), 0)
    check_case(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "exists", lambda self: True)  # a file system that does not tell case apart
    with pytest.raises(UserError, match=r"fantasy landscape.* would be one file"):
        check_case(wanted, tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"prompt_en": "a", "dimension": ["taste"]}, "entry 0 of .* names no dimension"),
        ({"prompt_en": " ", "dimension": ["color"]}, "lacks a prompt"),
        ({"prompt_en": "a/b", "dimension": ["color"]}, "cannot be the name of a file"),
        ("a", "is not a prompt"),
    ],
)
def test_bad_suites_are_refused(tmp_path: Path, entry: object, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=message):
        read_suite(path)
