"""The thread that owns the model: films as they are without a server, batches, progress, cancelling, stopping."""

# What a test asserts about a job implies that there is one.
# pyright: reportOptionalMemberAccess=false

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.engine import Engine, Question
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest
from unireel.serving.model import ServedModel

STAR = FilmRequest("a red star jumps twice", seed=3, frames=5, steps=2)
RING = replace(STAR, prompt="a blue ring", seed=4)
PATIENCE = 120.0
"""Seconds after which a test is broken rather than slow."""


def started(engine: Engine) -> Engine:
    engine.start()
    until(lambda: engine.state == "ready")
    return engine


def until(what: Callable[[], object]) -> None:
    """Wait until ``what()`` is true."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def alone(served: ServedModel, request: FilmRequest, image=None) -> np.ndarray:
    """The film that the pipeline makes without any server."""
    fields = {"seed": request.seed, "frames": request.frames, "steps": request.steps}
    return served.pipeline.generate(request.prompt, image=image, **fields).frames


def test_films_are_those_of_the_pipeline(engine_on, served):
    engine = started(engine_on())
    (job,) = engine.submit([replace(STAR, scale=4)])
    film = engine.ended(job).result(PATIENCE)
    assert np.array_equal(film.frames, alone(served, STAR))
    assert engine.store.get(job.id).status == "completed"
    kept = Clip.load(engine.store.files(job) / "film.mp4")
    assert kept.frames.shape == (5, 4 * 48, 4 * 48, 3) and kept.fps == 8
    small = kept.frames[:, ::4, ::4].astype(int)
    assert np.abs(small - film.frames).mean() < 12
    assert {path.name for path in engine.store.files(job).iterdir()} == {
        "film.mp4",
        "thumbnail.webp",
        "spritesheet.jpg",
    }
    assert engine.ended(job).result(PATIENCE) is None


def test_a_first_frame(engine_on, served):
    engine = started(engine_on())
    picture = Clip(np.random.default_rng(0).integers(0, 256, (1, 30, 60, 3), dtype=np.uint8), 8)
    small = served.first_frame(picture)
    assert small.frames.shape == (1, 48, 48, 3)
    (future,) = engine.make([STAR], small).values()
    assert np.array_equal(future.result(PATIENCE).frames, alone(served, STAR, picture.frames[0]))


def test_what_fits_is_made_together_and_nobody_is_overtaken(engine_on, watched, served):
    engine = engine_on(watched, max_batch=3)
    engine._model = watched  # taken in before the worker starts, so that all of it waits
    jobs = engine.submit([STAR, RING]) + engine.submit([replace(STAR, frames=1)]) + engine.submit([STAR] * 4)
    started(engine)
    films = [engine.ended(job) for job in jobs]
    until(lambda: engine.store.count("completed") == len(jobs))
    ids = [job.id for job in jobs]
    assert watched.batches == [ids[:2], ids[2:3], ids[3:6], ids[6:]]
    for film, job in zip(films, jobs, strict=True):
        made = film.result(0)
        if made is not None:
            # What a film is made with may change its last bit, no more.
            difference = made.frames.astype(int) - alone(served, job.request)
            assert np.abs(difference).max() <= 1


def test_progress_and_cancelling_at_the_next_step(engine_on, watched):
    engine = started(engine_on(watched))
    long = replace(STAR, steps=40)
    watched.hold(10)
    (job,) = engine.submit([long])
    film = engine.ended(job)
    assert watched.held.wait(PATIENCE)
    assert engine.progress(job.id) == pytest.approx(9 / 40)
    assert engine.cancel(job.id).status == "in_progress"
    with pytest.raises(ApiError, match="no video of that id"):
        film.result(0)
    before = len(watched.batches)
    (after,) = engine.make([STAR]).values()
    watched.go.set()
    assert after.result(PATIENCE).frames.shape[0] == 5
    assert len(watched.batches) == before + 1
    assert engine.store.get(job.id) is None and not engine.store.files(job).exists()
    assert engine.progress(job.id) == 0


def test_one_of_a_batch_is_cancelled(engine_on, watched):
    engine = engine_on(watched)
    engine._model = watched
    watched.hold(1)
    job, mate = engine.submit([STAR, RING])
    started(engine)
    assert watched.held.wait(PATIENCE)
    engine.cancel(job.id)
    watched.go.set()
    until(lambda: engine.store.get(mate.id).status == "completed")
    assert engine.store.get(job.id) is None and len(watched.batches) == 1


def test_questions_are_answered_between_two_steps(engine_on, watched, served):
    engine = started(engine_on(watched, max_questions=2))
    watched.hold(1)
    (job,) = engine.submit([STAR])
    assert watched.held.wait(PATIENCE)
    clip = Clip(np.zeros((5, 48, 48, 3), np.uint8), 8)
    answer = engine.ask(Question(clip, "what colour is the star ?"))
    description = engine.ask(Question(clip, None))
    with pytest.raises(ApiError) as refused:
        engine.ask(Question(clip, None))
    assert refused.value.code == "queue_full"
    watched.go.set()
    assert answer.result(PATIENCE) == served.pipeline.ask(clip, "what colour is the star ?")
    assert description.result(PATIENCE) == served.pipeline.caption(clip)
    until(lambda: engine.store.get(job.id).status == "completed")


def test_one_bad_question_does_not_spoil_the_others(engine_on, served):
    engine = engine_on()
    engine._model = served
    clip = Clip(np.zeros((5, 48, 48, 3), np.uint8), 8)
    bad, good = engine.ask(Question(clip, "qwertz")), engine.ask(Question(clip, "what colour is the star ?"))
    started(engine)
    assert isinstance(bad.exception(PATIENCE), UserError)
    assert good.result(PATIENCE).text


def test_reflection_says_its_rounds(engine_on):
    engine = started(engine_on())
    clip = Clip(np.random.default_rng(0).integers(0, 256, (24, 48, 48, 3), dtype=np.uint8), 8)
    heard: list[tuple[int, int]] = []
    question = Question(
        clip, "what colour is the star ?", reflect=True, progress=lambda *each: heard.append(each)
    )
    answer = engine.ask(question).result(PATIENCE)
    assert answer.text and answer.evidence and answer.trace["rounds"]
    assert heard[-1][0] == len(answer.trace["rounds"])


def test_one_bad_job_does_not_spoil_its_batch(engine_on, watched, caplog):
    engine = engine_on(watched)
    engine._model = watched
    watched.fail_on = RING.prompt
    good, bad, also = engine.submit([STAR, RING, STAR])
    started(engine)
    until(lambda: engine.store.get(also.id).status == "completed")
    assert engine.store.get(good.id).status == "completed"
    assert (engine.store.get(bad.id).status, engine.store.get(bad.id).error) == (
        "failed",
        "generation_failed",
    )
    assert "a secret of this machine" in caplog.text
    with pytest.raises(ApiError, match=r"^the generation failed; the server's log says why$"):
        engine.ended(bad).result(0)


def test_a_full_disk_fails_the_job_not_the_server(engine_on, monkeypatch):
    engine = started(engine_on())

    def full(folder, clip, scale):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("unireel.serving.engine.write_content", full)
        (job,) = engine.submit([STAR])
        until(lambda: engine.store.get(job.id).status == "failed")
    (job,) = engine.submit([STAR])
    until(lambda: engine.store.get(job.id).status == "completed")


def test_stopped_and_started_again(engine_on, watched, served):
    """What is running when time is up is made again from its seed, in the same group; what waited goes on."""
    engine = engine_on(watched)
    engine._model = watched
    jobs = engine.submit([STAR, RING, replace(STAR, frames=1)])
    watched.hold(1)
    started(engine)
    assert watched.held.wait(PATIENCE)
    waiting = [engine.ended(job) for job in jobs]
    stopping = threading.Thread(target=engine.stop, args=(0.0,))
    stopping.start()
    until(engine._abort.is_set)
    with pytest.raises(ApiError, match="shutting down"):
        engine.submit([STAR])
    watched.go.set()
    stopping.join(PATIENCE)
    for each in waiting:
        with pytest.raises(ApiError, match="shutting down"):
            each.result(0)

    again = type(watched)(served)
    engine = started(engine_on(again))
    until(lambda: engine.store.count("completed") == 3)
    assert again.batches == [*watched.batches, [jobs[2].id]]
    for job in jobs[:2]:
        assert engine.store.get(job.id).attempts == 1
    pair = served.pipeline.generate_many(
        [STAR.prompt, RING.prompt], seeds=[STAR.seed, RING.seed], frames=5, steps=2
    )
    for job, film in zip(jobs[:2], pair, strict=True):
        film.save(engine.store.folder / "alone.mp4")
        made = (engine.store.files(job) / "film.mp4").read_bytes()
        assert made == (engine.store.folder / "alone.mp4").read_bytes()


def test_stopping_lets_what_runs_end(engine_on, watched):
    engine = engine_on(watched)
    engine._model = watched
    watched.hold(1)
    job, next_one = engine.submit([STAR]) + engine.submit([replace(STAR, frames=1)])
    started(engine)
    assert watched.held.wait(PATIENCE)
    stopping = threading.Thread(target=engine.stop, args=(PATIENCE,))
    stopping.start()
    until(lambda: engine.state == "stopping")
    watched.go.set()
    stopping.join(PATIENCE)
    again = engine_on()
    assert again.store.get(job.id).status == "completed"
    assert again.store.get(next_one.id).status == "queued"


def test_without_a_model(engine_on, tmp_path):
    def nothing() -> ServedModel:
        raise UserError("there is no model at /a/secret/path")

    engine = engine_on()
    engine._load = nothing
    with pytest.raises(ApiError) as loading:
        engine.submit([STAR])
    assert (loading.value.code, loading.value.retry_after) == ("model_loading", 5)
    engine.start()
    until(lambda: engine.state == "failed")
    with pytest.raises(ApiError, match=r"^the model could not be loaded; the server's log says why$"):
        engine.ask(Question(Clip(np.zeros((1, 2, 2, 3), np.uint8), 8), None))


def test_edits_go_to_the_model(engine_on, served):
    """A pipeline that edits: here one that turns films round, which can be seen."""

    class Editing(type(served.pipeline)):
        def edit_many(self, pairs, seeds, steps, guidance, batch_size, progress):
            progress(1, 1)
            return [clip[::-1] for clip, _ in pairs]

    pipeline = Editing(**served.pipeline.components, **_settings(served))
    model = ServedModel(pipeline, "editing")
    assert "edit" in model.abilities and "edit" not in served.abilities
    engine = started(engine_on(model))
    film = Clip(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8), 8)
    (future,) = engine.make([replace(STAR, edit=True)], film).values()
    assert np.array_equal(future.result(PATIENCE).frames, film.frames[::-1])


def _settings(served: ServedModel) -> dict:
    names = ("size", "steps", "guidance", "shift", "prediction", "staged")
    return {name: served.pipeline.config[name] for name in names}
