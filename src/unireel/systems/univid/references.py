"""Prompts that need a picture to be understood: "a circle of the colour shown in this picture jumps twice".

One noun of a prompt is said by what a reference picture shows. The picture is no first frame: it shows another object
on another background, of which one property counts. With the plain prompt and its facts, these teach and measure
whether understanding steers generation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from unireel.world.language import Prompt
from unireel.world.language.phrases import article, scene_random
from unireel.world.render import render_frames
from unireel.world.sampling import visible_on
from unireel.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Object, Scene

Shown = Literal["colour", "shape", "object"]
SHOWN: tuple[Shown, ...] = ("colour", "shape", "object")

_NOUN = re.compile(rf"\b(an?|one) (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_OF_COLOUR = re.compile(r"\ban? ((?:small |large )?)(\w+) of the colour shown in the picture\b")
_OF_SHAPE = re.compile(r"\ban? ((?:small |large )?)(\w+) object of the shape shown in the picture\b")
_SAID = re.compile(r"\bthe (colour|shape|object) shown in the picture\b")
_NOUNS_OF_PICTURES = re.compile(r"\bthis (?=(?:picture|image|photo)\b)")


@dataclass(frozen=True)
class Referring:
    """A prompt that refers to a picture.

    Attributes:
        text: the prompt as it is given.
        direct: what it means, in words alone.
        shown: what of the picture counts.
        scene: the picture's, of one frame.
    """

    text: str
    direct: Prompt
    shown: Shown
    scene: Scene

    @cached_property
    def picture(self) -> np.ndarray:
        """The reference picture (S, S, 3) uint8."""
        return render_frames(self.scene)[0]


def referring(prompt: Prompt, scene: Scene, seed: int, shown: Shown | None = None) -> Referring | None:
    """Say a noun of ``prompt`` by a picture; the same for the same arguments.

    Args:
        prompt: of ``scene``.
        shown: what the picture tells; None takes any.

    Returns:
        None if no noun is named once only, with its colour: a second mention would give away what is asked for.
    """
    found = [each for each in _NOUN.finditer(prompt.text) if _is_alone(prompt.text, each)]
    if not found or scene.style == "grayscale":
        return None
    random = scene_random(scene, "referring", seed)
    shown = shown or random.choice(SHOWN)
    match = random.choice(found)
    _, size, colour, shape = match.groups()
    sized = f"{size} " if size else ""
    said = {
        "colour": f"{article(f'{sized}{shape}')} of the colour shown in the picture",
        "shape": f"{article(f'{sized}{colour} object')} of the shape shown in the picture",
        "object": "the object shown in the picture",
    }[shown]
    text = f"{prompt.text[: match.start()]}{said}{prompt.text[match.end() :]}"
    x, y = (random.uniform(0.3, 0.7) * scene.size for _ in range(2))
    grounds = [each for each in BACKGROUNDS if each != scene.background]
    figure = Object(
        shape if shown != "colour" else random.choice([each for each in SHAPES if each != shape]),
        colour if shown != "shape" else random.choice([each for each in COLOURS if each != colour]),
        size if size and shown == "object" else random.choice(SIZES),
        x,
        y,
    )
    able = [each for each in grounds if visible_on(figure.colour, each, "plain")]
    picture = Scene((figure,), random.choice(able), frames=1, size=scene.size)
    return Referring(text, prompt, shown, picture)


def _is_alone(text: str, match: re.Match[str]) -> bool:
    return len(re.findall(rf"\b{match[3]} {match[4]}\b", text)) == 1


def refers(prompt: str) -> bool:
    """Whether a prompt speaks of a picture that is shown with it."""
    return _SAID.search(plainly(prompt)) is not None


def plainly(prompt: str) -> str:
    """The prompt in the World's words, which have no "this": "in this picture" becomes "in the picture"."""
    return _NOUNS_OF_PICTURES.sub("the ", prompt)


def resolved(prompt: str, colour: str, shape: str) -> str:
    """The prompt with what it says by the picture said in words, if the picture shows a ``colour`` ``shape``."""
    prompt = plainly(prompt)

    def coloured(match: re.Match[str]) -> str:
        return article(f"{match[1]}{colour} {match[2]}")

    def shaped(match: re.Match[str]) -> str:
        return article(f"{match[1]}{match[2]} {shape}")

    prompt = _OF_COLOUR.sub(coloured, prompt)
    prompt = _OF_SHAPE.sub(shaped, prompt)
    return prompt.replace("the object shown in the picture", article(f"{colour} {shape}"))
