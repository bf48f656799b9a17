"""What every film of a cache teaches, as arrays beside the films: where its objects are, and what is said of it.

Drawing tracks, questions and captions from a scene costs a millisecond of Python each time; a training that reads
arrays spends that time on its network. The arrays are made once (a minute for 60,000 films).

    python -m unireel.data.lessons cache/films-48
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from unireel.data.cache import FilmCache
from unireel.data.targets import film_targets, motion_targets
from unireel.world.language import QUESTION_TYPES, caption_for, questions_for, vocabulary
from unireel.world.language.vocabulary import words
from unireel.world.scene import MAX_OBJECTS, SHAPES
from unireel.world.tracks import tracks

SEEDS = (0, 1)
"""Questions are drawn with each of these seeds: most types ask about another object, or in other words."""

STATES = ("x", "y", "radius", "visible", "colour")
"""What is known of an object in a frame: centre and radius on the screen in pixels, 0 or 1, number of the colour."""

CAPTION = len(QUESTION_TYPES)
"""The type of a turn that is a caption; questions have their place in :data:`QUESTION_TYPES`."""

_ARRAYS = ("states", "shapes", "motions", "films", "words", "turns", "first_turn")


class Lessons:
    """The lessons of a film cache, N films of F frames with up to O objects; made where they are missing.

    Attributes:
        states: (N, O, F, 5) float16, see :data:`STATES`; nothing is visible of objects that do not exist.
        shapes: (N, O) int8, number of the shape, -1 for no object.
        motions: (N, O, K) bool, see :func:`~unireel.data.targets.motion_targets`.
        films: (N, K) bool, see :func:`~unireel.data.targets.film_targets`.
        words: all words of all turns, places in the vocabulary, uint8.
        turns: (M, 4) int64: type, first word, first word of the answer, end. A caption is all answer.
        first_turn: (N + 1,) int64: the turns of film i are those from ``first_turn[i]`` to ``first_turn[i + 1]``.
    """

    states: np.ndarray
    shapes: np.ndarray
    motions: np.ndarray
    films: np.ndarray
    words: np.ndarray
    turns: np.ndarray
    first_turn: np.ndarray

    def __init__(self, films: FilmCache, progress: bool = True) -> None:
        content = json.dumps([vocabulary(), QUESTION_TYPES, SEEDS])
        folder = films.folder / f"lessons-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            for name, array in _make(films, progress).items():
                np.save(folder / f"{name}.npy", array)
            (folder / "complete").touch()
        for name in _ARRAYS:
            setattr(self, name, np.load(folder / f"{name}.npy"))


def _make(films: FilmCache, progress: bool) -> dict[str, np.ndarray]:
    from tqdm import tqdm

    count, length = films.frames.shape[:2]
    place = {word: number for number, word in enumerate(vocabulary())}
    states = np.zeros((count, MAX_OBJECTS, length, len(STATES)), dtype=np.float16)
    shapes = np.full((count, MAX_OBJECTS), -1, dtype=np.int8)
    motions, of_film = [], []
    said: list[int] = []
    turns: list[tuple[int, int, int, int]] = []
    first_turn = [0]

    def add(kind: int, question: str, answer: str) -> None:
        start = len(said)
        said.extend(place[word] for word in words(question))
        middle = len(said)
        said.extend(place[word] for word in words(answer))
        turns.append((kind, start, middle, len(said)))

    for index in tqdm(range(count), desc="lessons", disable=None if progress else True):
        scene = films.scene(index)
        for number, (figure, track) in enumerate(zip(scene.objects, tracks(scene), strict=True)):
            columns = (track.screen_x, track.screen_y, track.screen_radius, track.visible, track.colour)
            states[index, number] = np.stack(columns, axis=-1)
            shapes[index, number] = SHAPES.index(figure.shape)
        motions.append(motion_targets(scene))
        of_film.append(film_targets(scene))
        asked = {(q.type, q.text): q.answer for seed in SEEDS for q in questions_for(scene, seed)}
        for (kind, text), answer in asked.items():
            add(QUESTION_TYPES.index(kind), text, answer)
        add(CAPTION, "", caption_for(scene))
        first_turn.append(len(turns))
    return {
        "states": states,
        "shapes": shapes,
        "motions": np.stack(motions),
        "films": np.stack(of_film),
        "words": np.array(said, dtype=np.uint8),
        "turns": np.array(turns, dtype=np.int64),
        "first_turn": np.array(first_turn, dtype=np.int64),
    }


def main() -> None:
    """Make the lessons of a cache from the command line."""
    parser = argparse.ArgumentParser(description="Write what each film of a cache teaches beside it.")
    parser.add_argument("films", type=Path, help="folder of the film cache")
    lessons = Lessons(FilmCache(parser.parse_args().films))
    print(f"{len(lessons.films)} films, {len(lessons.turns)} turns, {len(lessons.words)} words")


if __name__ == "__main__":
    main()
