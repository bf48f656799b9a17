"""The published formats of questions, answers and predictions: joined on ids, bad rows listed."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from unireel.errors import UserError
from unireel.evaluation.tables import read_table
from unireel.evaluation.videoqa.datasets import DATASETS
from unireel.evaluation.videoqa.formats import Problem, Question, read_annotations, read_predictions
from unireel.evaluation.videoqa.scoring import join

ANY = DATASETS["any"]


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def only(path: Path, dataset: str = "any") -> Question:
    found = read_annotations(path, None, DATASETS[dataset])
    assert found.problems == []
    (question,) = found.questions.values()
    return question


def test_activitynet_qa_with_real_files(fixtures_dir: Path) -> None:
    dataset = DATASETS["activitynet-qa"]
    found = read_annotations(
        fixtures_dir / "activitynetqa_val_q.json", fixtures_dir / "activitynetqa_val_a.json", dataset
    )
    assert found.problems == []
    assert len(found.questions) == 18_000
    assert len({each.video for each in found.questions.values()}) == 1800
    counts = Counter(each.kind for each in found.questions.values())
    assert [counts[name] for name in dataset.kinds.values()] == [
        1800,
        1800,
        1800,
        4041,
        1565,
        961,
        473,
        1479,
        4081,
    ]
    predictions = read_predictions(fixtures_dir / "activitynetqa_pred_val_example.json", problems := [])
    joined = join(found, predictions)
    assert problems == joined.problems == []
    assert sum(question.id.startswith(("v_-", "v__")) for question, _ in joined.pairs) == 600


def test_msrvtt_qa_as_first_published(tmp_path: Path) -> None:
    row = {
        "answer": "couch",
        "category_id": 14,
        "id": 158581,
        "question": "what are two people sitting on?",
        "video_id": 6513,
    }
    question = only(written(tmp_path / "test_qa.json", [row]), "msrvtt-qa")
    assert (question.id, question.video, question.answers) == ("158581", "6513", ("couch",))
    assert DATASETS["msrvtt-qa"].video.format(question.video) == "video6513"


def test_ig_vlms_csv_with_an_unnamed_first_column(tmp_path: Path) -> None:
    text = (
        ",video_id,answer,question,video_name,question_id,question_type\n"
        '0,vid1201,"someone, ""him""","what is, there?",a_0_9,30933,what\n'
    )
    question = only(written(tmp_path / "MSVD_QA.csv", text))
    assert question == Question("30933", "a_0_9", "what is, there?", ('someone, "him"',), "what")


def test_tgif_qas_tabs_in_files_called_csv(tmp_path: Path) -> None:
    frame = (
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription\n"
        'tumblr_a_400\twho is "it" ?\tdog\t0\tFRAMEQA3\t25\tx\n'
    )
    question = only(written(tmp_path / "Test_frameqa_question.csv", frame), "tgif-frameqa")
    assert question == Question("FRAMEQA3", "tumblr_a_400", 'who is "it" ?', ("dog",), "object")
    count = "gif_name\tquestion\tanswer\tvid_id\tkey\ntumblr_b_250\tHow many times ?\t3\tCOUNT12\t52\n"
    assert only(written(tmp_path / "Test_count_question.csv", count)).answers == ("3",)
    action = (
        "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey\n"
        "tumblr_c\tWhat 4 times ?\tflick\tjump\tchew\tshake\tpat\t2\tACTION1\t5\n"
    )
    question = only(written(tmp_path / "Test_action_question.csv", action))
    assert (question.options[question.right or 0], question.answers) == ("chew", ("chew",))


def test_next_oe_counts_questions_of_each_video(tmp_path: Path) -> None:
    text = (
        "video,frame_count,width,height,question,answer,qid,type,additional_ref_answer\n"
        "10,5,4,3,why,play,0,CW,have fun\n11,5,4,3,why,eat,0,CW,\n"
    )
    found = read_annotations(written(tmp_path / "val.csv", text), None, ANY)
    assert [(each.id, each.answers) for each in found.questions.values()] == [
        ("10/0", ("play", "have fun")),
        ("11/0", ("eat",)),
    ]
    predictions = read_predictions(
        written(tmp_path / "p.json", {"10": {"0": "play"}, "11": {"0": "drink"}}), []
    )
    assert predictions == {"10/0": "play", "11/0": "drink"}


def test_multiple_choice_formats(tmp_path: Path) -> None:
    videomme = {
        "video_id": "001", "duration": "short", "videoID": "fFjv93ACGo8", "question_id": "001-1",
        "task_type": "Counting", "question": "When?", "answer": "C",
        "options": ["A. Apples.", "B. Candles.", "C. Berries."],
    }  # fmt: skip
    question = only(written(tmp_path / "videomme.json", [videomme]))
    assert (question.video, question.options, question.right) == (
        "fFjv93ACGo8",
        ("Apples.", "Candles.", "Berries."),
        2,
    )
    mvbench = {
        "video": "a.mp4",
        "question": "What?",
        "candidates": ["yes", "no"],
        "answer": "no",
        "start": 1.5,
        "end": 9,
    }
    question = only(written(tmp_path / "mvbench.json", [mvbench]))
    assert (question.id, question.right, question.start, question.end) == ("a.mp4/What?", 1, 1.5, 9.0)
    result = [
        {"video_id": "001", "questions": [{"question_id": "001-1", "question": "When?", "response": "C"}]}
    ]
    assert read_predictions(written(tmp_path / "r.json", result), []) == {"001-1": "C"}


def test_video_chatgpts_predictions_have_the_answer_beside_them(tmp_path: Path) -> None:
    lines = [{"id": "v_1", "question": "q", "answer": "the truth", "pred": "a lie"}, {"id": 2, "pred": 3}]
    path = written(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)))
    assert read_predictions(path, []) == {"v_1": "a lie", "2": "3"}


def test_every_kind_of_bad_row_is_listed_and_none_is_fatal(tmp_path: Path) -> None:
    questions = written(tmp_path / "q.json", [
        {"question_id": 1, "video_name": "a", "question": "what"},
        {"question_id": 2, "video_name": "a", "question": "who"},
        {"question_id": 2, "video_name": "a", "question": "who"},
        {"question_id": 3, "video_name": "a", "question": "one thing"},
        {"question_id": 3, "video_name": "a", "question": "another"},
        {"question_id": 4, "video_name": "a", "question": " "},
        {"question_id": 5, "question": "where"},
        {"question_id": 6, "video_name": "a", "question": "unanswered"},
        {"question_id": 7, "video_name": "a", "question": "choose", "options": ["x", "y"]},
        "not a row",
    ])  # fmt: skip
    answers = written(tmp_path / "a.json", [
        {"question_id": 1, "answer": "x"}, {"question_id": 2, "answer": "y"}, {"question_id": 3, "answer": "z"},
        {"question_id": 7, "answer": "w"}, {"question_id": 99, "answer": "z"}, {"question_id": 8},
    ])  # fmt: skip
    found = read_annotations(questions, answers, ANY)
    assert set(found.questions) == {"1", "2"}
    assert [(each.kind, each.where.rpartition(", ")[2]) for each in found.problems] == [
        ("bad row", "row 6"), ("bad row", "row 7"), ("bad row", "row 10"),
        ("duplicate", "2"), ("conflicting duplicate", "3"),
        ("bad row", "row 6"), ("answer without question", "3"), ("answer without question", "99"),
        ("bad row", "7"), ("question without answer", "6"), ("question without answer", "7"),
    ]  # fmt: skip
    predictions = read_predictions(written(tmp_path / "p.json", [
        {"id": "1", "pred": "x"}, {"id": "5", "pred": "x"}, {"id": "4", "pred": "x"},
        {"id": "4", "pred": "y"}, {"id": "6"},
    ]), problems := [])  # fmt: skip
    assert predictions == {"1": "x", "5": "x"}
    assert [each.kind for each in problems] == ["bad row", "conflicting duplicate"]
    joined = join(found, predictions)
    assert [(question.id, said) for question, said in joined.pairs] == [("1", "x"), ("2", None)]
    assert joined.problems == [
        Problem("question without prediction", "2", ""), Problem("prediction without question", "5", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("just words", "is none of JSON, JSON lines, CSV"),
        ("{", "is not JSON"),
        ('{"a": 1}', "is not a list of rows"),
        (
            '[{"question_id": 1, "video_name": "a", "question": "what"}]',
            r"no question has an answer in .*--answers\?",
        ),
        ("PAR1....", "needs 'pip install pyarrow'"),
    ],
)
def test_files_of_other_kinds_are_refused(
    tmp_path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UserError, match=message):
        read_annotations(written(tmp_path / "q", content), None, ANY)
    with pytest.raises(UserError, match="cannot read"):
        read_annotations(tmp_path / "none", None, ANY)


def test_half_a_line_at_the_end_is_one_bad_row(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", '{"id": 1, "pred": "x"}\n{"id": 3, "pred": "z"}\n{"id": 2, "pr')
    assert len(read_table(path)) == 3
    assert read_predictions(path, problems := []) == {"1": "x", "3": "z"}
    assert [each.kind for each in problems] == ["bad row"]
