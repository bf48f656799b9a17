"""Progress: what it says about the time left."""

import io

from unireel.evaluation.progress import Progress, duration


def test_time_left_adds_up_kinds_at_their_own_pace() -> None:
    progress = Progress({"qa": 100, "t2v": 10}, io.StringIO())
    progress.advance("qa", 50, 50, 5.0)
    assert progress.time_left() == "more than 5 s"
    progress.advance("t2v", 2, 8, 40.0)
    assert progress.time_left() == "3 min"
    progress.advance("qa", 50, 0, 5.0)
    progress.advance("t2v", 8, 0, 160.0)
    assert progress.time_left() == "0 s"


def test_a_log_file_gets_few_lines_and_the_last_one() -> None:
    log = io.StringIO()
    progress = Progress({"t2v": 100}, log)
    for left in range(99, -1, -1):
        progress.advance("t2v", 1, left, 0.01)
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("t2v 1/100, 1e+02 a second")
    assert lines[1].startswith("t2v 100/100")


def test_durations_read_well() -> None:
    assert [duration(each) for each in (0, 42.4, 120, 5400, 11_100)] == [
        "0 s",
        "42 s",
        "2 min",
        "1 h 30 min",
        "3 h 05 min",
    ]
