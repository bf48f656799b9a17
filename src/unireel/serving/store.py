"""Jobs on disk: a SQLite database in WAL mode and a folder with the finished films.

A job is in the database before its client hears of it, and its film is complete in the content folder before the
database says ``completed``; so whatever moment the process is killed at, :meth:`JobStore.recover` finds every job
exactly once, and what had started is started again. One process owns a store; a lock file says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest, Job, new_id, pack_clip, unpack_clip

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    priority INTEGER NOT NULL,
    transient INTEGER NOT NULL,
    request TEXT NOT NULL,
    source BLOB,
    batch TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    expires_at REAL,
    error TEXT,
    content_bytes INTEGER NOT NULL DEFAULT 0,
    key TEXT UNIQUE
);
CREATE INDEX queue ON jobs (status, priority DESC, sequence);
"""
JOB_ID = re.compile(r"video_[0-9a-f]{32}")
_COLUMNS = (
    "sequence, id, status, priority, transient, request, batch, attempts, created_at, started_at,"
    " completed_at, expires_at, error, content_bytes, key"
)


class JobStore:
    """The queue and the archive.

    Args:
        folder: made if it does not exist.
        max_queued: jobs that may wait; more are refused with ``queue_full``.
        max_attempts: a job that was started this often without end is given up.
        ttl: seconds that a finished job is kept.
        quota: bytes of finished films; above it new jobs are refused with ``storage_full``.
        mark: hexadecimal digits that ids begin with, where several stores are behind one address.
        clock: seconds since 1970.

    Raises:
        UserError: the folder cannot be used, or another process uses it.
    """

    def __init__(
        self,
        folder: Path,
        max_queued: int = 256,
        max_attempts: int = 10,
        ttl: float = 24 * 3600.0,
        quota: int = 4 * 2**30,
        mark: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.content = folder, folder / "content"
        self.max_queued, self.max_attempts, self.ttl, self.quota = max_queued, max_attempts, ttl, quota
        self.mark, self.clock = mark, clock
        self._mutex = threading.RLock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.content.mkdir(exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another server uses {folder}; stop it or name another folder") from None
        except OSError as error:
            raise UserError(f"cannot use {folder} for jobs: {error.strerror or error}") from None
        try:
            self._database = self._open(folder / "jobs.sqlite")
        except sqlite3.Error as error:
            raise UserError(f"cannot use {folder / 'jobs.sqlite'}: {error}") from None

    def _open(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise UserError(
                f"{path} was written by another version of Unireel (format {version}, not {SCHEMA_VERSION})"
            )
        return database

    def close(self) -> None:
        """Give the folder free. Nothing may be called after it."""
        with self._mutex:
            self._database.close()
            self._lock_file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    # ---------------------------------------------------------------- asking

    def submit(
        self,
        requests: Sequence[FilmRequest],
        source: Clip | None = None,
        *,
        priority: int = 0,
        transient: bool = False,
        key: str | None = None,
        ids: Sequence[str] | None = None,
        retry_after: Callable[[int], int] = lambda waiting: 1 + waiting,
    ) -> list[Job]:
        """Queue all of ``requests`` or none.

        Args:
            source: first frame or film to edit, of all of them.
            key: the client's word for one request; a job that has it is returned instead of a new one.
            ids: one for each, by default new ones.
            retry_after: from the number of waiting jobs to the seconds that a refused client is told.

        Raises:
            ApiError: ``queue_full``, ``storage_full``, ``idempotency_conflict``.
        """
        if key is not None and len(requests) != 1:
            raise ValueError("a key is for one request")
        packed = None if source is None else pack_clip(source)
        now = self.clock()
        with self._transaction() as database:
            if key is not None and (known := self._select("key = ?", key)):
                same = known[0].request == requests[0] and self._packed(known[0].id) == packed
                if not same:
                    raise ApiError("idempotency_conflict")
                return known
            waiting = self.count("queued")
            if waiting + len(requests) > self.max_queued:
                raise ApiError("queue_full", retry_after=retry_after(waiting))
            if not transient and self.stored_bytes() >= self.quota:
                raise ApiError("storage_full", retry_after=self._until_expiry(now))
            ids = ids or [new_id(self.mark) for _ in requests]
            database.executemany(
                "INSERT INTO jobs (id, status, priority, transient, request, source, created_at, key)"
                " VALUES (?, 'queued', ?, ?, ?, ?, ?, ?)",
                [
                    (id, priority, transient, request.to_json(), packed, now, key)
                    for id, request in zip(ids, requests, strict=True)
                ],
            )
            return [self._select("id = ?", id)[0] for id in ids]

    def get(self, id: str, with_source: bool = False) -> Job | None:
        """The job of that id unless it was cancelled, without its source unless that is asked for."""
        found = self._select("id = ? AND status != 'cancelled'", id, with_source=with_source)
        return found[0] if found else None

    def page(
        self, limit: int, after: str | None = None, descending: bool = True, bound: float | None = None
    ) -> tuple[list[Job], bool]:
        """A page of the jobs in the order of their arrival, newest first by default, and whether there are more.

        Args:
            after: id of the last job of the page before; a page after a job that is gone is empty.
            bound: only jobs that arrived before this moment, or in rising order after it; seconds since 1970.
        """
        where, values = "status != 'cancelled' AND NOT transient", []
        sign = "<" if descending else ">"
        if bound is not None:
            where += f" AND created_at {sign} ?"
            values.append(bound)
        if after is not None:
            where += f" AND sequence {sign} (SELECT sequence FROM jobs WHERE id = ?)"
            values.append(after)
        order = "DESC" if descending else "ASC"
        found = self._select(f"{where} ORDER BY sequence {order} LIMIT ?", *values, limit + 1)
        return found[:limit], len(found) > limit

    def count(self, status: str) -> int:
        """How many jobs have that status."""
        return self._number("SELECT count(*) FROM jobs WHERE status = ?", status)

    def position(self, job: Job) -> int:
        """How many jobs wait before this one."""
        return self._number(
            "SELECT count(*) FROM jobs WHERE status = 'queued' AND (priority > ? OR (priority = ? AND sequence < ?))",
            job.priority,
            job.priority,
            job.sequence,
        )

    def stored_bytes(self) -> int:
        """Bytes of all finished films."""
        return self._number("SELECT coalesce(sum(content_bytes), 0) FROM jobs")

    def files(self, job: Job) -> Path:
        """The folder of a completed job's files."""
        return self.content / job.id

    # ---------------------------------------------------------------- working

    def claim(self, most: int) -> list[Job]:
        """The next jobs to make together, now ``in_progress``, with their sources; none if nothing waits.

        They are the first in the queue and those right behind it that go with it, at most ``most``, so nobody is
        overtaken. Jobs that were started before come first, in the group that they were started in; of that group
        also those come that are done or deleted, because a film depends, in its last bit, on what it is made with.
        """
        with self._transaction() as database:
            jobs = self._started_before() or self._head(most)
            batch = jobs[0].batch or uuid.uuid4().hex if jobs else None
            now = self.clock()
            database.executemany(
                "UPDATE jobs SET status = 'in_progress', batch = ?, attempts = attempts + 1, started_at = ?"
                " WHERE id = ? AND status = 'queued'",
                [(batch, now, job.id) for job in jobs],
            )
            return self._select("batch = ? ORDER BY sequence", batch, with_source=True) if jobs else []

    def _started_before(self) -> list[Job]:
        first = self._select("status = 'queued' AND batch IS NOT NULL ORDER BY sequence LIMIT 1")
        return self._select("batch = ? ORDER BY sequence", first[0].batch) if first else []

    def _head(self, most: int) -> list[Job]:
        queue = self._select(
            "status = 'queued' ORDER BY priority DESC, sequence LIMIT ?", most, with_source=True
        )
        fitting = 0
        while fitting < len(queue) and (fitting == 0 or queue[0].goes_with(queue[fitting])):
            fitting += 1
        return queue[:fitting]

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Put unfinished jobs back where they were, to be made again in the same group; it does not count as a try."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE jobs SET status = 'queued', attempts = attempts - 1 WHERE id = ? AND status = 'in_progress'",
                [(job.id,) for job in jobs],
            )

    def complete(self, job: Job, write: Callable[[Path], None]) -> bool:
        """Keep a film: ``write`` fills a folder, which then takes its place; only then is the job ``completed``.

        Returns:
            Whether it was kept: not if the job was deleted meanwhile.
        """
        final, partial = self.files(job), self.content / f"{job.id}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        size = _flush(partial)
        with self._transaction() as database:
            now = self.clock()
            kept = database.execute(
                "UPDATE jobs SET status = 'completed', completed_at = ?, expires_at = ?, content_bytes = ?"
                " WHERE id = ? AND status = 'in_progress'",
                (now, now + self.ttl, size, job.id),
            ).rowcount
            if kept:
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
                _flush_entry(self.content)
            _forget_cancelled(database)
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)
        return bool(kept)

    def fail(self, job: Job, code: str) -> None:
        """The job has failed with a ``code`` of the catalogue."""
        with self._transaction() as database:
            self._mark_failed(database, job, code)
            _forget_cancelled(database)

    def _mark_failed(self, database: sqlite3.Connection, job: Job, code: str) -> None:
        now = self.clock()
        database.execute(
            "UPDATE jobs SET status = 'failed', completed_at = ?, expires_at = ?, error = ?"
            " WHERE id = ? AND status IN ('queued', 'in_progress')",
            (now, now + self.ttl, code, job.id),
        )

    # ---------------------------------------------------------------- ending

    def delete(self, id: str) -> Job | None:
        """Cancel the job and forget it with its files; returns what it was, None if there is none."""
        with self._transaction() as database:
            job = self.get(id)
            if job is None:
                return None
            # The row stays as long as its group may have to be made again; its key may be used again at once.
            database.execute(
                "UPDATE jobs SET status = 'cancelled', key = NULL, expires_at = NULL, content_bytes = 0 WHERE id = ?",
                (id,),
            )
            _forget_cancelled(database)
        shutil.rmtree(self.files(job), ignore_errors=True)
        return job

    def sweep(self) -> int:
        """Delete what has expired; returns how many jobs."""
        expired = self._select("expires_at <= ?", self.clock())
        return sum(self.delete(job.id) is not None for job in expired)

    def recover(self) -> list[Job]:
        """After a start: everything that had begun waits again, what nobody can fetch is dropped.

        Returns:
            Jobs that were given up because they had been started ``max_attempts`` times.
        """
        worn = self.requeue()
        with self._transaction() as database:
            database.execute("UPDATE jobs SET status = 'cancelled' WHERE transient")
            _forget_cancelled(database)
            known = {row["id"] for row in database.execute("SELECT id FROM jobs WHERE status = 'completed'")}
        for entry in self.content.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry, ignore_errors=True)
        return worn

    def requeue(self) -> list[Job]:
        """Everything that had begun waits again; for a moment at which nothing is being made.

        Returns:
            Jobs that were given up instead, see :meth:`recover`.
        """
        with self._transaction() as database:
            worn = self._select("status = 'in_progress' AND attempts >= ?", self.max_attempts)
            for job in worn:
                self._mark_failed(database, job, "gave_up")
            database.execute("UPDATE jobs SET status = 'queued' WHERE status = 'in_progress'")
            _forget_cancelled(database)
        return worn

    # ---------------------------------------------------------------- rows

    def _select(self, where: str, *values: Any, with_source: bool = False) -> list[Job]:
        columns = _COLUMNS + (", source" if with_source else "")
        with self._mutex:
            rows = self._database.execute(f"SELECT {columns} FROM jobs WHERE {where}", values).fetchall()
        return [_job(row) for row in rows]

    def _packed(self, id: str) -> bytes | None:
        with self._mutex:
            return self._database.execute("SELECT source FROM jobs WHERE id = ?", (id,)).fetchone()[0]

    def _number(self, query: str, *values: Any) -> int:
        with self._mutex:
            return self._database.execute(query, values).fetchone()[0]

    def _until_expiry(self, now: float) -> int:
        with self._mutex:
            soonest = self._database.execute("SELECT min(expires_at) FROM jobs").fetchone()[0]
        return max(1, round(soonest - now)) if soonest is not None else 60


def _forget_cancelled(database: sqlite3.Connection) -> None:
    """Delete the rows of cancelled jobs that no group needs in which something is still to be made."""
    database.execute(
        "DELETE FROM jobs WHERE status = 'cancelled' AND (batch IS NULL OR batch NOT IN"
        " (SELECT batch FROM jobs WHERE status IN ('queued', 'in_progress') AND batch IS NOT NULL))"
    )


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    packed = fields.pop("source", None)
    fields["request"] = FilmRequest.from_json(fields["request"])
    fields["transient"] = bool(fields["transient"])
    return Job(**fields, source=None if packed is None else unpack_clip(packed))


def _flush(folder: Path) -> int:
    """Bring a folder's files to the disk; returns their bytes."""
    size = 0
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            size += os.fstat(file.fileno()).st_size
    _flush_entry(folder)
    return size


def _flush_entry(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
