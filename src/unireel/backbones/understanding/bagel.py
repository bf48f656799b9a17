"""BAGEL behind the interface."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from unireel.backbones.bagel import BagelModel
from unireel.backbones.bagel_files import encode_image
from unireel.backbones.images import MAX_PIXELS, VAE_RULE, VIT_RULE, ImageRule, to_pixels
from unireel.backbones.packing import (
    PADDING,
    TEXT,
    Segment,
    TextSegment,
    VaeSegment,
    VitSegment,
    pack,
)
from unireel.backbones.understanding.interface import (
    VIEWS,
    Features,
    Picture,
    Request,
    Spoken,
    View,
    decode,
    drawn,
)
from unireel.errors import UserError

START, END = "<|im_start|>", "<|im_end|>"


class BagelUnderstanding:
    """BAGEL with its tokenizer and, to read images as the generation branch does, its autoencoder.

    Each text is a segment ``<|im_start|>`` text ``<|im_end|>``; there is no chat template. A question's frames are read
    by the ViT only, as the paper (arXiv 2505.14683) has it for understanding.

    Args:
        model, tokenizer, vae: see :mod:`unireel.backbones.bagel_files`.
        vit_rule, vae_rule: sizes of images.
        max_pixels: of all images of one request together.
    """

    def __init__(
        self,
        model: BagelModel,
        tokenizer: PreTrainedTokenizerBase,
        vae: AutoencoderKL | None = None,
        vit_rule: ImageRule = VIT_RULE,
        vae_rule: ImageRule = VAE_RULE,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.model, self.tokenizer, self.vae = model, tokenizer, vae
        self.vit_rule, self.vae_rule, self.max_pixels = vit_rule, vae_rule, max_pixels
        self.start, self.end = (self._id(mark) for mark in (START, END))

    @property
    def width(self) -> int:
        """D, the width of its states."""
        return self.model.config.text_config.hidden_size

    def hidden_states(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Picture]] | None = None,
        views: Collection[View] = VIEWS,
    ) -> Features:
        """See :class:`~unireel.backbones.understanding.interface.Understanding`.

        Each image is two blocks, first through the autoencoder, then by ViT. The marks around images are left out of
        the result; the prompt's own marks are not.
        """
        rows: list[list[Segment]] = []
        for number, prompt in enumerate(prompts):
            own = [] if images is None else list(images[number])
            segments = [block for image in own for block in self._blocks(image, views, len(own))]
            rows.append([*segments, self._text(prompt)])
        packed = pack([[row] for row in self._checked(rows)], self.model.config.geometry)
        packed = packed.to(self.model.device, self.model.dtype)
        states = self.model(packed)
        pairs = []
        for row in range(len(rows)):
            marks = packed.full[row] & (packed.kinds[row] == TEXT)
            kept = (packed.kinds[row] != PADDING) & ~marks
            pairs.append((states[row][kept], packed.kinds[row][kept]))
        return Features.of(pairs)

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Continue each prompt, see :class:`~unireel.backbones.understanding.interface.Understanding`."""
        ids = [list(self._text(prompt).ids)[:-1] for prompt in prompts]
        rows: list[list[Segment]] = [[TextSegment(each[:-1])] for each in ids]
        return self._speak(rows, [each[-1] for each in ids], max_new_tokens, temperature, seed)

    def chat(
        self, requests: Sequence[Request], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Answer each request: what it is told before, its frames, its question, and the start mark."""
        rows = [self._asked(request) for request in requests]
        return self._speak(rows, [self.start] * len(rows), max_new_tokens, temperature, seed)

    def answer_states(self, requests: Sequence[Request], answers: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What answers are learned from: the states (n, D) before each of their tokens, and those tokens (n,).

        Only the answers' words and end marks are among the tokens, nothing that was asked. Gradients flow.
        """
        rows: list[list[Segment]] = []
        for request, answer in zip(requests, answers, strict=True):
            rows.append([*self._asked(request), self._text(answer)])
        packed = pack([[row] for row in self._checked(rows)], self.model.config.geometry)
        packed = packed.to(self.model.device, self.model.dtype)
        states = self.model(packed)
        chosen, targets = [], []
        for row, segments in enumerate(rows):
            end, said = int((packed.kinds[row] != PADDING).sum()), segments[-1]
            assert isinstance(said, TextSegment)
            chosen.append(states[row, end - len(said.ids) : end - 1])
            targets += list(said.ids)[1:]
        return torch.cat(chosen), torch.tensor(targets, device=states.device)

    def _asked(self, request: Request) -> list[Segment]:
        """What a request shows and says: what the model is told before, the frames, the question."""
        frames = [] if request.frames is None else list(request.frames)
        system = [self._text(request.system)] if request.system else []
        blocks = [block for frame in frames for block in self._blocks(frame, ("vit",), len(frames))]
        return [*system, *blocks, self._text(request.question)]

    @torch.no_grad()
    def _speak(
        self, rows: list[list[Segment]], first: list[int], most: int, temperature: float, seed: int
    ) -> list[Spoken]:
        """Prefill the rows, then feed ``first`` and what follows it token by token."""
        model = self.model
        packed = pack([[row] for row in self._checked(rows, most)], model.config.geometry)
        packed = packed.to(model.device, model.dtype)
        seen = packed.kinds != PADDING
        cache = DynamicCache()
        position = seen.new_zeros(len(rows), dtype=torch.long)
        if packed.ids.shape[1]:
            model(packed, cache)
            position = packed.positions.where(seen, -1).amax(1) + 1

        def step(token: Tensor | None) -> Tensor:
            nonlocal seen, position
            ids = torch.tensor(first, device=model.device) if token is None else token
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            states = model.extend(ids[:, None], position[:, None], seen, cache)
            position = position + 1
            return model.logits(states[:, -1])

        said = decode(step, {self.end}, most, temperature, drawn(temperature, seed))
        return [Spoken(self.tokenizer.decode(ids, skip_special_tokens=True), ids, p) for ids, p in said]

    def _text(self, text: str) -> TextSegment:
        return TextSegment(
            [self.start, *self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]
        )

    def _blocks(self, image: Picture, views: Collection[View], count: int) -> list[Segment]:
        """One image as the model sees it: first brought to the autoencoder's size, from there to the ViT's."""
        blocks: list[Segment] = []
        share = self.max_pixels // count
        picture = self.vae_rule.resize(image, share)
        if "vae" in views:
            if self.vae is None:
                raise UserError(
                    "this model was loaded without its autoencoder; images can be read by 'vit' only"
                )
            blocks.append(VaeSegment(encode_image(self.vae, to_pixels(picture)).float().cpu()))
        if "vit" in views:
            blocks.append(VitSegment(to_pixels(self.vit_rule.resize(picture, share))))
        return blocks

    def _checked(self, rows: list[list[Segment]], more: int = 0) -> list[list[Segment]]:
        """``rows``, all of which fit into the context together with ``more`` tokens to come."""
        most = self.model.config.text_config.max_position_embeddings
        for row in rows:
            count = sum(self._size(segment) for segment in row) + more
            if count > most:
                raise UserError(f"the request needs {count} tokens; the model's context has {most}")
        return rows

    def _size(self, segment: Segment) -> int:
        if isinstance(segment, TextSegment):
            return len(segment.ids)
        own = self.model.config.geometry
        if isinstance(segment, VitSegment):
            return segment.pixels[0].numel() // own.vit_patch**2 + 2
        return segment.latent[0].numel() // own.vae_patch**2 + 2

    def _id(self, mark: str) -> int:
        number = self.tokenizer.get_vocab().get(mark)
        if number is None:
            raise UserError(f"the tokenizer lacks the mark {mark}: it is not BAGEL's")
        return number
