"""Wan's video DiT with a second stream for text (Uni-ViGU, arXiv 2604.08121).

Both streams go through the same self- and cross-attention; feed-forward layers, modulations, time embedding and output
head are each stream's own. It is a diffusers ``WanTransformer3DModel``: its video weights have diffusers' names, and
called as such, without text, it computes exactly what diffusers' class does.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

from unireel.backbones.uni_block import TextFFN, UniBlock
from unireel.backbones.uni_rows import Film, Memory, Rows, Seen, Turn, Words, who_reads_whom
from unireel.backbones.wan import with_coordinates

TEXT_STD = 0.5
"""Standard deviation of new embeddings of words and slots."""


class UniWanTransformer(WanTransformer3DModel):
    """A video DiT that also reads and writes text.

    Args:
        text_vocabulary: V, words that can be written.
        text_mask: whether there is one more state, number V: not known yet (masked and hybrid formulations).
        code_width: d of continuous formulations, whose words are vectors of this width; 0 for discrete ones.
        text_output: logits over the vocabulary, or (continuous formulations only) a velocity of width d.
        text_ffn: whether text has feed-forward layers of its own or shares the film's (an ablation).
        text_ffn_dim: hidden units of text's own feed-forward layers; 0: as many as the film's.
        text_slots: places with learned embeddings. Rotary positions are relative, so that words which are all unknown
            could not tell where they are; 0 adds none, as the released model.
        positions: "apart": word i stands at -(1 + i) on all three rotary axes, where no film reaches whatever its
            size. "released": at i on one axis of a convention of its own, as the released weights want it.
        one_way: see :mod:`~unireel.backbones.uni_rows`.
        patch_size ... rope_max_seq_len: of ``WanTransformer3DModel``, by default those of Wan2.1-T2V-1.3B.
    """

    _no_split_modules = ("UniBlock",)
    _repeated_blocks = ("UniBlock",)
    _keep_in_fp32_modules = (
        *WanTransformer3DModel._keep_in_fp32_modules,
        *("text_time_embedder", "scale_shift_table_t", "text_table", "text_norm", "norm3_t"),
    )

    @register_to_config
    def __init__(
        self,
        text_vocabulary: int,
        text_mask: bool = False,
        code_width: int = 0,
        text_output: Literal["logits", "velocity"] = "logits",
        text_ffn: TextFFN = "own",
        text_ffn_dim: int = 0,
        text_slots: int = 0,
        positions: Literal["apart", "released"] = "apart",
        one_way: bool = True,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 12,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 8960,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        eps: float = 1e-6,
        rope_max_seq_len: int = 1024,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=0,
            cross_attn_norm=cross_attn_norm,
            eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        self.register_to_config(num_layers=num_layers)
        width = num_attention_heads * attention_head_dim
        self.blocks = nn.ModuleList(
            UniBlock(width, ffn_dim, num_attention_heads, text_ffn, cross_attn_norm, eps, text_ffn_dim)
            for _ in range(num_layers)
        )
        if code_width:
            self.text_codes = nn.Parameter(torch.randn(text_vocabulary, code_width))
            self.text_in = nn.Linear(code_width, width)
            self.text_before = nn.Linear(code_width, width, bias=False)
            nn.init.zeros_(self.text_before.weight)
        else:
            self.text_embedding = nn.Embedding(text_vocabulary + text_mask, width)
            nn.init.normal_(self.text_embedding.weight, std=TEXT_STD)
        if text_slots:
            self.slot_embedding = nn.Embedding(text_slots, width)
            nn.init.normal_(self.slot_embedding.weight, std=TEXT_STD)
        self.text_time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=width)
        self.text_time_proj = nn.Linear(width, 6 * width)
        self.text_norm = FP32LayerNorm(width, 1e-5, bias=False)
        self.text_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.text_head = nn.Linear(width, code_width if text_output == "velocity" else text_vocabulary)
        nn.init.zeros_(self.text_head.weight)
        nn.init.zeros_(self.text_head.bias)

    @property
    def most_words(self) -> int:
        """The longest text that there are places for."""
        own = self.config
        return own["text_slots"] or own["rope_max_seq_len"] - 1

    def streams(
        self,
        context: Tensor,
        film: Film | None = None,
        words: Words | None = None,
        memory: Memory | None = None,
        remember: bool = False,
        watch: Sequence[int] = (),
    ) -> Seen:
        """One evaluation of film rows, text rows, or both.

        Args:
            context: states of the prompt (B, L, D), padding zero, which both streams read by cross-attention.
            memory: of what was given in earlier calls; every row reads it.
            remember: give back the memory with this call's rows added, all of which must be given. The film is
                remembered before the words, so that they read it.
            watch: blocks, by number, whose incoming rows are given back, the text's or without text the film's (a
                training tells them where to look, or what is there).

        Raises:
            ValueError: there are no rows, more words than places, or rows to remember that are not given.
        """
        if film is None and words is None:
            raise ValueError("neither a film nor words")
        if words is not None and words.time.shape[1] > self.most_words:
            raise ValueError(f"{words.time.shape[1]} words; there are places for {self.most_words}")
        batch, device = len(context), context.device
        clean = torch.zeros(batch, dtype=torch.bool, device=device)
        if film is not None and film.clean is not None:
            clean = film.clean
        if remember and not (
            (film is None or bool(clean.all()))
            and (words is None or bool((words.given | ~words.there).all()))
        ):
            raise ValueError("only what is given can be remembered")
        video, video_time = (None, None) if film is None else self._film_rows(film, context.dtype)
        text, text_time = (None, None) if words is None else self._text_rows(words)
        tokens = 0 if video is None else video.states.shape[1]
        mask, there = who_reads_whom(clean, tokens, words, memory, self.config["one_way"])
        states = self.condition_embedder.text_embedder(context)
        blocks, watched = [], []
        for number, block in enumerate(self.blocks):
            if number in watch:
                watched.append(replace(video if text is None else text))
            past = None if memory is None else memory.blocks[number]
            kept = block.streams(video, text, states, mask, past)
            if remember:
                blocks.append(kept if past is None else tuple(map(_joined, past, kept)))
        return Seen(
            None if video is None else self._video_out(video.states, video_time, film.latents),
            None if text is None else self._text_out(text.states, text_time),
            Memory(there, blocks) if remember else None,
            tuple(watched),
        )

    def _film_rows(self, film: Film, dtype: torch.dtype) -> tuple[Rows, Tensor]:
        """The film's rows, and its time embedding (B, 1 or N, D)."""
        config = self.config
        latents = with_coordinates(film.latents, config["in_channels"])
        states = self.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        time = film.time[:, None] if film.time.ndim == 1 else film.time
        embedded, modulation = self._time(
            time, self.condition_embedder.time_embedder, self.condition_embedder.time_proj, dtype
        )
        cosine, sine = self.rope(latents)
        cosine, sine = cosine[..., 0::2], sine[..., 1::2]
        return Rows(states, modulation, Turn(cosine, sine)), embedded

    def _text_rows(self, words: Words) -> tuple[Rows, Tensor]:
        """The text's rows, and its time embedding (B, L, D)."""
        if self.config["code_width"]:
            states = self.text_in(words.state)
            if words.before is not None:
                states = states + self.text_before(words.before)
        else:
            states = self.text_embedding(words.state)
        places = words.counted()
        if self.config["text_slots"]:
            states = states + self.slot_embedding(places)
        embedded, modulation = self._time(
            words.time, self.text_time_embedder, self.text_time_proj, states.dtype
        )
        return Rows(states, modulation, self._text_turn(places)), embedded

    def _time(
        self, time: Tensor, embedder: nn.Module, projection: nn.Module, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Embedding (B, n, D) and modulation (B, n, 6, D) of times (B, n)."""
        frequencies = self.condition_embedder.timesteps_proj(time.flatten())
        embedded = embedder(frequencies.to(next(embedder.parameters()).dtype)).to(dtype)
        embedded = embedded.unflatten(0, time.shape)
        return embedded, projection(F.silu(embedded)).unflatten(2, (6, -1))

    def _text_turn(self, places: Tensor) -> Turn:
        released = self.config["positions"] == "released"
        if released:
            half = self.config["attention_head_dim"] // 2
            angles = places[..., None] * 10_000.0 ** -(torch.arange(half, device=places.device) / half)
            cosine, sine = angles.cos(), angles.sin()
        else:
            # The angle of -(1 + i) is that of 1 + i with the other sign.
            cosine = self.rope.freqs_cos[places + 1][..., 0::2]
            sine = -self.rope.freqs_sin[places + 1][..., 1::2]
        cosine, sine = cosine[:, :, None], sine[:, :, None]
        return Turn(cosine, sine, released)

    def _video_out(self, states: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table[:, None] + time[:, :, None]).unbind(2)
        states = self.proj_out((self.norm_out(states.float()) * (1 + scale) + shift).type_as(states))
        patch = self.config["patch_size"]
        sizes = [size // each for size, each in zip(latents.shape[2:], patch, strict=True)]
        patches = states.unflatten(1, sizes).unflatten(4, (*patch, -1))  # (B, T, h, w, patch, C)
        return patches.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _text_out(self, states: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.text_table[:, None] + time[:, :, None]).unbind(2)
        return self.text_head((self.text_norm(states.float()) * (1 + scale) + shift).type_as(states))


def _joined(one: Tensor, two: Tensor) -> Tensor:
    return torch.cat([one, two], 1)
