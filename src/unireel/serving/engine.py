"""The one thread that owns the model: it makes films in batches and answers questions between their steps."""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.content import write_content
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest, Job, new_id
from unireel.serving.metrics import Metrics
from unireel.serving.model import ServedModel
from unireel.serving.store import JobStore

if TYPE_CHECKING:
    from unireel.systems.univigu.pipeline import Imagined

logger = logging.getLogger("unireel.serving")

State = Literal["loading", "ready", "failed", "stopping"]
SWEEP_SECONDS = 30.0
"""How often expired jobs are looked for."""

QUESTION_BYTES = 2**30
"""What the films of all waiting questions may take in memory."""

LOADING_SECONDS = 5
"""What clients are told to wait while the model is being loaded."""


class _Stop(Exception):
    """Raised between two steps to leave a film unfinished."""


@dataclass(eq=False)
class Question:
    """A question that waits for its answer.

    Attributes:
        clip, text: what is asked about which film; None for a description.
        reflect: by Pyramid Reflection; ``progress`` is then called with (rounds done, rounds at most).
        future: gets an ``Answer`` (or what reflection answers), or an error.
    """

    clip: Clip
    text: str | None
    reflect: bool = False
    progress: Callable[[int, int], None] = lambda done, total: None
    asked_at: float = field(default_factory=time.monotonic)
    future: Future[Any] = field(default_factory=Future)


class Engine:
    """Runs what is queued.

    All methods but the worker's own may be called from any thread.

    Args:
        store: where jobs live.
        load: returns the model; called once, in the worker's thread.
        max_batch: films made by one call of the model.
        max_questions: questions that may wait; more are refused with ``queue_full``.
    """

    def __init__(
        self,
        store: JobStore,
        load: Callable[[], ServedModel],
        max_batch: int = 4,
        max_questions: int = 64,
        metrics: Metrics | None = None,
    ) -> None:
        self.store, self.max_batch, self.max_questions = store, max_batch, max_questions
        self.metrics = metrics or Metrics()
        self.state: State = "loading"
        self._load = load
        self._model: ServedModel | None = None
        self._questions: deque[Question] = deque()
        self._waiting: dict[str, list[Future[Any]]] = {}
        self._running: dict[str, float] = {}
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._abort = threading.Event()
        self._seconds_per_job = 1.0
        self._swept = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="unireel-engine", daemon=True)

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Take up what an earlier process left, and begin to load the model."""
        for job in self.store.recover():
            logger.error("job %s was started %d times and never ended: given up", job.id, job.attempts)
        self._thread.start()

    def stop(self, grace: float = 30.0) -> None:
        """Take nothing more, end what is running, or after ``grace`` seconds leave it at its next step to be made
        again after the next start; then close the store."""
        self.drain()
        if self._thread.is_alive():
            self._thread.join(grace)
            self._abort.set()
            self._thread.join(30.0)
        if self._thread.is_alive():
            logger.error("a step takes too long; what it was about is made again after the next start")
        else:
            self.store.close()

    def drain(self) -> None:
        """Take nothing more; who waits for a job that has not begun is told that the server shuts down."""
        with self._mutex:
            self.state = "stopping"
            idle = [id for id in self._waiting if id not in self._running]
        for id in idle:
            self._resolve(id, ApiError("shutting_down"))
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether the worker's thread lives."""
        return self._thread.is_alive()

    @property
    def model(self) -> ServedModel:
        """The model.

        Raises:
            ApiError: it is not there (yet): ``model_loading``, ``model_failed``, ``shutting_down``.
        """
        if self.state == "stopping":
            raise ApiError("shutting_down")
        if self._model is None and self.state == "loading":
            raise ApiError("model_loading", retry_after=LOADING_SECONDS)
        if self._model is None:
            raise ApiError("model_failed")
        return self._model

    # ---------------------------------------------------------------- films

    def submit(
        self,
        requests: Sequence[FilmRequest],
        source: Clip | None = None,
        *,
        priority: int = 0,
        transient: bool = False,
        key: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> list[Job]:
        """Queue films; see :meth:`~unireel.serving.store.JobStore.submit`.

        Raises:
            ApiError: the queue or the storage is full, or there is no model.
        """
        _ = self.model
        jobs = self.store.submit(
            requests,
            source,
            priority=priority,
            transient=transient,
            key=key,
            ids=ids,
            retry_after=self.retry_after,
        )
        self._wake.set()
        return jobs

    def make(self, requests: Sequence[FilmRequest], source: Clip | None = None) -> dict[str, Future[Clip]]:
        """Queue films for somebody who waits on an open connection: ids and films to come.

        Such jobs are not listed, not kept on disk, and forgotten when the server stops. Who stops waiting should
        :meth:`cancel` them.

        Raises:
            ApiError: as :meth:`submit`.
        """
        futures: dict[str, Future[Clip]] = {new_id(): Future() for _ in requests}
        with self._mutex:
            self._waiting.update({id: [future] for id, future in futures.items()})
        try:
            self.submit(requests, source, transient=True, ids=list(futures))
        except BaseException:
            with self._mutex:
                for id in futures:
                    self._waiting.pop(id, None)
            raise
        return futures

    def imagine(
        self, requests: Sequence[FilmRequest], source: Clip | None = None
    ) -> dict[str, Future[Imagined]]:
        """As :meth:`make`, of films with their descriptions; the model must be able to.

        Raises:
            ApiError: as :meth:`submit`.
        """
        futures: dict[str, Future[Any]] = dict(
            self.make([replace(request, imagine=True) for request in requests], source)
        )
        return futures

    def ended(self, job: Job) -> Future[Clip | None]:
        """When a listed job ends: the film as the model made it (None if that was before this call), or an
        :class:`ApiError` if it failed, was deleted, or the server stops. Its files are in ``store.files(job)``."""
        future: Future[Clip | None] = Future()
        with self._mutex:
            self._waiting.setdefault(job.id, []).append(future)
        now = self.store.get(job.id)
        if now is None:
            self._resolve(job.id, ApiError("video_not_found"))
        elif now.error is not None:
            self._resolve(job.id, ApiError(now.error))
        elif now.status == "completed":
            self._resolve(job.id, None)
        elif self.state == "stopping" and job.id not in self._running:
            self._resolve(job.id, ApiError("shutting_down"))
        return future

    def cancel(self, id: str) -> Job | None:
        """Delete a job; one that is being made is left at its next step. Returns what it was, None if unknown."""
        job = self.store.delete(id)
        with self._mutex:
            self._running.pop(id, None)
        self._resolve(id, ApiError("video_not_found"))
        return job

    def progress(self, id: str) -> float:
        """How much of a job that is being made is done, in [0, 1]; 0 for any other."""
        return self._running.get(id, 0.0)

    def retry_after(self, waiting: int) -> int:
        """Seconds after which it is worth trying again, from the time that recent jobs took."""
        return min(3600, max(1, math.ceil(self._seconds_per_job * max(waiting, 1) / 2)))

    # ---------------------------------------------------------------- questions

    def ask(self, question: Question) -> Future[Any]:
        """Queue a question.

        Raises:
            ApiError: too many wait, or there is no model.
        """
        _ = self.model
        with self._mutex:
            held = question.clip.frames.nbytes + sum(each.clip.frames.nbytes for each in self._questions)
            if len(self._questions) >= self.max_questions or (self._questions and held > QUESTION_BYTES):
                raise ApiError("queue_full", retry_after=self.retry_after(1))
            self._questions.append(question)
        self._wake.set()
        return question.future

    def measure(self) -> None:
        """Bring the gauges of :attr:`metrics` up to date."""
        self.metrics.queued.set(self.store.count("queued"))
        self.metrics.running.set(len(self._running))
        self.metrics.questions.set(len(self._questions))
        self.metrics.stored.set(self.store.stored_bytes())

    # ---------------------------------------------------------------- the worker

    def _work(self) -> None:
        try:
            self._model = self._load()
        except Exception:
            logger.exception("the model cannot be loaded")
            self.state = "failed" if self.state == "loading" else self.state
            return
        with self._mutex:
            self.state = "ready" if self.state == "loading" else self.state
        logger.info("serving %s", self._model.name)
        while self.state == "ready":
            try:
                self._turn(self._model)
            except Exception:
                # Such as a full disk: what was begun waits again, and the next turn may succeed.
                logger.exception("a turn of the engine failed")
                time.sleep(1.0)
                with contextlib.suppress(sqlite3.Error):
                    self.store.requeue()
        self._answer(self._model)

    def _turn(self, model: ServedModel) -> None:
        """Answer what is asked, then make the next batch, or wait for either."""
        self._wake.clear()
        self._sweep()
        self._answer(model)
        jobs = self.store.claim(self.max_batch)
        if jobs:
            self._make(model, jobs)
        elif not self._questions:
            self._wake.wait(SWEEP_SECONDS)

    def _sweep(self) -> None:
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            self.store.sweep()

    def _make(self, model: ServedModel, jobs: Sequence[Job]) -> None:
        """One batch, from its seeds to its files. Some of it may be done or deleted, see ``JobStore.claim``."""
        wanted = [job for job in jobs if job.status == "in_progress"]
        with self._mutex:
            self._running.update({job.id: 0.0 for job in wanted})
        start = time.monotonic()
        try:
            if wanted[0].request.model not in ("", model.name):
                self._refuse(wanted, "model_not_found")
            self._make_together(model, jobs)
        except _Stop:
            if self._abort.is_set():
                self.store.give_back(wanted)
        finally:
            with self._mutex:
                for job in wanted:
                    self._running.pop(job.id, None)
            for job in wanted:
                self._resolve(
                    job.id, ApiError("shutting_down" if self._abort.is_set() else "generation_failed")
                )
        seconds = time.monotonic() - start
        self.metrics.films.observe(seconds)
        self.metrics.batch.observe(len(jobs))
        self._seconds_per_job += 0.2 * (seconds / len(jobs) - self._seconds_per_job)

    def _refuse(self, jobs: Sequence[Job], code: str) -> None:
        """Fail jobs that a server with another model took in."""
        for job in jobs:
            self.store.fail(job, code)
            self._running.pop(job.id, None)
            self._resolve(job.id, ApiError(code))

    def _make_together(self, model: ServedModel, jobs: Sequence[Job]) -> None:
        """Make jobs by one call; if that fails, each by its own, so that one cannot spoil the others."""
        if not any(job.id in self._running for job in jobs):
            return
        try:
            clips = model.films(jobs, lambda done, total: self._step(model, jobs, done / total))
        except _Stop:
            raise
        except Exception as error:
            if len(jobs) > 1:
                logger.warning("a batch of %d failed (%s); one by one", len(jobs), type(error).__name__)
                for job in jobs:
                    self._make_together(model, [job])
                return
            if isinstance(error, UserError):
                # The request's fault, which only the model could see; what it says may hold the client's words.
                self._end(jobs[0], None, "model_refuses")
                return
            logger.exception("job %s failed", jobs[0].id)
            self._end(jobs[0], None)
            return
        for job, clip in zip(jobs, clips, strict=True):
            self._end(job, clip)

    def _step(self, model: ServedModel, jobs: Sequence[Job], done: float) -> None:
        """Between two steps: say how far it is, answer questions, and stop if nobody wants it any more."""
        if self._abort.is_set():
            raise _Stop
        with self._mutex:
            wanted = [job.id for job in jobs if job.id in self._running]
            self._running.update(dict.fromkeys(wanted, done))
        if not wanted:
            raise _Stop
        self._answer(model)
        self._sweep()

    def _end(self, job: Job, clip: Any, failure: str = "generation_failed") -> None:
        """Keep a film, or the failure if there is none; hand it to those who wait.

        Args:
            clip: a ``Clip``; of a job that says ``imagine``, which is always transient, an ``Imagined``.
            failure: the code of the catalogue if there is none.
        """
        if job.id not in self._running:
            return
        try:
            if clip is None:
                self.store.fail(job, failure)
            elif job.transient:
                self.store.delete(job.id)
            elif not self.store.complete(job, partial(write_content, clip=clip, scale=job.request.scale)):
                return
        except (OSError, UserError):
            logger.exception("the film of job %s cannot be written", job.id)
            self.store.fail(job, "generation_failed")
            clip = None
        self.metrics.jobs.labels("completed" if clip is not None else "failed").inc()
        self._resolve(job.id, clip if clip is not None else ApiError(failure))

    def _resolve(self, id: str, outcome: Clip | Imagined | ApiError | None) -> None:
        with self._mutex:
            futures = self._waiting.pop(id, [])
        for future in futures:
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(outcome, ApiError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _answer(self, model: ServedModel) -> None:
        """Answer everything that has been asked, questions together, descriptions together."""
        with self._mutex:
            taken, self._questions = self._questions, deque()
        live = [each for each in taken if each.future.set_running_or_notify_cancel()]
        reflected = [each for each in live if each.reflect]
        asked = [each for each in live if each.text is not None and not each.reflect]
        described = [each for each in live if each.text is None]
        self._reply(asked, lambda: model.answers([(each.clip, each.text or "") for each in asked]))
        self._reply(described, lambda: model.captions([each.clip for each in described]))
        for each in reflected:
            self._reply([each], lambda each=each: [model.reflect(each.clip, each.text or "", each.progress)])

    def _reply(self, questions: list[Question], answer: Callable[[], list[Any]]) -> None:
        if not questions:
            return
        try:
            outcomes = answer()
        except Exception:
            logger.exception("%d questions failed", len(questions))
            outcomes = [ApiError("generation_failed")] * len(questions)
        for question, outcome in zip(questions, outcomes, strict=True):
            self.metrics.answers.observe(time.monotonic() - question.asked_at)
            if isinstance(outcome, Exception):
                question.future.set_exception(outcome)
            else:
                question.future.set_result(outcome)
