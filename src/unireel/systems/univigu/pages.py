"""What stands in the text stream: words that are given and words to be written, and who can say what is a text.

Every text starts with a mark that says what follows, and ends with ``</s>``; what is behind it is padding:
``<s> prompt </s>``, ``<caption> description </s>``, ``<ask> question <answer> answer </s>``.
"""

# The tokenizers' types are too loose for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unireel.errors import UserError


@dataclass(frozen=True)
class Text:
    """One text: what is given of it, and what follows (None: to be written)."""

    given: tuple[str, ...]
    said: str | None = None


def prompt_text(prompt: str | None) -> Text:
    """A prompt, or one to be written."""
    return Text(("<s>",), prompt)


def given_prompt(prompt: str) -> Text:
    """A prompt that is given whole, for a film to read."""
    return Text(("<s>", prompt, "</s>"))


def caption_text(caption: str | None) -> Text:
    """A description, or one to be written."""
    return Text(("<caption>",), caption)


def question_text(question: str, answer: str | None) -> Text:
    """A question that is given and its answer, or one to be written."""
    return Text(("<ask>", question, "<answer>"), answer)


@dataclass(frozen=True)
class Page:
    """Texts as rows: words (B, L) int64, which of them are given, and which are there, (B, L) bool.

    What is there and not given is to be written (or, in training, to be learned).
    """

    ids: Tensor
    given: Tensor
    there: Tensor

    @property
    def open(self) -> Tensor:
        """Which words are to be written, (B, L) bool."""
        return self.there & ~self.given

    def to(self, device: torch.device | str) -> Page:
        """The same elsewhere."""
        return Page(self.ids.to(device), self.given.to(device), self.there.to(device))


def page_of(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    slots: Sequence[int] | int,
    length: int,
    multiple: int = 1,
) -> Page:
    """Texts as rows, as wide as the longest, or wider by places where nothing is.

    Args:
        slots: for a text to be written, how many words there is room for, with its end; for one that is said, how much
            padding follows its end (the same for all, or one for each).
        length: most words in a row.
        multiple: of which the width is one, unless that is above ``length``.

    Raises:
        UserError: a text has more words; nothing is ever cut.
    """
    rows: list[tuple[list[int], int]] = []
    room = [slots] * len(texts) if isinstance(slots, int) else list(slots)
    for text, spare in zip(texts, room, strict=True):
        given = words_of(tokenizer, " ".join(text.given))
        said = [] if text.said is None else [*words_of(tokenizer, text.said), tokenizer.eos_token_id]
        width = len(given) + len(said) + (spare if text.said is None else 0)
        if width > length:
            words = " ".join((*text.given, text.said or ""))
            raise UserError(f"the text needs {width} places; the model has {length}: {words[:80]!r}")
        spare = min(spare, length - len(given) - len(said))
        rows.append((given + said + [tokenizer.pad_token_id] * spare, len(given)))
    width = max(len(ids) for ids, _ in rows)
    width = max(width, min(-(-width // multiple) * multiple, length))
    page = torch.full((3, len(rows), width), tokenizer.pad_token_id, dtype=torch.long)
    page[1:] = 0
    for number, (ids, given) in enumerate(rows):
        page[0, number, : len(ids)] = torch.tensor(ids)
        page[1, number, :given] = 1
        page[2, number, : len(ids)] = 1
    return Page(page[0], page[1].bool(), page[2].bool())


def words_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The numbers of a text's words and marks."""
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []  # type: ignore[return-value]


def said_in(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of words up to the end, without padding and marks."""
    words = list(ids)
    if tokenizer.eos_token_id in words:
        words = words[: words.index(tokenizer.eos_token_id)]
    kept = [word for word in words if word not in tokenizer.all_special_ids]
    said = " ".join(tokenizer.convert_ids_to_tokens(kept))
    return said.replace(" .", ".").replace(" ,", ",").replace(" ?", "?")
