"""Drop-ins for diffusers' Wan transformer and its block, with the same weights and names, that compute less.

They replace the classes of an existing model in place (:func:`~unireel.backbones.fast.accelerate`), so that its
configuration, adapters, offloading, caches and saving stay diffusers' own. Where they do not apply - in training, with
context parallelism, with pictures among the text - diffusers' own forward runs.
"""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers import transformer_wan as stock
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from unireel.backbones.fast import lean
from unireel.backbones.fast.attention import TAKES_BIAS, FastAttention
from unireel.backbones.fast.call import Call, has_hooks, is_plain
from unireel.backbones.fast.text import Context, collapse_padding
from unireel.backbones.fast.times import gated, group_times, modulated_norm


class WanTransformerBlock(stock.WanTransformerBlock):
    """diffusers' block; states may be wider (float32) than the weights."""

    call: Call

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Tensor
    ) -> Tensor:
        """One block: (B, N, D).

        Args:
            temb: of each run of times, (b, R, 6, D).
            rotary_emb: cosine and sine of each place, float32 (1, N, 1, head width / 2, 2).
        """
        call = self.call
        if call.plain:
            return super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)
        modulation = self.scale_shift_table + temb.float()
        if lean.fits(self, modulation):
            return lean.forward(self, call, hidden_states, modulation[0].transpose(0, 1), rotary_emb)
        shift, scale, gate, late_shift, late_scale, late_gate = modulation.unbind(2)
        states, runs, dtype = hidden_states, call.runs, call.dtype
        bias = None if call.context is None else call.context.bias
        normal = modulated_norm(states, shift, scale, runs, self.norm1.eps).to(dtype)
        states = gated(states, self.attn1(normal, None, None, rotary_emb), gate, runs)
        normal = self.norm2(states).to(dtype)
        states = states + self.attn2(normal, encoder_hidden_states, bias, None)
        normal = modulated_norm(states, late_shift, late_scale, runs, self.norm3.eps).to(dtype)
        return gated(states, self.ffn(normal), late_gate, runs)


class WanTransformer3DModel(stock.WanTransformer3DModel):
    """diffusers' transformer with prepared texts, grouped times and kept rotary positions."""

    call: Call

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """As diffusers'; latents (B, C, T, h, w) and text may be wider than the weights, and so is the result then."""
        call = self.call
        grid = tuple(
            size // patch for size, patch in zip(hidden_states.shape[2:], self.config.patch_size, strict=True)
        )
        grouped = None
        if self._applies(encoder_hidden_states_image):
            grouped = group_times(timestep, grid[0] * grid[1] * grid[2])
        call.plain = grouped is None
        if grouped is None:
            self.forget()
            return super().forward(
                hidden_states, timestep, encoder_hidden_states, encoder_hidden_states_image, return_dict
            )
        times, call.runs = grouped
        call.dtype = dtype = self.patch_embedding.weight.dtype
        turns = self._turns(hidden_states, grid)
        states = self.patch_embedding(hidden_states.to(dtype)).flatten(2).transpose(1, 2).contiguous()
        if states.device.type == "cpu":
            # Additions in float32 are cheaper than conversions to and from bfloat16, and keep more.
            states = states.float()
        context = call.context = self._context(encoder_hidden_states)
        temb, modulation = self._time(times)
        for block in self.blocks:
            states = block(states, context.states, modulation, turns)
        shift, scale = (self.scale_shift_table + temb.float()[:, :, None]).unbind(2)
        states = modulated_norm(states, shift, scale, call.runs, self.norm_out.eps).to(dtype)
        states = self.proj_out(states).unflatten(2, (*self.config.patch_size, -1)).unflatten(1, grid)
        output = states.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        output = output.to(hidden_states.dtype)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _applies(self, image: Tensor | None) -> bool:
        """Whether what is saved here may be saved: see the module's first lines."""
        if torch.is_grad_enabled() or image is not None or self._parallel_config is not None:
            return False
        return not (has_hooks(self.rope) or has_hooks(self.condition_embedder)) and all(
            isinstance(attn.processor, FastAttention) and attn.processor._parallel_config is None
            for block in self.blocks
            for attn in (block.attn1, block.attn2)
        )

    def _context(self, text: Tensor) -> Context:
        """Embedded text; kept while no adapter, whose scale may change, acts on it."""
        if any(not is_plain(each, nn.Linear) for each in self._embedding_layers()):
            return self._embed(text)
        return self.call.contexts.get(text, self._embed)

    def _embedding_layers(self) -> tuple[nn.Module, nn.Module]:
        embedder = self.condition_embedder.text_embedder
        return embedder.linear_1, embedder.linear_2

    def _embed(self, text: Tensor) -> Context:
        """Embedded text, without repeated padding where every back end can add a bias to the logits."""
        bias = None
        if all(block.attn2.processor._attention_backend in TAKES_BIAS for block in self.blocks):
            text, bias = collapse_padding(text)
        return Context(self.condition_embedder.text_embedder(text.to(self.call.dtype)), bias)

    def _time(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded times (b, R, D) and what the blocks are modulated by (b, R, 6, D)."""
        embedder = self.condition_embedder
        waves = embedder.timesteps_proj(times.flatten()).unflatten(0, times.shape)
        weight = next(embedder.time_embedder.parameters())
        temb = embedder.time_embedder(waves.to(weight.dtype)).to(self.call.dtype)
        return temb, embedder.time_proj(embedder.act_fn(temb)).unflatten(2, (6, -1))

    def _turns(self, latents: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Cosine and sine of the rotary angles, float32 (1, N, 1, head width / 2, 2), kept for each size."""
        key = (*grid, latents.device)
        if key not in self.call.turns:
            cosine, sine = self.rope(latents)
            self.call.turns[key] = torch.stack((cosine[..., 0::2], sine[..., 1::2]), -1).float()
        return self.call.turns[key]

    def _apply(self, *args: Any, **kwargs: Any) -> WanTransformer3DModel:
        """Moved or converted: see :meth:`forget`."""
        self.forget()
        return super()._apply(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """New weights: see :meth:`forget`."""
        self.forget()
        return super().load_state_dict(*args, **kwargs)

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """New weights: see :meth:`forget`."""
        self.forget()
        super().fuse_lora(*args, **kwargs)

    def unfuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """New weights: see :meth:`forget`."""
        self.forget()
        super().unfuse_lora(*args, **kwargs)

    def forget(self) -> None:
        """Drop what was computed from weights that are changing."""
        self.call.contexts.clear()
        self.call.context = None
