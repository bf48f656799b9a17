"""The Make tab: a prompt, perhaps a first frame, and films of several seeds beside each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import gradio as gr

from unireel.clip import Clip
from unireel.serving.checks import film_request
from unireel.serving.context import Context
from unireel.serving.errors import ApiError
from unireel.serving.page.fragments import Card, cards, film_address, hint, player, problem
from unireel.serving.page.material import PROMPTS, QUIET, read_upload
from unireel.serving.schema import Sampling

MOST = 4
"""Films of one press."""

LOOK_SECONDS = 0.2
"""How often progress is shown."""

PRESETS = {"quick": 0.5, "normal": 1.0, "careful": 2.0}
"""Steps of the sampler, as multiples of the model's own."""

EMPTY = hint("Films appear here, one for each seed.")


@dataclass(frozen=True)
class MakeTab:
    """What other tabs take from this one: the films, and the pairs of buttons that ask about and edit each."""

    films: gr.State
    hand_over: list[tuple[gr.Button, gr.Button]]


def tab(context: Context) -> MakeTab:
    """Build the tab inside the current one."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                label="Prompt", placeholder=PROMPTS[0], lines=1, max_lines=5, autofocus=True, elem_id="prompt"
            )
            gr.Examples([[each] for each in PROMPTS], [prompt], label="Try", api_visibility="private")
            preset = gr.Radio(list(PRESETS), value="normal", label="Quality", elem_id="preset")
            count = gr.Radio([1, 2, MOST], value=2, label="Films", elem_id="count")
            with gr.Accordion("First frame, seed, guidance", open=False):
                upload = gr.File(
                    label="First frame (optional)", file_types=["image"], height=120, elem_id="first-frame"
                )
                shown = gr.HTML(elem_classes="stage")
                seed = gr.Number(0, label="First seed", precision=0, minimum=0, elem_id="seed")
                guidance = gr.Slider(
                    0, context.settings.max_guidance, value=0, step=0.5, label="Guidance (0: the model's own)"
                )
            with gr.Row():
                start = gr.Button("Make", variant="primary", elem_id="make")
                stop = gr.Button("Stop", elem_id="stop")
        with gr.Column(scale=3, min_width=320):
            results = gr.HTML(EMPTY, elem_id="results")
    first, films = gr.State(None, time_to_live=1800), gr.State([], time_to_live=1800)
    pairs = [
        (
            gr.Button(f"ask {index}", elem_id=f"ask-film-{index}", visible="hidden"),
            gr.Button(f"edit {index}", elem_id=f"edit-film-{index}", visible="hidden"),
        )
        for index in range(MOST)
    ]
    upload.change(_first_frame(context), [upload], [first, shown], **QUIET)
    making = gr.on(
        [start.click, prompt.submit],
        _films(context),
        [prompt, first, preset, count, seed, guidance],
        [results, films],
        **QUIET,
    )
    stop.click(lambda: gr.skip(), None, [results], cancels=[making], **QUIET)
    return MakeTab(films, pairs)


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


def _films(context: Context) -> Any:
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
            pending = await asyncio.to_thread(engine.make, requests, first)
        except (ApiError, ValueError) as error:
            yield problem(error.message if isinstance(error, ApiError) else "the seed is out of range"), []
            return
        titles = [f"seed {request.seed}" for request in requests]
        began, addresses = time.monotonic(), {}
        try:
            while len(addresses) < len(pending):
                for id, future in pending.items():
                    if future.done() and id not in addresses:
                        addresses[id] = await _address(future)
                waiting = [engine.progress(id) for id in pending]
                yield cards(_cards(titles, pending, addresses, waiting)), gr.skip()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for id, future in pending.items():
                if not future.done():
                    await asyncio.to_thread(engine.cancel, id)
        seconds = (time.monotonic() - began) / len(pending)
        done = [f"{title}, {seconds:.1f} s" for title in titles]
        clips = [None if future.exception() else future.result() for future in pending.values()]
        yield cards(_cards(done, pending, addresses, [1.0] * len(pending))), clips

    return films


async def _address(future: Future[Clip]) -> str:
    """The film's data address; "" if there is none."""
    return "" if future.exception() else await asyncio.to_thread(film_address, future.result())


def _cards(
    titles: list[str], pending: dict[str, Future[Clip]], addresses: dict[str, str], done: list[float]
) -> list[Card]:
    found = []
    for title, (id, future), share in zip(titles, pending.items(), done, strict=True):
        error = future.exception() if future.done() else None
        wrong = error.message if isinstance(error, ApiError) else "something went wrong" if error else ""
        found.append(Card(title, addresses.get(id, ""), share, wrong))
    return found
