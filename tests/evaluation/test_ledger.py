"""The ledger: nothing that was judged is lost, and nothing foreign gets in."""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportAttributeAccessIssue=false

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.evaluation.shards import Shard
from unireel.evaluation.worldbench import Ledger
from unireel.evaluation.worldbench.ledger import KEPT
from unireel.evaluation.worldbench.task import Outcome

SINGLE = "t2v/single object"


def outcome(index: int, right: bool = True, film: bool = False, part: str = SINGLE) -> Outcome:
    frames = np.full((5, 16, 16, 3), index, dtype=np.uint8)
    frames[:, 4:8, 4:8] = np.arange(5, dtype=np.uint8)[:, None, None, None] * 50
    return Outcome({"part": part, "index": index, "right": right}, Clip(frames, 8) if film else None)


def test_records_are_found_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run", {"seed": 0})
    ledger.append([outcome(0), outcome(2, False)], 3.0)
    ledger.append([outcome(0, part="caption")], 1.0)
    again = Ledger(tmp_path / "run", {"seed": 0})
    assert again.missing("t2v/single object", 4) == [1, 3]
    assert [each["right"] for each in again.done("t2v/single object", 4)] == [True, False]
    assert [each["index"] for each in again.done("t2v/single object", 2)] == [0]
    assert again.done("t2v/single object", 1)[0]["seconds"] == 1.5
    assert again.missing("caption", 1) == []


def test_half_a_line_is_cut_off_and_done_again(tmp_path: Path) -> None:
    Ledger(tmp_path / "run", {}).append([outcome(0), outcome(1)], 1.0)
    items = tmp_path / "run" / "items.jsonl"
    whole = items.read_bytes()
    items.write_bytes(whole + whole[:20])
    again = Ledger(tmp_path / "run", {})
    assert again.missing("t2v/single object", 3) == [2]
    again.append([outcome(2)], 1.0)
    assert [json.loads(line)["index"] for line in items.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"part": "caption"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    Ledger(tmp_path / "run", {}).append([outcome(0)], 1.0)
    with (tmp_path / "run" / "items.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*items\.jsonl is damaged"):
        Ledger(tmp_path / "run", {})


def test_the_first_films_are_kept_and_readable(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run", {})
    ledger.append([outcome(index, index % 2 == 0, film=True) for index in range(10)], 1.0)
    ledger = Ledger(tmp_path / "run", {})
    ledger.append([outcome(index, index % 2 == 0, film=True) for index in range(10, 20)], 1.0)
    records = ledger.done("t2v/single object", 20)
    kept = {
        right: [r["index"] for r in records if "film" in r and r["right"] is right] for right in (True, False)
    }
    assert kept[True] == list(range(0, 20, 2))[: KEPT[True]]
    assert kept[False] == list(range(1, 20, 2))[: KEPT[False]]
    with Image.open(ledger.films / records[4]["film"]) as picture:
        assert picture.n_frames == 5
        for number in range(5):
            picture.seek(number)
            expected = outcome(4, film=True).film
            assert expected is not None
            assert (np.asarray(picture.convert("RGB")) == expected.frames[number]).all()


def test_another_evaluation_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "run", {"model": "a", "seed": 0, "steps": None})
    Ledger(tmp_path / "run", {"model": "a", "seed": 0, "steps": None})
    with pytest.raises(UserError, match=r"holds another evaluation \(seed: 0, not 1\)"):
        Ledger(tmp_path / "run", {"model": "a", "seed": 1, "steps": None})


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(UserError, match="holds other files"):
        Ledger(tmp_path, {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Ledger(tmp_path, {})
    with pytest.raises(UserError, match="cannot write"):
        Ledger(tmp_path / "thesis.tex", {})


def test_shards_share_a_folder_and_read_each_other(tmp_path: Path) -> None:
    one, two = (Ledger(tmp_path / "run", {}, Shard(number, 2)) for number in (1, 2))
    assert (one.missing(SINGLE, 5), two.missing(SINGLE, 5)) == ([0, 2, 4], [1, 3])
    one.append([outcome(index) for index in (0, 2, 4)], 1.0)
    assert one.left(SINGLE, 5) == 2
    two.append([outcome(1)], 1.0)
    assert two.left(SINGLE, 5) == 4  # it looked before the other began
    two.refresh()
    assert two.left(SINGLE, 5) == 1
    # The other shard is in the middle of a line: it is neither read nor cut off.
    path = tmp_path / "run" / "items-2-of-2.jsonl"
    with path.open("ab") as file:
        file.write(b'{"part": "t2v/sin')
    one.refresh()
    assert [each["index"] for each in one.done(SINGLE, 5)] == [0, 1, 2, 4]
    assert path.read_bytes().endswith(b'{"part": "t2v/sin')
    # Its own process cuts it off when it goes on; a run of everything does what is left.
    for ledger in (one, two):
        ledger.close()
    assert Ledger(tmp_path / "run", {}, Shard(2, 2)).missing(SINGLE, 5) == [3]
    assert path.read_bytes().endswith(b"}\n")
    assert Ledger(tmp_path / "run", {}).missing(SINGLE, 6) == [3, 5]


def test_shards_keep_about_as_many_films_as_one_run(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        ledger = Ledger(tmp_path / "run", {}, Shard(number, 3))
        ledger.append([outcome(index, right=False, film=True) for index in range(number - 1, 30, 3)], 1.0)
        ledger.close()
    kept = [each for each in Ledger(tmp_path / "run", {}).done(SINGLE, 30) if "film" in each]
    assert [each["index"] for each in kept] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="is not a shard"):
        Shard.read(text)
