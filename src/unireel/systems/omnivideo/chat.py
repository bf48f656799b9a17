"""Conversations: ask, make, edit, ask again, always about the running film; the model decides what each turn is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.systems.omnivideo.speech import Thought, bare

if TYPE_CHECKING:
    from collections.abc import Callable

    from unireel.systems.omnivideo.pipeline import OmniVideo


@dataclass(frozen=True)
class ChatTurn:
    """What was said, and what came of it.

    Attributes:
        said: the person's words.
        text: the model's answer; empty where it made something.
        clip: what it made, or None.
        confidence: probability of the answer, or of the decision to make something.
        thought: what it thought before, in think mode.
    """

    said: str
    text: str
    clip: Clip | None
    confidence: float
    thought: Thought | None = None


class Conversation:
    """Turns about a running film. Each is about the film as it is now, not about what was said before.

    Args:
        model: the one to talk to.
        clip: the film to begin with, if any.
        think: whether the model thinks before it makes something.
        seed: of the first film; each later one has the next.
    """

    def __init__(
        self, model: OmniVideo, clip: Clip | None = None, think: bool = False, seed: int = 0
    ) -> None:
        self.model, self.think, self.seed = model, think, seed
        self.turns: list[ChatTurn] = []
        self._films: list[Clip | None] = [clip]

    @property
    def clip(self) -> Clip | None:
        """The running film."""
        return self._films[-1]

    def say(self, text: str, progress: Callable[[int, int], None] | None = None) -> ChatTurn:
        """One turn.

        Raises:
            UserError: the words are empty or unknown, or the running film cannot be edited; nothing has changed then.
        """
        clip, model = self.clip, self.model
        reply = model.reply(text, clip)
        if reply.makes is None:
            turn = ChatTurn(text, reply.text, None, reply.confidence)
        else:
            thought = model.think(text, clip) if self.think else None
            seed = self.seed + len(self._films) - 1
            if clip is None:
                frames = 1 if reply.makes == "image" else None
                made = model.generate(
                    bare(text), frames=frames, seed=seed, thought=thought, progress=progress
                )
            else:
                made = model.edit(clip, text, seed=seed, thought=thought, progress=progress)
            turn = ChatTurn(text, "", made, reply.confidence, thought)
            self._films.append(made)
        self.turns.append(turn)
        return turn

    def undo(self) -> Clip | None:
        """Take the last film back; returns the running film.

        Raises:
            UserError: nothing was made yet.
        """
        if len(self._films) == 1:
            raise UserError("there is nothing to undo: no film was made yet")
        self._films.pop()
        return self.clip

    def forget(self) -> None:
        """Go on without a film, so that the next request makes a new one."""
        self._films.append(None)
