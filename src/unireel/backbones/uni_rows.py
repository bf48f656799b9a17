"""What goes through a video DiT with a text stream: film rows, text rows, what they remember, and who reads whom.

Film rows read each other, and the words that are there. Noisy words read everything. With ``one_way``, what is given
reads nothing that is still being made: a clean film reads no words; given words read given words, and the film only if
it is clean. Keys and values of what is given are then the same at every step of sampling: :class:`Memory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Film:
    """Film rows of a call.

    Attributes:
        latents: (B, C, T, h, w).
        time: of the film (B,) or of each of its tokens (B, N), 0 (clean) to 1000 (noise).
        clean: which films are given whole, (B,) bool; None: none is.
    """

    latents: Tensor
    time: Tensor
    clean: Tensor | None = None


@dataclass(frozen=True)
class Words:
    """Text rows of a call; at least one in each row of the batch is there.

    Attributes:
        state: tokens (B, L) int64, or for continuous formulations vectors (B, L, d).
        time: (B, L), 0 (clean) to 1000 (noise).
        there: (B, L) bool, False for padding.
        given: (B, L) bool, words that are clean and stay.
        places: (1 or B, L) int64, where in the text each word stands; None: 0, 1, ...
        before: what one evaluation ago was predicted of the data, (B, L, d), 0 for given words; None: nothing.
    """

    state: Tensor
    time: Tensor
    there: Tensor
    given: Tensor
    places: Tensor | None = None
    before: Tensor | None = None

    def counted(self) -> Tensor:
        """``places``, or 0, 1, ... (1, L)."""
        if self.places is not None:
            return self.places
        return torch.arange(self.time.shape[1], device=self.time.device)[None]


@dataclass(frozen=True)
class Memory:
    """Keys and values of given rows, by block: pairs of (B, M, heads, d). ``there`` (B, M) bool, False for padding."""

    there: Tensor
    blocks: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def repeated(self, count: int) -> Memory:
        """The same, ``count`` times along the batch."""
        blocks = [(k.repeat(count, 1, 1, 1), v.repeat(count, 1, 1, 1)) for k, v in self.blocks]
        return Memory(self.there.repeat(count, 1), blocks)

    def expanded(self, rows: Tensor) -> Memory:
        """For another batch, whose row i reads what row ``rows[i]`` of this one remembers."""
        return Memory(self.there[rows], [(k[rows], v[rows]) for k, v in self.blocks])


class Turn(NamedTuple):
    """How places turn queries and keys: see :func:`~unireel.backbones.uni_block.turned`."""

    cosine: Tensor
    sine: Tensor
    halves: bool = False


@dataclass
class Rows:
    """One stream between two blocks: states (B, n, D), modulation (B, 1 or n, 6, D), and how its places turn
    queries and keys (B, n, heads, d)."""

    states: Tensor
    modulation: Tensor
    turn: Turn


@dataclass(frozen=True)
class Seen:
    """What a call put out: ``video`` (B, C, T, h, w), ``text`` (B, L, V or d), what it remembers, and the text's rows
    (without text the film's) as they went into the blocks that were watched."""

    video: Tensor | None
    text: Tensor | None
    memory: Memory | None
    watched: tuple[Rows, ...] = ()


class Apart(NamedTuple):
    """A mask of self-attention in two parts: all rows of a film read the same keys, so that nothing of the size of rows
    times keys is needed, and often no mask at all.

    Attributes:
        tokens: N, rows of the film, which come first.
        keys: the keys that every film of the batch reads, by number; None: all of them, or not the same for all.
        film: (B, 1, 1, keys) bool where films read different keys, else None.
        words: (B, 1, L, keys) bool, None where every word reads every key.
    """

    tokens: int
    keys: Tensor | None
    film: Tensor | None
    words: Tensor | None


def who_reads_whom(
    clean: Tensor,
    tokens: int,
    words: Words | None,
    memory: Memory | None,
    one_way: bool,
    apart: bool | None = None,
) -> tuple[Tensor | Apart | None, Tensor]:
    """The mask of self-attention, and which keys are there.

    Args:
        clean: which films are clean, (B,) bool.
        tokens: N, rows of the film.
        words: the text rows, which come behind those of the film.
        memory: whose keys come before all rows, and which every row reads.
        one_way: see the module.
        apart: whether the mask is in two parts; by default everywhere but on processors, where films are short.

    Returns:
        (B, 1, rows, keys) bool or the same in two parts, None where every row reads every key; and (B, keys) bool.
    """
    if tokens and words is not None and (clean.device.type != "cpu" if apart is None else apart):
        return _apart(clean, tokens, words, memory, one_way)
    film = torch.ones((len(clean), tokens), dtype=torch.bool, device=clean.device)
    there, mask = film, film[:, None].expand(-1, tokens, -1)
    if words is not None:
        there = torch.cat([film, words.there], 1)
        clean, given = clean[:, None] & one_way, words.given & one_way
        of_film = torch.cat([film, words.there & ~clean], 1)
        of_given = torch.cat([film & clean, given & words.there], 1)
        of_words = torch.where(given[:, :, None], of_given[:, None], there[:, None])
        mask = torch.cat([of_film[:, None].expand(-1, tokens, -1), of_words], 1)
    if memory is not None:
        mask = torch.cat([memory.there[:, None].expand(-1, mask.shape[1], -1), mask], 2)
        there = torch.cat([memory.there, there], 1)
    return (None if bool(mask.all()) else mask[:, None]), there


def _apart(
    clean: Tensor, tokens: int, words: Words, memory: Memory | None, one_way: bool
) -> tuple[Apart | None, Tensor]:
    """As :func:`who_reads_whom`, in two parts."""
    film = torch.ones((len(clean), tokens), dtype=torch.bool, device=clean.device)
    clean, given = clean[:, None] & one_way, words.given & one_way
    there = torch.cat([film, words.there], 1)
    of_film = torch.cat([film, words.there & ~clean], 1)
    of_given = torch.cat([film & clean, given & words.there], 1)
    of_words = torch.where(given[:, :, None], of_given[:, None], there[:, None])
    if memory is not None:
        there, of_film = (torch.cat([memory.there, each], 1) for each in (there, of_film))
        before = memory.there[:, None].expand(-1, of_words.shape[1], -1)
        of_words = torch.cat([before, of_words], 2)
    alike, everything = bool((of_film == of_film[:1]).all()), bool(of_film.all())
    keys = of_film[0].nonzero()[:, 0] if alike and not everything else None
    mask = None if alike else of_film[:, None, None]
    own = None if bool(of_words.all()) else of_words[:, None]
    return (None if everything and own is None else Apart(tokens, keys, mask, own)), there
