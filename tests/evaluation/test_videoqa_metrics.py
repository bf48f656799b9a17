"""Scores of answers: known values on real predictions, choices, counts, WUPS against closed forms."""

from pathlib import Path

import numpy as np
import pytest

from unireel.errors import UserError
from unireel.evaluation.intervals import clustered, mean, rate
from unireel.evaluation.videoqa.choice import chosen_option
from unireel.evaluation.videoqa.datasets import DATASETS
from unireel.evaluation.videoqa.formats import Question, read_annotations, read_predictions
from unireel.evaluation.videoqa.metrics import choice, f1, l2, metrics_of, normalized
from unireel.evaluation.videoqa.scoring import add_up, join, judge_all
from unireel.evaluation.videoqa.text import number_in, token_f1
from unireel.evaluation.videoqa.wordnet import WordNet
from unireel.evaluation.videoqa.wups import wups

CORRECT = {
    "motion": 338, "spatial": 402, "temporal": 63, "yes-no": 3085, "color": 527, "object": 213, "location": 136,
    "number": 947, "other": 1461,
}  # fmt: skip


def test_activitynet_qas_example_predictions(fixtures_dir: Path) -> None:
    dataset = DATASETS["activitynet-qa"]
    names = ("val_q", "val_a", "pred_val_example")
    questions, answers, predicted = (fixtures_dir / f"activitynetqa_{name}.json" for name in names)
    joined = join(read_annotations(questions, answers, dataset), read_predictions(predicted, []))
    records, problems = judge_all(joined.pairs, metrics_of(["exact"], None))
    assert problems == []
    scores = add_up(records, "exact", dataset)
    assert scores["exact"].value == pytest.approx(7172 / 18000)
    assert {
        kind: round(scores[f"exact/{kind}"].value * scores[f"exact/{kind}"].n) for kind in CORRECT
    } == CORRECT
    assert scores["exact/free"].value == pytest.approx(6369 / 12600)
    assert scores["exact"].low < 7172 / 18000 < scores["exact"].high


def test_intervals_of_clusters() -> None:
    assert clustered([True, False], ["a", "b"]) == rate([True, False])
    assert clustered([1.0, 4.0], ["a", "b"]) == mean([1.0, 4.0])
    with pytest.raises(ValueError, match="2 values of 1 clusters"):
        clustered([1.0, 2.0], ["a"])
    generator = np.random.default_rng(0)
    videos = generator.random(200)
    values = np.repeat(videos, 10)
    score = clustered(values.tolist(), [str(each) for each in np.repeat(np.arange(200), 10)])
    # Answers that are alike within a video carry no more than the videos do.
    assert (score.high - score.low) / 3.92 == pytest.approx(videos.std() / 200**0.5, rel=0.1)
    assert score.value == pytest.approx(videos.mean())


def question(*answers: str, options: tuple[str, ...] = (), right: int | None = None) -> Question:
    return Question("1", "v", "what?", answers, "", options, right)


def test_normalisation_and_overlap() -> None:
    assert normalized(question("playing football"), "Playing, the  football.")
    assert normalized(question("no", "nope"), "Nope!")
    assert not normalized(question("red"), "reddish")
    assert token_f1("a big red ball", "red ball") == pytest.approx(0.8)
    assert f1(question("cat", "red dog"), "dog") == pytest.approx(2 / 3)
    assert token_f1("", "x") == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("3 times", 3), ("three", 3), ("Three (3)", 3), ("-1", -1), ("2.5", 2.5), ("many", None),
     ("3 or 4", None), ("", None), ("mp3", None)],
)  # fmt: skip
def test_numbers_in_answers(text: str, number: float | None) -> None:
    assert number_in(text) == number


def test_counts_have_squared_errors_and_unreadable_ones_are_listed() -> None:
    pairs = [
        (question("3"), "5"),
        (question("3"), "three times"),
        (question("3"), "many"),
        (question("3"), None),
    ]
    records, problems = judge_all(pairs, metrics_of(["l2"], None))
    assert [record["l2"] for record in records] == [4, 0, None, None]
    assert [(each.kind, each.what) for each in problems] == [("unreadable for l2", "many")]
    assert add_up(records, "l2", DATASETS["any"])["l2"].value == 2
    assert l2(question("x"), "3") is None


OPTIONS = ("red", "green", "blue", "a dog", "two")


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ("B", 1), ("(B)", 1), ("B.", 1), ("B: green", 1), ("b)", None), ("(b)", 1),
        ("Answer: C", 2), ("Best answer: C", 2),
        ("Best option: C", 2), ("not A but C", 2), ("The answer is not A, it is (B).", 1), ("A man is holding B", 1),
        ("I think the option is c", 2), ("The answer is A because it shows", 0),
        ("Green.", 1), ("the dog", 3), ("two", 4), ("3", 3),
        ("ABCD", None), ("", None), ("9", None), ("A or B", None), ("yellow", None), ("I cannot tell", None),
    ],
)  # fmt: skip
def test_what_a_model_chose(said: str, chosen: int | None) -> None:
    assert chosen_option(said, OPTIONS) == chosen


def test_choices_are_right_or_wrong_only_where_there_are_options() -> None:
    assert choice(question("blue", options=OPTIONS, right=2), "C") is True
    assert choice(question("blue", options=OPTIONS, right=2), "who knows") is False
    assert choice(question("blue"), "C") is None


def test_wups_in_closed_form() -> None:
    table = {("cat", "dog"): 0.95, ("red", "green"): 0.5, ("red", "dog"): 0.2}

    def similarity(a: str, b: str) -> float:
        return table.get((a, b), table.get((b, a), 0.0))

    assert wups("cat", "cat", similarity) == 1
    assert wups("cat", "dog", similarity, 0.9) == 0.95
    assert wups("cat", "dog", similarity, 0.96) == pytest.approx(0.095)
    assert wups("red cat", "green dog", similarity, 0) == pytest.approx(0.5 * 0.95)
    assert wups("red cat", "green dog", similarity, 0.9) == pytest.approx(0.05 * 0.95)
    # More words than needed cost in one direction.
    assert wups("red cat", "cat", similarity, 0) == wups("cat", "red cat", similarity, 0) == 0
    assert wups("", "cat", similarity) == 0


def database(folder: Path) -> Path:
    """A WordNet of eight senses in its own file format: entity > animal > {dog, cat} and > tool, and an instance."""
    licence = "  1 This is where the licence stands.\n"
    senses = [
        (100, "entity", []), (200, "animal", [("@", 100)]), (300, "dog", [("@", 200)]),
        (400, "cat", [("@", 200), ("~", 300)]),
        (500, "tool", [("@", 100)]), (600, "dog_tool", [("@", 500)]),
        (700, "rex", [("@i", 300)]), (800, "child", [("@", 100)]),
    ]  # fmt: skip
    data = "".join(
        f"{offset:08d} 03 n 01 {word} 0 {len(links):03d} "
        + "".join(f"{mark} {to:08d} n 0000 " for mark, to in links)
        + f"| about {word} @ 00000100 n 0000\n"
        for offset, word, links in senses
    )
    index = {word: [offset] for offset, word, _ in senses} | {"dog": [300, 600]}
    lines = "".join(
        f"{word} n {len(found)} 1 @ {len(found)} 0 {' '.join(f'{each:08d}' for each in found)}  \n"
        for word, found in sorted(index.items())
    )
    folder.mkdir()
    (folder / "data.noun").write_text(licence + data)
    (folder / "index.noun").write_text(licence + lines)
    (folder / "noun.exc").write_text("children child\n")
    return folder


def test_wu_palmer_from_wordnets_files(tmp_path: Path) -> None:
    wordnet = WordNet(database(tmp_path / "dict"))
    assert wordnet.senses("dogs") == [300, 600]
    assert wordnet.senses("children") == [800]
    assert wordnet.senses("xyz") == []
    # Below animal, at depth 2: two steps apart from it together.
    assert wordnet.similarity("dog", "cat") == pytest.approx(2 * 2 / (1 + 1 + 4))
    assert wordnet.similarity("rex", "cat") == pytest.approx(2 * 2 / (2 + 1 + 4))
    # The tool sense of "dog" is nearer to "tool" than the animal is.
    assert wordnet.similarity("dog", "tool") == pytest.approx(2 * 2 / (1 + 0 + 4))
    assert wordnet.similarity("cat", "children") == pytest.approx(2 * 1 / (2 + 1 + 2))
    assert (wordnet.similarity("dog", "xyz"), wordnet.similarity("xyz", "xyz")) == (0, 1)
    with pytest.raises(UserError, match=r"does not hold WordNet's index\.noun"):
        WordNet(tmp_path)


def test_mlvus_figure_is_the_mean_of_its_tasks() -> None:
    tasks = {"count": [True, False], "order": [True] * 8, "needle": [False]}
    records = [
        {"id": f"{kind}{n}", "video": f"{kind}{n}", "kind": kind, "choice": right}
        for kind, found in tasks.items()
        for n, right in enumerate(found)
    ]
    found = add_up(records, "choice", DATASETS["mlvu"])
    assert found["choice"].value == pytest.approx(9 / 11)
    assert found["choice/m-avg"].value == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["choice/m-avg"].n == 11
    assert "choice/m-avg" not in add_up(records, "choice", DATASETS["videomme"])
