"""The pocket video-language model as Omni-Video's language model: it answers, routes, thinks and gives its states.

Every request reads ``<s> [film] <ask> text <answer>``. What follows decides: words are an answer, ``<BOI> <EOI>`` and
``<BOV> <EOV>`` are the wish for a picture or a film, whose visual tokens the vision head reads from the states of all
of it. A thought reads ``<s> [film] <think> text <answer> reasoning <rewrite> prompt``, what an edited film will show
``<s> film <think> instruction <answer> <caption> description <rewrite> plan``: what the film shows is said first.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalSubscript=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration, UMT5EncoderModel

from unireel.backbones.understanding.interface import Spoken
from unireel.backbones.understanding.pocket import PocketUnderstanding
from unireel.backbones.vlm import (
    Turn,
    caption_turn,
    film_positions,
    question_turn,
    text_position,
    visual_patches,
    visual_tokens,
)
from unireel.clip import Clip
from unireel.systems.base.answering import Answerer
from unireel.systems.omnivideo.speech import (
    MARKS,
    NEW_TOKENS,
    REWRITE,
    THINK,
    Kind,
    Reply,
    Request,
    Thought,
    as_heard,
)
from unireel.world.language import PLAN_WORDS, facts_after, named_twice, plan_worth
from unireel.world.language.vocabulary import words
from unireel.world.scene import FPS

ANSWER_TOKENS, THOUGHT_TOKENS = 128, 256
"""Longest answer and thought, in words and marks."""

FORESEEN, WARMTH = 16, 0.7
"""How often a plan is drawn at most, and the temperature of all but the first."""

NO_INFERENCE = "nothing is hidden."
"""The reasoning about a request that says directly what it means."""


def add_tokens(
    tokenizer: PreTrainedTokenizerBase,
    vlm: Qwen2VLForConditionalGeneration,
    text_encoder: UMT5EncoderModel,
    extra: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Give a base model's parts the marks of :mod:`~unireel.systems.omnivideo.speech` and ``extra`` words, in place.

    The text head gets weights of its own (it was tied to the embeddings), so that it can be trained while the rest is
    fixed. Its new rows start low: until trained, the model says nothing new.
    """
    tokenizer.add_tokens([AddedToken(word, single_word=True) for word in extra])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(NEW_TOKENS)}, replace_extra_special_tokens=False
    )
    old, new = vlm.get_input_embeddings().num_embeddings, len(tokenizer)
    generator = torch.Generator().manual_seed(seed)
    table = vlm.get_input_embeddings().weight.detach()
    fresh = torch.randn((new - old, table.shape[1]), generator=generator) * table.std()
    embed = nn.Embedding.from_pretrained(torch.cat([table, fresh.to(table)]), freeze=False)
    head = nn.Linear(table.shape[1], new, bias=False)
    head.weight.data = torch.cat([table, -table.mean(0, keepdim=True).expand(new - old, -1)])
    vlm.set_input_embeddings(embed)
    vlm.lm_head = head.to(table)
    for config in (vlm.config, vlm.config.get_text_config()):
        config.tie_word_embeddings = False
    vlm.config.get_text_config().vocab_size = new
    for number, name in enumerate(("image_token_id", "vision_start_token_id", "vision_end_token_id")):
        setattr(vlm.config, name, new + 1 + number)
    known = text_encoder.shared.weight.detach()
    unknown = known[tokenizer.unk_token_id].expand(new - old, -1)
    text_encoder.set_input_embeddings(
        nn.Embedding.from_pretrained(torch.cat([known, unknown.clone()]), freeze=False)
    )
    text_encoder.config.vocab_size = new


@dataclass(frozen=True)
class Heard:
    """Requests laid out for the language model, padded on the right.

    Attributes:
        ids: (B, n) what follows the film, ``lengths`` (B,) of them are there.
        patches, grid: of the films there are, see :func:`~unireel.backbones.vlm.visual_patches`; None without any.
        seen: (B,) bool, which requests have a film.
    """

    ids: Tensor
    lengths: Tensor
    seen: Tensor
    patches: Tensor | None = None
    grid: Tensor | None = None

    def to(self, device: torch.device | str) -> Heard:
        """The same elsewhere."""
        moved = {name: None if value is None else value.to(device) for name, value in vars(self).items()}
        return Heard(**moved)


class PocketMllm(PocketUnderstanding):
    """The language model with its tokenizer.

    Args:
        model: with an untied text head and the new marks, see :func:`add_tokens`.
        tokenizer: with the same marks.
        first_frame_only: whether only the first frame of a film is looked at.
    """

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        first_frame_only: bool = False,
    ) -> None:
        super().__init__(model, tokenizer)
        self.first_frame_only = first_frame_only

    def turn(self, text: str, kind: Kind) -> Turn:
        """A request to make something with its answer: the two marks of ``kind`` and the end."""
        start = question_turn(self.tokenizer, text, None)
        ids = [*map(self._id, MARKS[kind]), self.tokenizer.eos_token_id]
        return Turn(start.ids + ids, start.weights + [1.0] * len(ids))

    def answer_turn(self, question: str, answer: str) -> Turn:
        """A question with its answer, or without a question a caption."""
        if not question:
            return caption_turn(self.tokenizer, answer)
        return question_turn(self.tokenizer, question, answer)

    def thought_turn(self, text: str, thought: Thought | None) -> Turn:
        """A request to think and, in training, the thought."""
        start = [self._id(THINK), *self._words(text), self._id("<answer>")]
        if thought is None:
            return Turn(start, [0.0] * len(start))
        said = [*self._words(thought.reasoning), self._id(REWRITE), *self._words(thought.prompt)]
        said.append(self.tokenizer.eos_token_id)
        return Turn(start + said, [0.0] * len(start) + [1.0] * len(said))

    def plan_turn(self, instruction: str, description: str, plan: str | None) -> Turn:
        """A request for the plan of an edited film and, in training, the plan; ``description``: the film's caption."""
        told = [self._id("<caption>"), *self._words(description), self._id(REWRITE)]
        start = [*self.thought_turn(instruction, None).ids, *told]
        said = [] if plan is None else [*self._words(plan), self.tokenizer.eos_token_id]
        return Turn(start + said, [0.0] * len(start) + [1.0] * len(said))

    def lay_out(self, turns: Sequence[Turn], films: Sequence[np.ndarray | None]) -> Heard:
        """Turns with their films, which are of equal size, as the language model takes them."""
        ids = [torch.tensor(turn.ids) for turn in turns]
        lengths = torch.tensor([len(each) for each in ids])
        padded = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        seen = torch.tensor([film is not None for film in films])
        if not seen.any():
            return Heard(padded, lengths, seen)
        shown = [film[:1] if self.first_frame_only else film for film in films if film is not None]
        patches, grid = visual_patches(np.stack(shown), self.layout)
        return Heard(padded, lengths, seen, patches, grid)

    def states(self, heard: Heard) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, L, D), which of them are there (B, L) bool, and where each turn begins (B,)."""
        inputs, positions, mask, begins = self.inputs(heard)
        return self.layers(inputs, positions)[-1], mask, begins

    def layers(self, inputs: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """States (B, L, D) of the language model: its input, then after each layer, the last ones normalised."""
        return self.model.model.language_model(
            inputs_embeds=inputs, position_ids=positions, use_cache=False, output_hidden_states=True
        ).hidden_states

    def inputs(self, heard: Heard) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the language model takes: vectors (B, L, D) with their positions (3, B, L), which of them are there
        (B, L) bool, and where each turn begins (B,)."""
        vlm, device = self.model, self.model.device
        embed = vlm.get_input_embeddings()
        start = embed(torch.tensor([self.tokenizer.bos_token_id], device=device))
        films = iter(())
        before, after = torch.zeros(3, 1, dtype=torch.long), 1
        shown, shown_after = before, after
        if heard.patches is not None:
            features, _ = visual_tokens(vlm, heard.patches.to(vlm.dtype), heard.grid)
            films = iter(features.to(start.dtype))
            grid = heard.grid[0].cpu()
            shown = film_positions(grid, self.layout.merge)
            shown_after = text_position(grid, self.layout.merge)
        inputs, places, begins = [], [], []
        for ids, length, seen in zip(heard.ids, heard.lengths.tolist(), heard.seen.tolist(), strict=True):
            turn = embed(ids[:length])
            inputs.append(torch.cat([start, next(films), turn] if seen else [start, turn]))
            prefix, first = (shown, shown_after) if seen else (before, after)
            places.append(torch.cat([prefix, (first + torch.arange(length)).expand(3, -1)], dim=1).T)
            begins.append(prefix.shape[1])
        counts = torch.tensor([len(each) for each in inputs], device=device)
        padded = pad_sequence(inputs, batch_first=True)
        # Padding stands at the end, where causal attention lets nothing see it.
        positions = pad_sequence(places, batch_first=True).permute(2, 0, 1).to(device)
        mask = torch.arange(padded.shape[1], device=device) < counts[:, None]
        return padded, positions, mask, torch.tensor(begins, device=device)

    def request_states(self, requests: Sequence[Request], kinds: Sequence[Kind]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) of requests whose answer is to make something of ``kinds``, and their mask (B, L)."""
        turns = [
            self.turn(as_heard(request.text, kind, request.frames is not None), kind)
            for request, kind in zip(requests, kinds, strict=True)
        ]
        states, mask, _ = self.states(
            self.lay_out(turns, [each.frames for each in requests]).to(self.model.device)
        )
        return states, mask

    def reply(self, request: Request) -> Reply:
        """What the model answers: the text head decides between words and making something."""
        said = self._hear(request, question_turn(self.tokenizer, request.text, None), ANSWER_TOKENS)
        for kind, (begin, _) in MARKS.items():
            if said.ids and said.ids[0] == self._id(begin):
                return Reply("", kind, said.probabilities[0])
        return Reply(self._said(said.ids), None, math.prod(said.probabilities))

    def think(self, request: Request) -> Thought:
        """Reason about a request and rewrite it; of an edit, also foresee what it leads to.

        Raises:
            UserError: the thought has no rewritten prompt.
        """
        ids = self._hear(request, self.thought_turn(request.text, None), THOUGHT_TOKENS).ids
        reasoning, prompt = (self._said(each) for each in _split(ids, self._id(REWRITE)))
        edits = request.frames is not None and prompt
        return Thought(reasoning, prompt, self.foresee([Request(prompt, request.frames)])[0] if edits else "")

    def foresee(self, requests: Sequence[Request]) -> list[str]:
        """The plan of the film that each instruction leads to; empty where the model says none.

        The model first describes the films. Then it says each plan: first the likeliest one that a search finds; one
        that lacks what the instruction asks for or what it leaves of the description, or in which objects get in each
        other's way, is drawn again, up to :data:`FORESEEN` times in all; then the best is taken.
        """
        clips = [Clip(request.frames, FPS) for request in requests if request.frames is not None]
        if not clips:
            return []
        answerer = Answerer(self.model, self.tokenizer, clips[0].height)
        described = answerer.caption(clips, len(clips), judge=False)
        return [
            self._plan(answerer, request, clip, each.text)
            for request, clip, each in zip(requests, clips, described, strict=True)
        ]

    def _plan(self, answerer: Answerer, request: Request, clip: Clip, description: str) -> str:
        turn = self.plan_turn(request.text, description, None)
        facts = facts_after(description, request.text)

        def twice(said: list[int]) -> list[int]:
            found = named_twice(self.tokenizer.convert_ids_to_tokens(said), words(description))
            return self.tokenizer.convert_tokens_to_ids(sorted(found))

        best, worth = "", (-0.5, False)
        for seed in range(FORESEEN):
            if seed:
                plan = self._said(self._hear(request, turn, PLAN_WORDS + 1, WARMTH, seed).ids)
            else:
                plan = answerer.continued([clip], [turn], PLAN_WORDS + 1, twice)[0].text
            found = plan_worth(plan, facts)
            if found > worth:
                best, worth = plan, found
            if worth == (1.0, True):
                break
        return best

    def embeddings(self, frames: np.ndarray) -> Tensor:
        """What the model's own ViT sees in films (B, F, H, W, 3): (B, tubes, D), the mean of each tube's tokens.

        Each is normalised to mean 0 and variance 1, so that errors mean the same whatever the ViT's scale.
        """
        patches, grid = visual_patches(frames, self.layout)
        tokens, _ = visual_tokens(self.model, patches.to(self.model.device, self.model.dtype), grid)
        pooled = tokens.unflatten(1, (int(grid[0, 0]), -1)).mean(2)
        return F.layer_norm(pooled, pooled.shape[-1:])

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that are not in the vocabulary."""
        known = self.tokenizer.get_vocab()
        return [word for word in words(text) if word not in known]

    def _hear(
        self, request: Request, turn: Turn, most: int, temperature: float = 0.0, seed: int = 0
    ) -> Spoken:
        film = request.frames[:1] if self.first_frame_only and request.frames is not None else request.frames
        return self._speak(film, turn.ids, most, temperature, seed)

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def _words(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _said(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def _split(ids: Sequence[int], mark: int) -> tuple[Sequence[int], Sequence[int]]:
    """What stands before and after the first ``mark``."""
    if mark not in ids:
        return ids, ()
    place = list(ids).index(mark)
    return ids[:place], ids[place + 1 :]
