"""GenEval: the metadata file, the layout of images, the summary."""

import json
from pathlib import Path

import pytest

from unireel.errors import UserError
from unireel.evaluation.geneval.suite import read_prompts, wanted_images, write_metadata
from unireel.evaluation.geneval.summary import TAGS, Judged, read_results, summary

COUNTS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}


def test_overall_is_the_unweighted_mean_of_six_tags_on_the_real_prompts(fixtures_dir: Path) -> None:
    prompts = read_prompts(fixtures_dir / "geneval_evaluation_metadata.jsonl")
    assert len(prompts) == 553
    assert {tag: sum(each.tag == tag for each in prompts) for tag in TAGS} == COUNTS
    # Every image of single objects is right, every fourth of two objects, nothing else.
    right = {"single_object": 4, "two_object": 1}
    results = [
        Judged(each.tag, each.text, number < right.get(each.tag, 0))
        for each in prompts
        for number in range(4)
    ]
    scores = summary(results)
    assert scores["overall"].value == pytest.approx((1 + 0.25) / 6)
    assert scores["overall"].n == 553 * 4
    assert scores["images"].value == pytest.approx((80 * 4 + 99) / (553 * 4))
    assert scores["prompts"].value == pytest.approx((80 + 99) / 553)
    assert (scores["counting"].value, scores["two_object"].value) == (0, 0.25)
    # Every prompt of a tag is as good as any other here, so resampling prompts changes nothing.
    assert scores["overall"].low == pytest.approx(scores["overall"].high)


def test_the_interval_of_overall_is_that_of_a_mean_of_six_shares() -> None:
    results = [Judged(tag, f"{tag} {i}", i % 2 == 0) for tag in TAGS for i in range(100)]
    overall = summary(results)["overall"]
    assert overall.value == 0.5
    assert (overall.high - overall.low) / 3.92 == pytest.approx(0.05 / 6**0.5, rel=0.1)


def test_a_missing_tag_is_an_error() -> None:
    with pytest.raises(UserError, match="no images of counting, position"):
        summary([Judged(tag, "a", True) for tag in TAGS if tag not in ("counting", "position")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is not a result"),
        ('{"tag": "colors", "prompt": "x"}', "line 2 of .* is not a result"),
        ('{"tag": "taste", "prompt": "x", "correct": true}', "unknown tag 'taste'"),
        ('{"tag": "colors", "prompt": "x", "correct": "yes"}', "'correct' is no truth value"),
    ],
)
def test_bad_results_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    good = json.dumps({"tag": "colors", "prompt": "x", "correct": True, "reason": "", "filename": "a.png"})
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_results(path)
    path.write_text(good + "\n\n")
    assert read_results(path) == [Judged("colors", "x", True, "a.png")]


def test_the_layout(tmp_path: Path, fixtures_dir: Path) -> None:
    source = fixtures_dir / "geneval_evaluation_metadata.jsonl"
    prompts = read_prompts(source)
    wanted = wanted_images(prompts, seed=0)
    assert len({each.path for each in wanted}) == len({each.seed for each in wanted}) == 553 * 4
    assert wanted[-1].path == Path("00552/samples/0003.png")
    write_metadata(prompts, tmp_path)
    lines = source.read_text().splitlines()
    for index in (0, 17, 552):
        written = (tmp_path / f"{index:05d}" / "metadata.jsonl").read_text()
        assert json.loads(written) == json.loads(lines[index])
        assert written.count("\n") == 1
    assert (tmp_path / "00552" / "samples").is_dir()
