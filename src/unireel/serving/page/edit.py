"""The Edit tab: before, after and difference beside each other, and a chain of edits that can be taken back."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from unireel.clip import Clip
from unireel.serving.checks import film_request, source_of_edit
from unireel.serving.context import Context
from unireel.serving.errors import ApiError
from unireel.serving.page.fragments import film_address, hint, player, problem, three_films
from unireel.serving.page.material import QUIET, read_upload
from unireel.serving.schema import Sampling

EMPTY = hint("Choose a film of yours, or press “edit” below one that you made.")
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Link:
    """A film of the chain, and the instruction that led to it ("" for the first)."""

    clip: Clip
    instruction: str = ""


@dataclass(frozen=True)
class EditTab:
    """What changes when a film is opened."""

    opened: list[Any]


def tab(context: Context) -> EditTab:
    """Build the tab inside the current one."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = gr.File(
                label="A film of yours", file_types=["video", "image"], height=120, elem_id="film-to-edit"
            )
            instruction = gr.Textbox(
                label="What shall change?",
                placeholder="make the star blue",
                lines=1,
                max_lines=4,
                elem_id="instruction",
            )
            with gr.Row():
                apply = gr.Button("Edit", variant="primary", elem_id="edit")
                undo = gr.Button("Undo", elem_id="undo")
            steps = gr.HTML(elem_id="chain")
        with gr.Column(scale=3, min_width=320):
            stage = gr.HTML(EMPTY, elem_id="edit-stage", elem_classes="stage")
    chain = gr.State([], time_to_live=1800)
    opened = [chain, stage, steps]
    upload.upload(_uploaded(context), [upload], [*opened, upload], **QUIET)
    gr.on([apply.click, instruction.submit], _edit(context), [chain, instruction], opened, **QUIET)
    undo.click(_undo, [chain], opened, **QUIET)
    return EditTab(opened)


async def showing(chain: list[Link]) -> tuple[list[Link], str, str]:
    """The last edit of a chain beside what it was made from, and the list of all."""
    if not chain:
        return chain, EMPTY, ""
    if len(chain) == 1:
        return chain, player(await asyncio.to_thread(film_address, chain[0].clip), "the film to edit"), ""
    before, after = (link.clip for link in chain[-2:])
    films = (before, after, difference(before, after))
    addresses = [await asyncio.to_thread(film_address, film) for film in films]
    edits = "".join(f"<li>{escape(link.instruction)}</li>" for link in chain[1:])
    return chain, three_films(*addresses), f"<h3>Edits</h3><ol>{edits}</ol>"


def difference(before: Clip, after: Clip) -> Clip:
    """Where two films of one size differ: black where they do not, at the length of the shorter."""
    count = min(len(before), len(after))
    pairs = (each.frames[:count].astype(np.int16) for each in (before, after))
    one, other = pairs
    return Clip(np.abs(one - other).astype(np.uint8), before.fps)


def from_make(index: int) -> Callable[[list[Clip | None]], Any]:
    """What opens film ``index`` of a tab that makes films and turns to this one."""

    async def take(films: list[Clip | None]) -> tuple[Any, ...]:
        clip = films[index] if index < len(films) else None
        if clip is None:
            return (*[gr.skip()] * 3, gr.skip())
        return (*await showing([Link(clip)]), gr.Tabs(selected="edit"))

    return take


def _uploaded(context: Context) -> Callable[[str | None], Any]:
    async def take(path: str | None) -> tuple[Any, ...]:
        """Open a film that a visitor sends, at the model's size, and make room for the next."""
        try:
            clip = await read_upload(context, path, "any")
            if clip is not None:
                clip = source_of_edit(context.engine.model, "film", clip)
        except ApiError as error:
            return [], problem(error.message), "", None
        return (*await showing([] if clip is None else [Link(clip)]), None)

    return take


def _edit(context: Context) -> Any:
    async def edit(chain: list[Link], instruction: str) -> AsyncIterator[tuple[Any, ...]]:
        """Put an edit of the chain's last film to the engine."""
        if not chain:
            yield chain, problem("choose a film first"), ""
            return
        engine, source = context.engine, chain[-1].clip
        try:
            sampling = Sampling(seed=secrets.randbelow(2**31), num_inference_steps=None, guidance_scale=None)
            requests = film_request(
                engine.model, context.settings, instruction or "", sampling, len(source), None, edit=True
            )
            pending = await asyncio.to_thread(engine.make, requests, source)
        except ApiError as error:
            yield chain, problem(error.message), gr.skip()
            return
        ((id, future),) = pending.items()
        try:
            while not future.done():
                yield gr.skip(), gr.skip(), hint(f"editing: {engine.progress(id):.0%}")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if not future.done():
                await asyncio.to_thread(engine.cancel, id)
        error = future.exception()
        if isinstance(error, ApiError):
            yield chain, problem(error.message), ""
            return
        yield await showing([*chain, Link(future.result(), instruction.strip())])

    return edit


async def _undo(chain: list[Link]) -> tuple[Any, ...]:
    """Take the last edit back."""
    return await showing(chain[:-1] if len(chain) > 1 else chain)
