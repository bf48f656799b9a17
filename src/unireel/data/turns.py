"""Turns behind a film in training: which questions and captions, and what each of their tokens should look for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unireel.backbones.text import SPECIAL_TOKENS
from unireel.backbones.vlm import Turn
from unireel.data.lessons import CAPTION, Lessons
from unireel.data.stories import StoryPools
from unireel.data.subjects import MOST_NAMES, clauses, subjects
from unireel.world.language import QUESTION_TYPES, vocabulary

TYPE_WEIGHTS = {
    "background": 0.15,
    "style": 0.15,
    "count": 1.5,
    "existence": 1.5,
    "repetition": 3.0,
} | dict.fromkeys(("position", "relation", "order"), 5.0)
"""How much more often than others questions are drawn: less where films look it, more where few films have one."""

_DRAWN = np.array([*(TYPE_WEIGHTS.get(each, 1.0) for each in QUESTION_TYPES), 1.0])  # the last is a caption
_TOKENS = (*SPECIAL_TOKENS, *vocabulary())
_ASK, _ANSWER, _CAPTION, _END, _THE = (
    _TOKENS.index(each) for each in ("<ask>", "<answer>", "<caption>", "</s>", "the")
)


def draw_turns(
    lessons: Lessons,
    film: int,
    room: int,
    captions: float,
    caption_weight: float,
    random: np.random.Generator,
) -> list[Turn]:
    """Questions on a film in random order and, with probability ``captions``, first its caption.

    Args:
        room: most tokens of all turns together.
        caption_weight: of each of the caption's tokens in the loss.
    """
    turns = lessons.turns[slice(*lessons.first_turn[film : film + 2])]
    captioned = random.random() < captions
    types = turns[:, 0]
    order = drawn_order(types, random)
    caption = types[order] == CAPTION
    order = np.concatenate([order[caption][: int(captioned)], order[~caption]])
    chosen = []
    for kind, start, middle, end in turns[order].tolist():
        question, answer = (
            (lessons.words[part].astype(int) + len(SPECIAL_TOKENS)).tolist()
            for part in (slice(start, middle), slice(middle, end))
        )
        given, weight = ([_CAPTION], caption_weight) if kind == CAPTION else ([_ASK, *question, _ANSWER], 1.0)
        turn = Turn([*given, *answer, _END], [0.0] * len(given) + [weight] * (len(answer) + 1))
        if len(turn.ids) <= room:
            chosen.append(turn)
            room -= len(turn.ids)
    return chosen


def drawn_order(types: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turns of the given ``types`` (N,) in random order, (N,): each type as early as :data:`TYPE_WEIGHTS` says."""
    return np.argsort(random.exponential(size=len(types)) / _DRAWN[types])


def names_asked(
    lessons: Lessons | StoryPools, films: list[int], turns: list[list[Turn]], before: int
) -> Tensor:
    """Whom questions and captions are about: (Q, 6) int64, one row for each name that a token should look for.

    Row and place of the token, number of the name, a mask, whether it is of a caption, whether the answer chooses it
    (1) or another (-1) or is no name (0). Bit ``o + 4 * when`` of the mask is set where the name means object o (see
    :mod:`~unireel.data.subjects`); a name without object is that of something which is not there.

    Args:
        films: their numbers.
        turns: of each film, as they are packed.
        before: place of the first turn.
    """
    rows: list[tuple[int, ...]] = []
    for row, (film, said) in enumerate(zip(films, turns, strict=True)):
        there = lessons.shapes[film] >= 0
        shapes = lessons.shapes[film][there].tolist()
        colours = [set(each) for each in lessons.states[film][there][..., 4].astype(int).tolist()]
        place = before
        for turn in said:
            words = [_TOKENS[each] for each in turn.ids]
            caption, given = turn.ids[0] == _CAPTION, turn.weights.count(0.0)
            for start, end in clauses(words) if caption else [(1, given - 1)]:
                about = subjects(words[start:end], shapes, colours)
                answer = [] if caption else subjects(words[given:], shapes, colours).objects
                choice = bool(answer) and len(about.objects) == MOST_NAMES
                for number, objects in enumerate(about.objects):
                    mask = sum(1 << (each + 4 * about.when) for each in objects)
                    chosen = (1 if objects == answer[0] else -1) if choice else 0
                    for each in range(start - 1, end - 1) if caption else (end,):
                        rows.append((row, place + each, number, mask, int(caption), chosen))
            place += len(turn.ids)
    return torch.tensor(rows, dtype=torch.long).view(-1, 6)


def names_copied(turns: list[list[Turn]], before: int) -> Tensor:
    """Answers that are a name from the question, in the turns of each film: (Q, 3) int64.

    Row and place of each token before a word of the name, and the place of that word in the question.
    """
    rows = []
    for row, said in enumerate(turns):
        place = before
        for turn in said:
            given = turn.weights.count(0.0)
            name = [_THE, *turn.ids[given : turn.ids.index(_END)]]
            for start in range(1, given - len(name)):
                if turn.ids[start : start + len(name)] == name:
                    for each in range(len(name) - 1):
                        rows.append((row, place + given - 1 + each, place + start + 1 + each))
            place += len(turn.ids)
    return torch.tensor(rows, dtype=torch.long).view(-1, 3)
