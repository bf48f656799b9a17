"""Films of pocket/base: diffusers' own Wan pipeline with the model's components, and ours."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor

from unireel.backbones.fast import Precision, accelerate
from unireel.backbones.fast.precision import halve
from unireel.backbones.vae import decode
from unireel.backbones.wan import token_times, velocity_from, with_coordinates
from unireel.bench.measure import Contestant, Stopwatch
from unireel.flow.sampling import time_grid
from unireel.systems.base import pipeline as system
from unireel.world.scene import CLIP_FRAMES

PROMPTS = (
    "a red star jumps twice, a blue ring stays still",
    "a green square moves right",
    "three pink rings on a navy background",
    "a yellow heart turns, a red square moves left",
    "a blue star stays still",
)
"""Each round has another, so that a cache of prompts gains no more than the empty prompt's encoding."""


class AdamsBashforth:
    """The steps of :func:`unireel.flow.sampling.sample` as a scheduler of diffusers."""

    order = 1

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """Start anew with so many steps."""
        self.sigmas = time_grid(steps, self.shift)
        self.timesteps = 1000 * self.sigmas[:-1]
        self._number, self._before = 0, None

    def set_begin_index(self, index: int) -> None:
        """Always from the first."""

    def step(self, velocity: Tensor, time: Tensor, state: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        """The state after this step."""
        now, then = self.sigmas[self._number], self.sigmas[self._number + 1]
        slope = velocity
        if self._before is not None and self._number < len(self.timesteps) - 1:
            slope = velocity + (velocity - self._before[1]) * (then - now) / (2 * (now - self._before[0]))
        self._before, self._number = (now, velocity), self._number + 1
        return (state + (then - now) * slope,)


class PocketTransformer(WanTransformer3DModel):
    """diffusers' transformer as its pipeline wants it: latents in, velocity out.

    Coordinates are added, data becomes velocity, and a first latent frame, if there is one, is put in clean.
    """

    first: Tensor | None = None

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, **options: Any
    ) -> tuple[Tensor]:
        """The velocity, in a tuple."""
        state, time = hidden_states, timestep
        if self.first is not None:
            state = torch.cat([self.first.to(state), state[:, :, 1:]], dim=2)
            clean = torch.ones(len(state), dtype=torch.bool)
            tokens = state.shape[3] * state.shape[4] // 4
            time = token_times(timestep / 1000, clean, state.shape[2], tokens)
        data = super().forward(
            with_coordinates(state, self.config["in_channels"]),
            time,
            encoder_hidden_states,
            return_dict=False,
        )[0]
        return (velocity_from(state, data, time),)


class Diffusers:
    """The two stages of a film, a picture and the film from it, each by ``WanPipeline``."""

    def __init__(self, pipeline: Any, bfloat16: bool) -> None:
        settings, transformer = pipeline.config, copy.deepcopy(pipeline.transformer)
        text_encoder, self.vae = copy.deepcopy(pipeline.text_encoder), copy.deepcopy(pipeline.vae)
        transformer.__class__ = PocketTransformer
        if bfloat16:
            # As its recipes have it: the autoencoder stays float32.
            halve(transformer)
            text_encoder.to(torch.bfloat16)
        self.vae.register_to_config(scale_factor_temporal=4, scale_factor_spatial=4, z_dim=16)
        self.pipeline = WanPipeline(
            pipeline.tokenizer, text_encoder, self.vae, AdamsBashforth(settings["shift"]), transformer
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.settings = settings

    def film(self, prompt: str, noise: Tensor, watch: Stopwatch) -> Tensor:
        """Pixels (1, 3, F, H, W) in [0, 1]."""
        with watch.stage("text"):
            # The end mark, which Wan's tokenizer adds by itself, is a word to the pocket models'.
            text, empty = self.pipeline.encode_prompt(
                f"{prompt} </s>", "</s>", max_sequence_length=system.TEXT_LENGTH
            )
        with watch.stage("denoise"):
            transformer = self.pipeline.transformer
            transformer.first = None
            transformer.first = self._integrate(text, empty, noise[:, :, :1])
            state = self._integrate(text, empty, noise)
            state = torch.cat([transformer.first, state[:, :, 1:]], dim=2)
        with watch.stage("decode"):
            return decode(self.vae, state.float()).add(1).div(2)

    def _integrate(self, text: Tensor, empty: Tensor, noise: Tensor) -> Tensor:
        return self.pipeline(
            prompt_embeds=text,
            negative_prompt_embeds=empty,
            latents=noise,
            height=48,
            width=48,
            num_frames=4 * noise.shape[2] - 3,
            num_inference_steps=self.settings["steps"],
            guidance_scale=self.settings["guidance"],
            output_type="latent",
            return_dict=False,
        )[0]


def contestants(pipeline: Any, precision: Precision = "auto", compile: bool = False) -> list[Contestant]:
    """diffusers in both formats, and ours accelerated in place.

    Args:
        pipeline: pocket/base in float32; its guidance acts at all times, and it makes films in two stages.
    """
    noises = [
        torch.randn(1, 16, 5, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(5)
    ]
    weights = (pipeline.text_encoder, pipeline.transformer, pipeline.vae)
    theirs = {name: Diffusers(pipeline, name == "bfloat16") for name in ("float32", "bfloat16")}
    pipeline.register_to_config(restart=0.0)  # diffusers' pipeline draws a film once
    accelerate(pipeline, precision, compile)
    found = []
    for name, one in theirs.items():
        own = (one.pipeline.text_encoder, one.pipeline.transformer, one.vae)

        def run(number: int, watch: Stopwatch, one: Diffusers = one) -> Tensor:
            return one.film(PROMPTS[number % 5], noises[number % 5], watch)

        found.append(Contestant(f"diffusers {name}", run, size_of(*own), name))

    def ours(number: int, watch: Stopwatch) -> Tensor:
        timed = (
            (pipeline, "encode_prompt", "text"),
            (system, "sample", "denoise"),
            (pipeline.vae, "decode", "decode"),
        )
        stops = [watch.around(*each) for each in timed]
        try:
            made = pipeline(
                PROMPTS[number % 5],
                latents=noises[number % 5],
                num_frames=CLIP_FRAMES,
                output_type="pt",
                extend_prompt=False,
            )
        finally:
            for stop in stops:
                stop()
        return made.frames.transpose(1, 2)

    rate = str(pipeline.transformer.proj_out.weight.dtype).removeprefix("torch.")
    return [*found, Contestant("unireel", ours, size_of(*weights), rate)]


def size_of(*modules: torch.nn.Module) -> int:
    """Bytes of the weights."""
    return sum(each.numel() * each.element_size() for module in modules for each in module.parameters())
