"""Any transformers vision-language model with its processor as Omni-Video's language model.

It gets the four marks as new tokens; its own text head then routes, once trained, and its states are what the vision
head reads. It thinks in words, by a request in its own chat format.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, ProcessorMixin

from unireel.backbones.understanding import ProcessorUnderstanding
from unireel.backbones.understanding import Request as Question
from unireel.systems.omnivideo.speech import MARKS, Kind, Reply, Request, Thought

ANSWER_TOKENS, THOUGHT_TOKENS = 512, 512
"""Longest answer and thought; the paper allows 1024 new tokens in understanding."""

MAKING = (
    "You help a film maker. First reason in one or two sentences about what the following request implies. Then "
    "rewrite it as a complete, direct description in which nothing has to be inferred. Answer in exactly this form:\n"
    "Reasoning: ...\nPrompt: ..."
)
EDITING = (
    "You help a film editor, who sees the film. First reason in one or two sentences about what the following "
    "instruction implies. Then rewrite it as a direct instruction in which nothing has to be inferred, and describe "
    "the film as it will be after the edit, without mentioning that it was edited. Answer in exactly this form:\n"
    "Reasoning: ...\nPrompt: ...\nCaption: ..."
)
"""What the model is told before it thinks."""


class GeneralMllm(ProcessorUnderstanding):
    """A model of ``AutoModelForImageTextToText`` with its ``AutoProcessor``.

    Args:
        model, processor: of one checkpoint; marks that they do not know yet are added in place.
        films: see :class:`~unireel.backbones.understanding.processor.ProcessorUnderstanding`.
        first_frame_only: whether only the first frame of a film is looked at.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        films: bool | None = None,
        first_frame_only: bool = False,
    ) -> None:
        super().__init__(model, processor, films)
        self.first_frame_only = first_frame_only
        tokenizer = processor.tokenizer
        marks = [mark for pair in MARKS.values() for mark in pair]
        tokenizer.add_tokens(marks, special_tokens=True)
        if model.get_input_embeddings().num_embeddings < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer))

    def request_states(self, requests: Sequence[Request], kinds: Sequence[Kind]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) of requests whose answer is to make something of ``kinds``, and their mask (B, L).

        All of each request is there: system text, chat marks, films and the answer's two marks.
        """
        rows = []
        base = getattr(self.model, self.model.base_model_prefix)
        for request, kind in zip(requests, kinds, strict=True):
            inputs = self._shown(request)
            ids = self.processor.tokenizer.convert_tokens_to_ids(list(MARKS[kind]))
            rows.append(base(**_continued(inputs, ids)).last_hidden_state[0])
        mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
        return pad_sequence(rows, batch_first=True), mask.to(rows[0].device)

    def reply(self, request: Request) -> Reply:
        """What the model answers: the text head decides between words and making something."""
        said = self._speak(self._shown(request), ANSWER_TOKENS, 0.0, 0)
        for kind, (begin, _) in MARKS.items():
            if said.ids and said.ids[0] == self.processor.tokenizer.convert_tokens_to_ids(begin):
                return Reply("", kind, said.probabilities[0])
        return Reply(said.text.strip(), None, math.prod(said.probabilities))

    def think(self, request: Request) -> Thought:
        """Reason about a request and rewrite it.

        Raises:
            UserError: the answer has no rewritten prompt.
        """
        system = MAKING if request.frames is None else EDITING
        said = self.chat([Question(request.text, self._frames(request), system)], THOUGHT_TOKENS)[0]
        return read_thought(said.text)

    def _frames(self, request: Request) -> Any:
        return request.frames[:1] if self.first_frame_only and request.frames is not None else request.frames

    def _shown(self, request: Request) -> dict[str, Tensor]:
        """A request in the model's chat format, up to where its answer begins."""
        frames = self._frames(request)
        if frames is None:
            return self._inputs([], request.text)
        if self.films and len(frames) > 1:
            return self._inputs([{"type": "video"}], request.text, videos=[frames], do_sample_frames=False)
        return self._inputs([{"type": "image"}] * len(frames), request.text, images=list(frames))


def _continued(inputs: dict[str, Tensor], ids: list[int]) -> dict[str, Tensor]:
    """The inputs with more text tokens at their end."""
    shape = inputs["input_ids"].shape
    new = torch.tensor([ids], device=inputs["input_ids"].device)
    longer = dict(inputs)
    for name, value in inputs.items():
        if value.shape == shape:
            # Of token types, text is 0; of masks, what is there is 1.
            more = new if name == "input_ids" else torch.full_like(new, int("mask" in name))
            longer[name] = torch.cat([value, more.to(value)], dim=1)
    return longer


def read_thought(text: str) -> Thought:
    """A thought from an answer with "Reasoning:", "Prompt:" and perhaps "Caption:", in any order and case.

    Raises:
        UserError: it has no prompt.
    """
    parts = re.split(r"(?im)^\W*(reasoning|prompt|caption)\W*:\W*", text)
    found = {name.lower(): said.strip() for name, said in zip(parts[1::2], parts[2::2], strict=True)}
    return Thought(
        found.get("reasoning", parts[0].strip()), found.get("prompt", ""), found.get("caption", "")
    )
