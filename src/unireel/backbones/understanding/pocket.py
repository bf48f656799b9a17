"""The pocket Qwen2-VL behind the interface. Its language is the World's; its images are films of one tube."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalSubscript=false, reportUnhashable=false

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from unireel.backbones.understanding.interface import (
    VIEWS,
    Features,
    Kind,
    Picture,
    Request,
    Spoken,
    View,
    decode,
    drawn,
)
from unireel.backbones.vlm import (
    caption_turn,
    film_positions,
    layout_of,
    question_turn,
    text_position,
    visual_patches,
)
from unireel.errors import UserError


class PocketUnderstanding:
    """The pocket video-language model with its tokenizer.

    A prompt reads as the caption of a film that is not there yet: ``<s> [image] <caption> prompt </s>``. What a request
    is told before comes as the film's caption: ``<s> film <caption> system </s> <ask> question <answer>``.
    """

    def __init__(self, model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.layout = layout_of(model)

    @property
    def width(self) -> int:
        """D, the width of its states."""
        return self.model.config.get_text_config().hidden_size

    def hidden_states(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Picture]] | None = None,
        views: Collection[View] = VIEWS,
    ) -> Features:
        """See :class:`~unireel.backbones.understanding.interface.Understanding`; at most one image a prompt."""
        films = []
        for number in range(len(prompts)):
            own = [] if images is None or "vit" not in views else list(images[number])
            if len(own) > 1:
                raise UserError(f"the pocket model takes one image with a prompt, not {len(own)}")
            films.append(np.stack([np.asarray(image) for image in own]) if own else None)
        return Features.of(self._prefill(films, [caption_turn(self.tokenizer, each).ids for each in prompts]))

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Continue each prompt as a caption without a film."""
        turns = [caption_turn(self.tokenizer, prompt).ids[:-1] for prompt in prompts]
        return [self._speak(None, turn, max_new_tokens, temperature, seed) for turn in turns]

    def chat(
        self, requests: Sequence[Request], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Answer each request on its film."""
        said = []
        for request in requests:
            told = caption_turn(self.tokenizer, request.system).ids if request.system else []
            turn = question_turn(self.tokenizer, request.question, None).ids
            said.append(self._speak(request.frames, [*told, *turn], max_new_tokens, temperature, seed))
        return said

    @torch.no_grad()
    def _speak(
        self, film: np.ndarray | None, turn: list[int], most: int, temperature: float, seed: int
    ) -> Spoken:
        inputs, positions, _ = self._inputs(film, turn, most)
        cache = DynamicCache(config=self.model.config.get_text_config())
        following = int(positions.max()) + 1

        def step(token: Tensor | None) -> Tensor:
            nonlocal following
            if token is None:
                states = self._run(inputs, positions, cache)
            else:
                place = torch.full((3, 1, 1), following, device=token.device)
                following += 1
                states = self._run(self.model.get_input_embeddings()(token[:, None]), place, cache)
            return self.model.lm_head(states[:, -1])

        eos = {self.tokenizer.eos_token_id}
        ids, probabilities = decode(step, eos, most, temperature, drawn(temperature, seed))[0]
        return Spoken(self.tokenizer.decode(ids, skip_special_tokens=True), ids, probabilities)

    def _prefill(
        self, films: Sequence[np.ndarray | None], turns: Sequence[list[int]]
    ) -> list[tuple[Tensor, Tensor]]:
        """States and kinds of each film and what is said after it."""
        laid = [self._inputs(film, turn) for film, turn in zip(films, turns, strict=True)]
        # Padding stands at the end, where causal attention lets nothing see it.
        inputs = pad_sequence([each[0] for each, _, _ in laid], batch_first=True)
        positions = pad_sequence([each[:, 0].T for _, each, _ in laid], batch_first=True).permute(2, 0, 1)
        rows = []
        for states, (own, _, seen) in zip(self._run(inputs, positions, None), laid, strict=True):
            kinds = torch.full((own.shape[1],), int(Kind.TEXT), device=states.device)
            kinds[1 : 1 + seen] = int(Kind.VIT)
            rows.append((states[: own.shape[1]], kinds))
        return rows

    def _inputs(self, film: np.ndarray | None, turn: list[int], more: int = 0) -> tuple[Tensor, Tensor, int]:
        """Embedded ``<s> film turn`` (1, L, D), rotary positions (3, 1, L), and how many visual tokens there are."""
        model, device = self.model, self.model.device
        embed = model.get_input_embeddings()
        parts = [embed(torch.tensor([[self.tokenizer.bos_token_id]], device=device))]
        positions, after, seen = torch.zeros(3, 1, dtype=torch.long), 1, 0
        if film is not None:
            side = self.layout.side
            if film.ndim != 4 or not len(film) or film.shape[1] % side or film.shape[2] % side:
                raise UserError(
                    f"a film of shape {film.shape} does not fit: its sides must be multiples of {side}"
                )
            patches, grid = visual_patches(film[None], self.layout)
            features = model.model.get_video_features(patches.to(device, model.dtype), grid.to(device))
            parts.append(features.pooler_output[0][None].to(parts[0].dtype))
            positions, after = (
                film_positions(grid[0], self.layout.merge),
                text_position(grid[0], self.layout.merge),
            )
            seen = parts[1].shape[1]
        parts.append(embed(torch.tensor([turn], device=device)))
        text = after + torch.arange(len(turn))
        inputs = torch.cat(parts, dim=1)
        most = model.config.get_text_config().max_position_embeddings
        if inputs.shape[1] + more > most:
            raise UserError(
                f"the request needs {inputs.shape[1] + more} tokens; the model's context has {most}"
            )
        return inputs, torch.cat([positions, text.expand(3, -1)], dim=1)[:, None].to(device), seen

    def _run(self, inputs: Tensor, positions: Tensor, cache: DynamicCache | None) -> Tensor:
        return self.model.model.language_model(
            inputs_embeds=inputs, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
