"""The Ask tab: a film, a conversation about it, and the frames that each answer rests on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.serving.checks import check_text
from unireel.serving.context import Context
from unireel.serving.engine import Question
from unireel.serving.errors import ApiError
from unireel.serving.page.fragments import evidence, film_address, hint, player, problem, said, trace
from unireel.serving.page.material import EXAMPLES, QUIET, examples, read_upload

EMPTY = hint("Choose a film: one of the examples, one of your own, or one that you made.")
Opened = tuple[Any, ...]
"""New values of ``AskTab.opened``."""


@dataclass(frozen=True)
class AskTab:
    """What others set: everything that changes when a film is opened, and whether reflection is offered."""

    opened: list[Any]
    reflect: gr.Checkbox


def tab(context: Context) -> AskTab:
    """Build the tab inside the current one."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            stage = gr.HTML(EMPTY, elem_id="stage", elem_classes="stage")
            looked_at = gr.HTML(elem_id="evidence")
            gr.HTML(_example_films(), elem_id="examples")
            upload = gr.File(
                label="A film or a picture of yours",
                file_types=["video", "image"],
                height=120,
                elem_id="film",
            )
        with gr.Column(scale=3, min_width=320):
            chat = gr.Chatbot(
                label="Conversation",
                height=360,
                buttons=[],
                feedback_options=None,
                sanitize_html=True,
                placeholder="Ask what happens, how often, where, in which order.",
                elem_id="chat",
            )
            question = gr.Textbox(
                label="Question", placeholder=EXAMPLES[0][2], lines=1, max_lines=4, elem_id="question"
            )
            gr.Examples([[each[2]] for each in EXAMPLES], [question], label="Try", api_visibility="private")
            with gr.Row():
                send = gr.Button("Ask", variant="primary", elem_id="ask")
                describe = gr.Button("Describe the film", elem_id="describe")
            reflect = gr.Checkbox(
                False, label="Reflect: look again and judge the answer (slower)", visible=False
            )
            rounds = gr.HTML(elem_id="trace")
    clip = gr.State(None, time_to_live=1800)
    opened = [clip, stage, chat, looked_at, rounds]
    upload.upload(_uploaded(context), [upload], [*opened, upload], **QUIET)
    for index in range(len(EXAMPLES)):
        button = gr.Button(f"example {index}", elem_id=f"example-{index}", visible="hidden")
        button.click(_example(index), None, opened, **QUIET)
    answers = [chat, question, looked_at, rounds]
    gr.on([send.click, question.submit], _answer(context), [clip, chat, question, reflect], answers, **QUIET)
    describe.click(_answer(context, describing=True), [clip, chat, question, reflect], answers, **QUIET)
    return AskTab(opened, reflect)


def _example_films() -> str:
    shown = "".join(
        f'<li><button type="button" data-press="example-{index}" aria-label="example film {index + 1}">'
        f"{player(film_address(clip), f'example {index + 1}', controls=False)}<span>example {index + 1}</span>"
        "</button></li>"
        for index, clip in enumerate(examples())
    )
    return f"<h3>Examples</h3><ul class='evidence examples'>{shown}</ul>"


async def opening(clip: Clip) -> Opened:
    """What the tab shows when a film is opened."""
    address = await asyncio.to_thread(film_address, clip)
    return clip, player(address, "the film that is asked about", name="player"), [], "", ""


def _example(index: int) -> Callable[[], Any]:
    async def take() -> Opened:
        """Open an example."""
        return await opening(examples()[index])

    return take


def from_make(index: int) -> Callable[[list[Clip | None]], Any]:
    """What opens film ``index`` of a tab that makes films and turns to this one."""

    async def take(films: list[Clip | None]) -> Opened:
        clip = films[index] if index < len(films) else None
        if clip is None:
            return (*[gr.skip()] * 5, gr.skip())
        return (*await opening(clip), gr.Tabs(selected="ask"))

    return take


def _uploaded(context: Context) -> Callable[[str | None], Any]:
    async def take(path: str | None) -> Opened:
        """Open a film that a visitor sends, and make room for the next."""
        try:
            clip = await read_upload(context, path, "any")
        except ApiError as error:
            return None, problem(error.message), [], "", "", None
        return (*((None, EMPTY, [], "", "") if clip is None else await opening(clip)), None)

    return take


def _answer(context: Context, describing: bool = False) -> Any:
    async def answer(
        clip: Clip | None, chat: list[dict[str, Any]], text: str, reflect: bool
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Put the question to the engine and show the answer with its evidence."""
        asked = None if describing else (text or "").strip()
        chat = [*chat, _message("user", "Describe the film." if asked is None else escape(asked))]
        if clip is None:
            yield [_message("assistant", "Choose a film first.")], gr.skip(), "", ""
            return
        yield [*chat, _message("assistant", "…")], "", gr.skip(), gr.skip()
        try:
            model = context.engine.model
            if asked is not None:
                asked = check_text(model, context.settings, "question", asked)
            future = context.engine.ask(Question(clip, asked, reflect and asked is not None))
            answer = await asyncio.wrap_future(future)
        except (ApiError, UserError) as error:
            message = error.message if isinstance(error, ApiError) else str(error)
            yield [*chat, _message("assistant", escape(message))], gr.skip(), "", ""
            return
        rounds = (getattr(answer, "trace", None) or {}).get("rounds", [])
        yield (
            [*chat, _message("assistant", said(answer))],
            gr.skip(),
            evidence(clip, answer.evidence),
            trace(rounds) if rounds else "",
        )

    return answer


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
