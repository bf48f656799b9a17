"""Jobs on disk: order, bounds, groups, deletion, expiry, and every moment at which a process can die."""

# What a test asserts about a job implies that there is one.
# pyright: reportOptionalMemberAccess=false

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.errors import CATALOGUE, ApiError, places
from unireel.serving.jobs import FilmRequest, Job, pack_clip, unpack_clip
from unireel.serving.store import JOB_ID, JobStore

FILM = FilmRequest("a red star", seed=1, frames=17, steps=4)
PICTURE = replace(FILM, frames=1)


class Clock:
    """Time that stands still until it is moved."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "jobs", max_queued=8, max_attempts=3, ttl=100, quota=1000, clock=clock)
    yield opened
    opened.close()


def reopened(store: JobStore) -> JobStore:
    """The same folder in a new process's eyes."""
    store.close()
    options = {
        "max_attempts": store.max_attempts,
        "ttl": store.ttl,
        "quota": store.quota,
        "clock": store.clock,
    }
    return JobStore(store.folder, store.max_queued, **options)  # type: ignore[arg-type]


def write(text: str = "film"):
    return lambda folder: (folder / "film.mp4").write_text(text)


def statuses(store: JobStore) -> list[str]:
    return [job.status for job in store.page(100, descending=False)[0]]


def add(store: JobStore, *requests: FilmRequest, **options) -> list[Job]:
    return [store.submit([request], **options)[0] for request in requests]


def test_a_job_keeps_everything_that_decides_its_film(store):
    picture = Clip(np.random.default_rng(0).integers(0, 256, (1, 6, 5, 3), dtype=np.uint8), 8)
    request = replace(FILM, prompt="ein Stern \u2605 'DROP TABLE jobs'", guidance=2.5, scale=3)
    (job,) = store.submit([request], picture, priority=2)
    assert JOB_ID.fullmatch(job.id)
    (claimed,) = store.claim(4)
    assert (claimed.id, claimed.request, claimed.priority) == (job.id, request, 2)
    assert claimed.source is not None and np.array_equal(claimed.source.frames, picture.frames)
    assert store.get(job.id).source is None


def test_packed_clips_are_lossless():
    clip = Clip(np.random.default_rng(1).integers(0, 256, (3, 7, 4, 3), dtype=np.uint8), 29.97)
    again = unpack_clip(pack_clip(clip))
    assert np.array_equal(again.frames, clip.frames) and again.fps == clip.fps


def test_the_queue_keeps_priority_and_arrival_and_takes_only_neighbours_that_fit(store):
    first, second, third, urgent, fourth = (
        add(store, FILM, FILM, PICTURE) + add(store, PICTURE, priority=1) + add(store, FILM)
    )
    assert [store.position(job) for job in (urgent, first, second, third, fourth)] == [0, 1, 2, 3, 4]
    claims = [[job.id for job in store.claim(8)] for _ in range(4)]
    assert claims == [[urgent.id], [first.id, second.id], [third.id], [fourth.id]]
    assert store.claim(8) == []


def test_what_goes_together():
    picture = Clip(np.zeros((1, 2, 2, 3), np.uint8), 8)
    job = Job("a", FILM)
    same = replace(FILM, prompt="another", seed=9, scale=4)
    assert job.goes_with(Job("b", same))
    for other in (replace(FILM, frames=5), replace(FILM, steps=5), replace(FILM, guidance=1.0)):
        assert not job.goes_with(Job("b", other))
    assert not job.goes_with(Job("b", FILM, source=picture))
    edit = Job("c", replace(FILM, edit=True), source=picture)
    assert edit.goes_with(edit) and not edit.goes_with(Job("d", FILM, source=picture))
    assert not edit.goes_with(Job("d", replace(edit.request, frames=5), source=picture))


def test_a_full_queue_refuses_all_or_nothing(store):
    store.submit([FILM] * 6)
    with pytest.raises(ApiError) as refused:
        store.submit([FILM] * 3, retry_after=lambda waiting: waiting * 10)
    assert (refused.value.code, refused.value.status, refused.value.headers()) == (
        "queue_full",
        429,
        {"Retry-After": "60"},
    )
    assert store.count("queued") == 6
    store.claim(4)
    store.submit([FILM] * 3)


def test_a_key_makes_a_request_once(store):
    (job,) = store.submit([FILM], key="k")
    assert store.submit([FILM], key="k")[0].id == job.id
    with pytest.raises(ApiError, match="was used for another request"):
        store.submit([PICTURE], key="k")
    with pytest.raises(ApiError, match="was used for another request"):
        store.submit([FILM], Clip(np.zeros((1, 2, 2, 3), np.uint8), 8), key="k")
    store.delete(job.id)
    assert store.submit([FILM], key="k")[0].id != job.id


def test_a_film_is_kept_whole_or_not_at_all(store, clock):
    job, other = add(store, FILM, FILM)
    store.claim(8)
    assert store.complete(job, write("abc"))
    done = store.get(job.id)
    assert (done.status, done.content_bytes, done.expires_at) == ("completed", 3, clock.now + 100)
    assert (store.files(job) / "film.mp4").read_text() == "abc"

    def broken(folder: Path) -> None:
        write()(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        store.complete(other, broken)
    assert store.get(other.id).status == "in_progress"
    assert not store.files(other).exists()


def test_deleted_while_it_runs(store):
    job, mate = add(store, FILM, FILM)
    (batch,) = {each.batch for each in store.claim(8)}
    assert store.delete(job.id).status == "in_progress"
    assert store.get(job.id) is None and statuses(store) == ["in_progress"]
    assert not store.complete(job, write())
    assert not store.files(job).exists()
    # The group stays as it was for as long as it may have to be made again.
    store = reopened(store)
    store.recover()
    again = store.claim(8)
    assert [(each.id, each.status, each.batch) for each in again] == [
        (job.id, "cancelled", batch),
        (mate.id, "in_progress", batch),
    ]
    assert store.complete(mate, write())
    assert store._number("SELECT count(*) FROM jobs") == 1
    assert store.delete("video_" + "0" * 32) is None
    store.close()


def test_after_a_death_everything_is_there_once(store):
    finished, running, third, waiting, watched = (
        *add(store, FILM, FILM, FILM, PICTURE),
        *add(store, PICTURE, transient=True),
    )
    store.claim(3)
    store.complete(finished, write("first"))
    # The process dies after the folder has taken its place and before the database says so.
    (store.content / running.id).mkdir()
    (store.content / f"{third.id}.part").mkdir()
    store = reopened(store)
    assert store.recover() == []
    assert statuses(store) == ["completed", "queued", "queued", "queued"]
    assert sorted(path.name for path in store.content.iterdir()) == [finished.id]
    assert store.get(watched.id) is None
    again = store.claim(8)
    assert [job.id for job in again] == [finished.id, running.id, third.id], "the same group"
    assert not store.complete(finished, write("doubled"))
    assert (store.files(finished) / "film.mp4").read_text() == "first"
    assert store.complete(running, write()) and store.complete(third, write())
    assert [job.id for job in store.claim(8)] == [waiting.id]
    store.close()


def test_what_kills_the_server_again_and_again_is_given_up(store):
    (job,) = add(store, FILM)
    for attempt in range(3):
        assert [each.id for each in store.claim(1)] == [job.id], attempt
        store = reopened(store)
        given_up = store.recover()
    assert [each.id for each in given_up] == [job.id]
    assert store.get(job.id).error == "gave_up" and store.claim(1) == []
    store.close()


def test_giving_back_is_not_a_try(store):
    (job,) = add(store, FILM)
    for _ in range(10):
        store.give_back(store.claim(1))
    assert store.get(job.id).attempts == 0 and store.get(job.id).status == "queued"


def test_expiry_and_quota(store, clock):
    job, failed, waiting = add(store, FILM, FILM, PICTURE)
    store.claim(8)
    store.complete(job, write("x" * 1000))
    store.fail(failed, "generation_failed")
    with pytest.raises(ApiError) as refused:
        store.submit([FILM])
    assert (refused.value.code, refused.value.retry_after) == ("storage_full", 100)
    store.submit([FILM], transient=True)
    clock.now += 99
    assert store.sweep() == 0
    clock.now += 1
    assert store.sweep() == 2
    assert not store.files(job).exists() and store.stored_bytes() == 0
    assert store.get(waiting.id).status == "queued"
    store.submit([FILM])


def test_pages(store):
    ids = [job.id for job in add(store, *[FILM] * 5)]
    add(store, FILM, transient=True)
    page, more = store.page(2)
    assert [job.id for job in page] == ids[:2:-1] and more
    page, more = store.page(3, after=page[-1].id)
    assert [job.id for job in page] == ids[2::-1] and not more
    page, more = store.page(2, after=ids[1], descending=False)
    assert [job.id for job in page] == ids[2:4] and more
    assert store.page(2, after="video_unknown") == ([], False)


def test_one_owner(store):
    code = "import pathlib, sys, unireel.serving.store as s; s.JobStore(pathlib.Path(sys.argv[1]))"
    run = subprocess.run([sys.executable, "-c", code, str(store.folder)], capture_output=True, text=True)
    assert run.returncode == 1 and "another server uses" in run.stderr


def test_another_version_and_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot use"):
        JobStore(tmp_path / "file")
    folder = tmp_path / "newer"
    folder.mkdir()
    database = sqlite3.connect(folder / "jobs.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(UserError, match="another version of Unireel"):
        JobStore(folder)


SUBMITTER = """
import sys
from pathlib import Path
from unireel.serving.jobs import FilmRequest
from unireel.serving.store import JobStore
store = JobStore(Path(sys.argv[1]), max_queued=10**6)
for number in range(10**6):
    (job,) = store.submit([FilmRequest("a", number, 1, 1)])
    print(job.id, flush=True)
    if number % 3 == 2:
        for each in store.claim(2):
            store.complete(each, lambda folder: (folder / "film.mp4").write_text(each.id))
            print("done", each.id, flush=True)
"""


def test_killed_in_the_middle_of_writing(tmp_path):
    """What a killed process had acknowledged is there, and what it called completed has its file."""
    command = [sys.executable, "-c", SUBMITTER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
    words = [line.split() for line in lines if line.endswith("\n")]
    store = JobStore(tmp_path)
    store.recover()
    known = {job.id: job for job in store.page(10**6)[0]}
    for *done, id in words:
        assert id in known
        if done:
            assert known[id].status == "completed"
    for job in known.values():
        assert job.status in ("queued", "completed")
        assert store.files(job).exists() == (job.status == "completed")
        if job.status == "completed":
            assert (store.files(job) / "film.mp4").read_text() == job.id
    store.close()


def test_every_message_of_the_catalogue_can_be_filled():
    for code, entry in CATALOGUE.items():
        values = dict.fromkeys(places(code) - {"seconds"}, "x")
        error = ApiError(code, retry_after=3, **values)
        assert error.body()["error"]["code"] == code and "{" not in error.message
        assert 400 <= entry.status < 600
    with pytest.raises(KeyError):
        ApiError("queue_ful")
