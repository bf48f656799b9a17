"""Answers and captions: films brought to the model's size and length, asked in batches, with honest confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from unireel.backbones.decoding import Forbidden, Said, decode, film_features
from unireel.backbones.vlm import Turn, caption_turn, layout_of, question_turn, view_slots, visual_patches
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.media.sampling import frames_on_display, sample_times
from unireel.world.checker import observe
from unireel.world.language import repeated_names, unknown_words
from unireel.world.scene import CLIP_FRAMES, FPS

ANSWER_TOKENS, CAPTION_TOKENS = 8, 128
"""Longest answer and caption, in words and marks."""

OUTSIDE = "the film is clearly outside the World, so this is unreliable"

CAPTION_BEAMS = 4
"""Continuations of a caption that are kept: the likeliest next word can lead to something unlikely."""


@dataclass(frozen=True)
class Evidence:
    """A frame that was looked at: its number in the film and its time in seconds."""

    frame: int
    time: float


@dataclass(frozen=True)
class Answer:
    """What the model said of a film.

    ``confidence`` in [0, 1] is the probability that the model gives its own words: of the whole answer, or per word for
    a caption. ``reliable`` is False where the model should not be trusted whatever its confidence, and ``note`` says
    why, or how the film was changed to fit the model. ``evidence`` are the frames the model was shown.
    """

    text: str
    confidence: float
    reliable: bool = True
    note: str | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A film as the model sees it: frames (F, S, S, 3), where they come from, and what to say about that."""

    frames: np.ndarray
    evidence: tuple[Evidence, ...]
    reliable: bool
    note: str | None


def prepare(clip: Clip, size: int, judge: bool = True) -> Prepared:
    """Bring a film of any size and length to 17 square frames.

    A film of 17 frames or fewer keeps them all and holds its last; of a longer one, 17 are taken evenly. ``judge``
    lets the World's checker decide whether the film is from the World at all.
    """
    notes = []
    if len(clip) > CLIP_FRAMES:
        times, _ = sample_times(clip.duration, num_frames=CLIP_FRAMES)
        chosen = np.asarray(frames_on_display(np.asarray(clip.times), times))
        notes.append(f"the model was shown {CLIP_FRAMES} of {len(clip)} frames, evenly spread")
    else:
        chosen = np.minimum(np.arange(CLIP_FRAMES), len(clip) - 1)
    if (clip.height, clip.width) != (size, size):
        notes.append(f"the film was resized from {clip.width}x{clip.height} to {size}x{size}")
        clip = Clip(clip.frames[np.unique(chosen)], clip.fps).resized(size, size)
        frames = clip.frames[np.searchsorted(np.unique(chosen), chosen)]
    else:
        frames = clip.frames[chosen]
    reliable = not judge or observe(Clip(frames, FPS)).plausible
    if not reliable:
        notes.insert(0, OUTSIDE)
    evidence = tuple(Evidence(int(each), round(int(each) / clip.fps, 3)) for each in np.unique(chosen))
    return Prepared(np.ascontiguousarray(frames), evidence, reliable, "; ".join(notes) or None)


def prepare_view(frames: np.ndarray, size: int, judge: bool = True) -> Prepared:
    """Bring chosen frames (n, H, W, 3) of a long film to the model's size, in whole tubes; ``judge`` as above."""
    clip = Clip(np.ascontiguousarray(frames), FPS)
    resized = (clip.height, clip.width) != (size, size)
    note = f"the frames were resized from {clip.width}x{clip.height} to {size}x{size}" if resized else None
    clip = clip.resized(size, size) if resized else clip
    # Few frames are held: the checker reads whole films.
    some = np.arange(CLIP_FRAMES) * len(clip) // CLIP_FRAMES
    reliable = not judge or observe(Clip(clip.frames[some], FPS)).plausible
    if not reliable:
        note = "; ".join(filter(None, [OUTSIDE, note]))
    evidence = tuple(Evidence(each, round(each / FPS, 3)) for each in range(len(clip)))
    return Prepared(clip.frames[view_slots(len(clip))], evidence, reliable, note)


class Answerer:
    """A video-language model with its tokenizer."""

    def __init__(
        self, vlm: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, size: int
    ) -> None:
        self.vlm, self.tokenizer, self.size = vlm, tokenizer, size

    def ask(self, pairs: Sequence[tuple[Clip, str]], batch: int, judge: bool = True) -> list[Answer]:
        """Answer each (film, question).

        Raises:
            UserError: a question is empty or has words that the model does not know.
        """
        for _, question in pairs:
            check_words("question", question)
        films = self._prepared([clip for clip, _ in pairs], judge)
        return self._answers(films, [question for _, question in pairs], batch)

    def ask_view(self, frames: np.ndarray, question: str, judge: bool = True) -> Answer:
        """Answer from chosen frames (n, H, W, 3) of a long film, in temporal order.

        Raises:
            UserError: as in :meth:`ask`.
        """
        check_words("question", question)
        return self._answers([prepare_view(frames, self.size, judge)], [question], 1)[0]

    def caption(self, clips: Sequence[Clip], batch: int, judge: bool = True) -> list[Answer]:
        """Describe each film: the likeliest caption that names no object twice, found by a beam search."""
        turns = [caption_turn(self.tokenizer, None)] * len(clips)
        return self.continued(clips, turns, CAPTION_TOKENS, self._repeated, batch, judge)

    def continued(
        self,
        clips: Sequence[Clip],
        turns: Sequence[Turn],
        most: int,
        forbidden: Forbidden,
        batch: int = 1,
        judge: bool = False,
    ) -> list[Answer]:
        """What likely follows each turn about a film, at most ``most`` tokens, found by a beam search."""
        search = partial(decode, most=most, beams=CAPTION_BEAMS, forbidden=forbidden)
        return self._say(self._prepared(clips, judge), list(turns), search, batch, _per_token)

    def _prepared(self, clips: Sequence[Clip], judge: bool) -> list[Prepared]:
        """Each film, prepared once."""
        prepared = {id(clip): prepare(clip, self.size, judge) for clip in {id(c): c for c in clips}.values()}
        return [prepared[id(clip)] for clip in clips]

    def _answers(self, films: list[Prepared], questions: Sequence[str], batch: int) -> list[Answer]:
        turns = [question_turn(self.tokenizer, question, None) for question in questions]
        return self._say(films, turns, partial(decode, most=ANSWER_TOKENS), batch, math.prod)

    def _repeated(self, said: list[int]) -> list[int]:
        words = repeated_names(self.tokenizer.convert_ids_to_tokens(said))  # type: ignore[arg-type]
        return self.tokenizer.convert_tokens_to_ids(sorted(words))  # type: ignore[return-value]

    def _say(
        self,
        films: list[Prepared],
        turns: list[Turn],
        search: Callable[..., list[Said]],
        batch: int,
        confidence: Callable[[list[float]], float],
    ) -> list[Answer]:
        answers: dict[int, Answer] = {}
        by_length = sorted(range(len(films)), key=lambda i: len(turns[i].ids))
        for _, same in groupby(by_length, key=lambda i: len(turns[i].ids)):
            equal = list(same)
            for rows in (equal[start : start + batch] for start in range(0, len(equal), batch)):
                spoken = self._batch([films[i] for i in rows], [turns[i] for i in rows], search)
                for i, said in zip(rows, spoken, strict=True):
                    film, sure = films[i], confidence(said.probabilities)
                    answers[i] = Answer(self._text(said), sure, film.reliable, film.note, film.evidence)
        return [answers[i] for i in range(len(films))]

    def _batch(
        self, films: list[Prepared], turns: list[Turn], search: Callable[..., list[Said]]
    ) -> list[Said]:
        device = self.vlm.device
        patches, grid = visual_patches(np.stack([film.frames for film in films]), layout_of(self.vlm))
        features = film_features(self.vlm, patches.to(device, self.vlm.dtype), grid.to(device))
        starts = torch.tensor([turn.ids for turn in turns], device=device)
        marks = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return search(self.vlm, features, grid[0], starts, *marks)

    def _text(self, said: Said) -> str:
        words = self.tokenizer.convert_ids_to_tokens(said.ids)
        return " ".join(words).replace(" .", ".").replace(" ,", ",").replace(" ?", "?")


def check_words(what: str, text: str) -> None:
    """Raise a :class:`UserError` if ``text`` is empty or has words outside the World's closed vocabulary."""
    if not text.strip():
        raise UserError(f"the {what} is empty; say something like 'a red star jumps twice'")
    unknown = unknown_words(text)
    if unknown:
        listed = ", ".join(f"'{word}'" for word in unknown[:5])
        raise UserError(
            f"the {what} has words that the pocket model does not know: {listed}; "
            "'unireel world sample --n 5' shows its language"
        )


def _per_token(probabilities: list[float]) -> float:
    """Geometric mean: the confidence per word."""
    return math.exp(sum(math.log(max(p, 1e-9)) for p in probabilities) / max(len(probabilities), 1))
