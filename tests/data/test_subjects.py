"""Whom a question is about, against scenes whose names are known."""

from unireel.data.subjects import ANY_TIME, END, START, clauses, subjects
from unireel.world.language.vocabulary import words
from unireel.world.scene import COLOURS, SHAPES

RED, BLUE = (tuple(COLOURS).index(each) for each in ("red", "blue"))
STAR, CROSS = (SHAPES.index(each) for each in ("star", "cross"))
FILM = [STAR, STAR, CROSS], [{RED}, {BLUE, RED}, {BLUE}]


def _ask(text: str):
    return subjects(words(text), *FILM)


def test_names_mean_shapes_colours_and_both():
    assert _ask("what colour is the cross?") == ([[2]], ANY_TIME)
    assert _ask("what shape is the blue object?").objects == [[1, 2]]
    assert _ask("how many red stars are there?").objects == [[0, 1]]
    assert _ask("how many objects are there?").objects == [[0, 1, 2]]
    assert _ask("is there a red ring?").objects == [[]]
    assert _ask("what is the background?").objects == []


def test_two_names_and_the_end_that_is_asked_about():
    asked = _ask("at the end, where is the red star compared to the blue cross?")
    assert asked == ([[0, 1], [2]], END)
    assert _ask("where is the cross at the start?").when == START
    assert _ask("which starts first, the red star or the blue cross?").when == ANY_TIME


def test_clauses_of_a_caption():
    caption = ["<caption>", *words("there are two objects. a red star jumps, a blue cross grows."), "</s>"]
    assert [" ".join(caption[a:b]) for a, b in clauses(caption)] == [
        "there are two objects .",
        "a red star jumps ,",
        "a blue cross grows .",
    ]
