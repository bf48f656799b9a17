"""The page as a whole: its head, its tabs, and which of them the loaded model has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html import escape
from typing import Any

import gradio as gr

from unireel.serving.context import Context
from unireel.serving.errors import ApiError
from unireel.serving.page import ask, edit, imagine, make
from unireel.serving.page.fragments import hint, problem

SESSIONS = 64
"""Visits whose films are kept in memory at the same time; the oldest is forgotten first."""

WAITING = 64
"""Presses of buttons that may wait; the engine's own queue is behind that."""

LOOK_SECONDS = 0.5
"""How often it is looked whether the model has been loaded."""

BLUE = gr.themes.Color(
    *(
        "#f2f5ff",
        "#e3e9ff",
        "#c9d5ff",
        "#aebfff",
        "#93a8ff",
        "#3454c5",
        "#2743a6",
        "#21378a",
        "#1c2f70",
        "#16255a",
    ),
    "#101c45",
    name="unireel",
)
"""The accent of all our pages, from light to dark."""

_TITLE = '<div class="title"><h1>Unireel</h1><p>{}</p></div>'


def theme() -> gr.themes.Base:
    """Quiet colours and the system's own fonts: nothing is fetched for it."""
    own = {
        "body_background_fill": "#faf9f6",
        "body_background_fill_dark": "#131316",
        "block_border_width": "1px",
        "block_border_color": "#e2e0da",
        "block_border_color_dark": "#34343b",
        "block_background_fill": "#ffffff",
        "block_background_fill_dark": "#1c1c20",
        "block_shadow": "none",
        "button_primary_background_fill": "#3454c5",
        "button_primary_background_fill_dark": "#93a8ff",
        "button_primary_background_fill_hover": "#2743a6",
        "button_primary_background_fill_hover_dark": "#a9baff",
        "button_primary_text_color": "#ffffff",
        "button_primary_text_color_dark": "#111111",
        "button_secondary_background_fill": "#f1efe9",
        "button_secondary_background_fill_dark": "#2a2a30",
        "input_background_fill": "#ffffff",
        "input_background_fill_dark": "#232328",
        "checkbox_background_color_selected_dark": "#93a8ff",
        "block_label_text_color": "#5f5f66",
        "block_label_text_color_dark": "#a3a3ab",
    }
    base = gr.themes.Base(
        primary_hue=BLUE,
        neutral_hue="stone",
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return base.set(**own)  # pyright: ignore[reportArgumentType]


def build(context: Context) -> gr.Blocks:
    """The page of a server; the model may still be on its way."""
    blocks = gr.Blocks(title="Unireel", analytics_enabled=False, fill_width=True, delete_cache=(600, 1800))
    with blocks:
        head = gr.HTML(_TITLE.format("one model that makes, edits and understands film"))
        with gr.Tabs() as tabs:
            with gr.Tab("Make", id="make", visible=False) as make_tab:
                made = make.tab(context)
            with gr.Tab("Ask", id="ask", visible=False) as ask_tab:
                asked = ask.tab(context)
            with gr.Tab("Edit", id="edit", visible=False) as edit_tab:
                edited = edit.tab(context)
            with gr.Tab("Imagine", id="imagine", visible=False) as imagine_tab:
                imagined = imagine.tab(context)
        for source in (made, imagined):
            for index, (to_ask, to_edit) in enumerate(source.hand_over):
                opened = [*asked.opened, tabs], [*edited.opened, tabs]
                to_ask.click(ask.from_make(index), [source.films], opened[0], api_visibility="private")
                to_edit.click(edit.from_make(index), [source.films], opened[1], api_visibility="private")
        shown = [head, make_tab, ask_tab, edit_tab, imagine_tab, asked.reflect]

        async def arrive() -> AsyncIterator[tuple[Any, ...]]:
            """Show what the model can do, as soon as there is one."""
            as_it_is = [gr.skip()] * (len(shown) - 1)
            while context.engine.state == "loading":
                yield (_TITLE.format("the model is being loaded"), *as_it_is)
                await asyncio.sleep(LOOK_SECONDS)
            try:
                model = context.engine.model
            except ApiError as error:
                yield (_TITLE.format("") + problem(error.message), *as_it_is)
                return
            can = model.abilities
            size, length = f"{model.size[1]}×{model.size[0]} pixels", model.lengths[-1] / model.fps
            facts = f"{escape(model.name)}: {size}, films of up to {length:.1f} seconds"
            able = '<i id="can-edit" hidden></i>' if "edit" in can else ""
            nothing = "" if can else hint("This model can neither make films nor answer questions.")
            yield (
                _TITLE.format(facts) + able + nothing,
                gr.Tab(visible="generate" in can),
                gr.Tab(visible="ask" in can),
                gr.Tab(visible="edit" in can),
                gr.Tab(visible="imagine" in can),
                gr.Checkbox(visible="reflect" in can),
            )

        blocks.load(arrive, None, shown, show_progress="hidden", api_visibility="private")
    blocks.queue(max_size=WAITING, default_concurrency_limit=WAITING, api_open=False)
    blocks.state_session_capacity = SESSIONS
    return blocks
