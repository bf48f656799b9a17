"""The Make tab: a prompt, perhaps a first frame, and films of several seeds beside each other.

The Imagine tab (:mod:`~unireel.serving.page.imagine`) is built from the same parts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import gradio as gr

from unireel.clip import Clip
from unireel.serving.checks import film_request
from unireel.serving.context import Context
from unireel.serving.engine import Engine
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest
from unireel.serving.page.fragments import Card, cards, film_address, hint, player, problem
from unireel.serving.page.material import PROMPTS, QUIET, read_upload
from unireel.serving.schema import Sampling

MOST = 4
"""Films of one press."""

LOOK_SECONDS = 0.2
"""How often progress is shown."""

PRESETS = {"quick": 0.5, "normal": 1.0, "careful": 2.0}
"""Steps of the sampler, as multiples of the model's own."""

STOPPED = hint("Stopped.")


@dataclass(frozen=True)
class Kind:
    """What sets tabs that make films apart.

    Attributes:
        verb: on the button, and the id of its element.
        prefix: before the ids of the other elements, as all tabs are on one page.
        count: films of one press, unless another number is chosen.
        empty: what stands where the films will be.
        start: has the engine make requests (with a first frame); ids, and what is to come of each: a ``Clip`` or an
            ``Imagined``.
    """

    verb: str
    prefix: str
    count: int
    empty: str
    start: Callable[[Engine, list[FilmRequest], Clip | None], dict[str, Future[Any]]]


MAKE = Kind("make", "", 2, hint("Films appear here, one for each seed."), Engine.make)


@dataclass(frozen=True)
class MakeTab:
    """What other tabs take from this one: the films, and the pairs of buttons that ask about and edit each."""

    films: gr.State
    hand_over: list[tuple[gr.Button, gr.Button]]


def tab(context: Context, kind: Kind = MAKE) -> MakeTab:
    """Build the tab inside the current one."""
    prefix = kind.prefix
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder=PROMPTS[0],
                lines=1,
                max_lines=5,
                autofocus=kind is MAKE,
                elem_id=f"{prefix}prompt",
            )
            gr.Examples([[each] for each in PROMPTS], [prompt], label="Try", api_visibility="private")
            preset = gr.Radio(list(PRESETS), value="normal", label="Quality", elem_id=f"{prefix}preset")
            count = gr.Radio([1, 2, MOST], value=kind.count, label="Films", elem_id=f"{prefix}count")
            with gr.Accordion("First frame, seed, guidance", open=False):
                upload = gr.File(
                    label="First frame (optional)",
                    file_types=["image"],
                    height=120,
                    elem_id=f"{prefix}first-frame",
                )
                shown = gr.HTML(elem_classes="stage")
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, elem_id=f"{prefix}seed")
                guidance = gr.Slider(
                    0, context.settings.max_guidance, value=0, step=0.5, label="Guidance (0: the model's own)"
                )
            with gr.Row():
                start = gr.Button(kind.verb.capitalize(), variant="primary", elem_id=kind.verb)
                stop = gr.Button("Stop", elem_id=f"{prefix}stop")
        with gr.Column(scale=3, min_width=320):
            results = gr.HTML(kind.empty, elem_id=f"{prefix}results")
    first, films = gr.State(None, time_to_live=1800), gr.State([], time_to_live=1800)
    pairs = [
        (
            gr.Button(f"ask {index}", elem_id=f"{prefix}ask-film-{index}", visible="hidden"),
            gr.Button(f"edit {index}", elem_id=f"{prefix}edit-film-{index}", visible="hidden"),
        )
        for index in range(MOST)
    ]
    upload.change(_first_frame(context), [upload], [first, shown], **QUIET)
    making = gr.on(
        [start.click, prompt.submit],
        films_of(context, kind),
        [prompt, first, preset, count, seed, guidance],
        [results, films],
        **QUIET,
    )
    stop.click(_stopped, [films], [results], cancels=[making], **QUIET)
    return MakeTab(films, pairs)


def _stopped(films: list[Clip | None]) -> Any:
    """In the place of films that are not finished."""
    return gr.skip() if films else STOPPED


def _first_frame(context: Context) -> Any:
    async def take(path: str | None) -> tuple[Clip | None, str]:
        """Decode a first frame and show it as the model will see it."""
        try:
            picture = await read_upload(context, path, "image")
            picture = None if picture is None else context.engine.model.first_frame(picture)
        except ApiError as error:
            return None, problem(error.message)
        return picture, "" if picture is None else player(film_address(picture), "the first frame")

    return take


def films_of(context: Context, kind: Kind) -> Any:
    """What makes the films of a press of the button."""

    async def films(
        prompt: str, first: Clip | None, preset: str, count: int, seed: float, guidance: float
    ) -> AsyncIterator[tuple[str, Any]]:
        """Make films and show how far they are; who presses Stop or leaves ends them."""
        engine = context.engine
        try:
            model = engine.model
            steps = max(1, round(model.steps * PRESETS[preset]))
            sampling = Sampling(
                seed=int(seed or 0), num_inference_steps=steps, guidance_scale=guidance or None
            )
            requests = film_request(
                model, context.settings, prompt or "", sampling, model.lengths[-1], None, count=count
            )
            pending = await asyncio.to_thread(kind.start, engine, requests, first)
        except (ApiError, ValueError) as error:
            yield problem(error.message if isinstance(error, ApiError) else "the seed is out of range"), []
            return
        titles = dict(zip(pending, (f"seed {request.seed}" for request in requests), strict=True))
        began, finished = time.monotonic(), {}
        try:
            while len(finished) < len(pending):
                for id, future in pending.items():
                    if future.done() and id not in finished:
                        finished[id] = await _card(future)
                now = [
                    finished[id](title) if id in finished else Card(title, done=engine.progress(id))
                    for id, title in titles.items()
                ]
                yield cards(now, kind.prefix), []
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for id, future in pending.items():
                if not future.done():
                    await asyncio.to_thread(engine.cancel, id)
        seconds = (time.monotonic() - began) / len(pending)
        done = [finished[id](f"{title}, {seconds:.1f} s") for id, title in titles.items()]
        clips = [None if future.exception() else _parts(future)[0] for future in pending.values()]
        yield cards(done, kind.prefix), clips

    return films


def _parts(future: Future[Any]) -> tuple[Clip, Any]:
    """The film, and the ``Answer`` that describes it if one was made with it."""
    made = future.result()
    return (made, None) if isinstance(made, Clip) else (made.clip, made.caption)


async def _card(future: Future[Any]) -> Callable[[str], Card]:
    """What is shown, under a title, of what has come of a request."""
    error = future.exception()
    if error is not None:
        wrong = error.message if isinstance(error, ApiError) else "something went wrong"
        return lambda title: Card(title, problem=wrong)
    clip, description = _parts(future)
    address = await asyncio.to_thread(film_address, clip)
    return lambda title: Card(title, address, description=description)
