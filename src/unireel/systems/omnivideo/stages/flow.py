"""Stage 2, second part, and stage 3: flow matching through the decoder, on two or on all four tasks at once."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.backbones.text import tokenize
from unireel.backbones.vae import decode
from unireel.backbones.wan import MatmulAttention, embed_times_by_frame
from unireel.data.world import psnr, to_frames
from unireel.errors import UsageError
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.systems.base.stages.binding import Uncertainty
from unireel.systems.omnivideo.context import Row, check_budget
from unireel.systems.omnivideo.pipeline import trained_parts
from unireel.systems.omnivideo.sampling import Sampling
from unireel.systems.omnivideo.speech import Kind, Request
from unireel.systems.omnivideo.stages.common import OmniVideoConfig, OmniVideoStage, heard_of
from unireel.systems.omnivideo.stages.mixture import EDITS, MAKING, Sample
from unireel.training.stage import ParameterRule
from unireel.world.language import plan_after

CONTEXT_MULTIPLE = 128
"""Contexts of a training have lengths that are multiples of this: each length is compiled once."""

Part = Literal["vision_head", "adapter", "visual_context", "transformer", "editor", "text_encoder"]


@dataclass(frozen=True)
class FlowConfig(OmniVideoConfig):
    """Of flow matching.

    Attributes:
        train: parts that learn. Stage 2 of the paper is the adapter (here with the adapter of source films, which would
            else stay as random as it starts); stage 3 adds vision head and decoder.
        drop_text, drop_visual, drop_source: how often each is left out of a sample, independently, for guidance.
        clean_first: share of films whose first latent frame is given, as staged sampling and images need it.
        shift, uniform: of the times, see :func:`~unireel.flow.matching.sample_times`.
        looking: weight of the loss on where edits look: a small decoder learns very late to find, among some 200
            tokens of context, the source's token at its own place. Of films of the blocks ``looking_blocks`` the last
            head is told (supervised attention, arXiv 1609.04186), as the base system's generator is for words.
        copying: weight of the loss on the gate, where there is one: latents of an edit that are its source's within
            ``alike`` are to be copied. Above 0 the gate learns by nothing else, and what is drawn as if alone: mixed,
            each would wait for the other.
        kept: weight of the error of these latents beside that of 1 of what changes: most of a film stays.
    """

    train: tuple[Part, ...] = ("adapter", "visual_context")
    drop_text: float = 0.1
    drop_visual: float = 0.1
    drop_source: float = 0.1
    clean_first: float = 0.75
    shift: float = 3.0
    uniform: float = 0.2
    looking: float = 0.1
    looking_blocks: tuple[int, ...] = (2, 5)
    copying: float = 1.0
    alike: float = 0.1
    kept: float = 0.1


class FlowStage(OmniVideoStage):
    """Flow matching (eq. 4) on hybrid mixed batches."""

    config_class = FlowConfig
    config: FlowConfig

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        others = [task for task, share in config.mixture.shares.items() if share and task not in MAKING]
        if others:
            raise UsageError(
                f"stage_config.mixture.shares: {', '.join(others)} makes nothing; accepted: {MAKING}"
            )
        self.film_latents, self.edit_latents = self.mixture.latents(self.model.vae)
        for group in self.mixture.groups:
            self._fits(group)
        transformer = self._network
        for block in transformer.blocks:
            block.attn1.set_processor(MatmulAttention())
        _, height, width = transformer.config["patch_size"]
        rows, columns = self.film_latents.shape[-2:]
        self._tokens = (rows // height) * (columns // width)
        embed_times_by_frame(transformer, self._tokens)
        last = transformer.config["num_attention_heads"] - 1
        if config.looking_blocks and max(config.looking_blocks) >= len(transformer.blocks):
            raise UsageError(
                f"stage_config.looking_blocks: the decoder has blocks 0 to {len(transformer.blocks) - 1}"
            )
        looks = self.model.settings.route == "tokens" and config.looking > 0
        self._watched = self.model.decoder.editor_mask.watch(config.looking_blocks, last) if looks else []
        self.module["uncertainty"] = Uncertainty(kinds=8)
        self._assemble = replace(
            self.model.assemble, multiple=CONTEXT_MULTIPLE if self.model.profile.masked else 1
        )

    def parameter_groups(self) -> list[ParameterRule]:
        """As every stage's; the text encoder and the expected errors as in the base system's generator."""
        return [
            *super().parameter_groups(),
            ParameterRule("text_encoder*", lr=0.3, muon=False),
            ParameterRule("uncertainty*", lr=5.0, weight_decay=False, muon=False),
        ]

    @property
    def _network(self) -> Any:
        """The decoder that edits."""
        return self.model.editor or self.model.transformer

    def compile(self) -> None:
        """Compile the decoder's blocks, for each shape of a batch."""
        for block in self._network.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)

    def _needs(self, group: Kind) -> dict[str, int]:
        """Tokens of context that a sample of ``group`` needs at most."""
        model, own = self.model, self.model.settings
        _, frames, height, width = self.film_latents.shape[1:]
        edits = own.route == "tokens" and any(self.config.mixture.shares.get(task) for task in EDITS)
        visual = model.vision_head.config["queries"] if group == "video" else 1
        return {
            "source": model.visual_context.count(frames if group == "video" else 1, height, width)
            if edits
            else 0,
            "visual": visual * model.adapter.config["queries"],
            "text": own.prompt_length,
        }

    def _fits(self, group: Kind) -> None:
        for name, count in self._needs(group).items():
            check_budget(name, count, vars(self.model.settings.budgets))

    def trains(self) -> dict[str, nn.Module]:
        """What the configuration names."""
        parts = trained_parts(self.model)
        return {name: parts[name] for name in self.config.train}

    def report(self) -> list[str]:
        """Buckets with the context that their samples need."""
        lines = []
        for group, line in zip(self.mixture.groups, self.mixture.report(), strict=True):
            needs = ", ".join(
                f"{name} {count} of {getattr(self.model.settings.budgets, name)}"
                for name, count in self._needs(group).items()
                if name in self.model.settings.segments
            )
            lines.append(f"{line}; tokens of context at most: {needs}")
        return lines

    def batch(self, index: int) -> dict[str, Any]:
        """Latents of what is made and of sources, requests, tokens of texts, and what is dropped."""
        own, model = self.config, self.model
        samples, group = self.mixture.batch(index), self.mixture.group(index)
        random = np.random.default_rng([own.mixture.data_seed, index, 1])
        frames = slice(0, 1) if group == "image" else slice(None)
        latents = np.stack([self._wanted(each)[:, frames] for each in samples])
        source = np.zeros_like(latents)
        for row, sample in enumerate(samples):
            if sample.task in EDITS:
                source[row] = self.film_latents[sample.shown][:, frames]
        drops = random.random((3, len(samples))) < np.array(
            [[own.drop_text], [own.drop_visual], [own.drop_source]]
        )
        drop_text, drop_visual, drop_source = torch.from_numpy(drops)
        edits = torch.tensor([sample.task in EDITS for sample in samples])
        texts = [
            "" if drop else sample.plan or sample.text
            for sample, drop in zip(samples, drop_text.tolist(), strict=True)
        ]
        ids, mask = tokenize(model.tokenizer, [*texts, ""], model.settings.prompt_length)
        clean = random.random(len(samples)) < (0.0 if group == "image" else own.clean_first)
        return {
            **self.heard(samples, index),
            "latents": torch.from_numpy(latents.astype(np.float32)),
            "source": torch.from_numpy(source.astype(np.float32)),
            "given": edits & ~drop_source,
            "edits": edits,
            "visual": ~drop_visual & (edits | (not model.settings.words_only)),
            "text": ids,
            "text_mask": mask,
            "clean": torch.from_numpy(clean),
        }

    def _wanted(self, sample: Sample) -> np.ndarray:
        return (self.edit_latents if sample.task in EDITS else self.film_latents)[sample.place]

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Squared error over latent frames that are not given, weighed by what is expected at its time; the gate's
        cross-entropy; and where edits look. Also the plain mean squared error of each task."""
        own, model = self.config, self.model
        data, clean = batch["latents"], batch["clean"]
        picture = data.shape[2] == 1
        time = sample_times(len(data), own.shift, own.uniform, data.device)
        per_frame = time[:, None].repeat(1, data.shape[2])
        per_frame[:, 0] = torch.where(clean, torch.zeros_like(time), time)
        noise = torch.randn_like(data)
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        context = self._assemble(self._rows(batch, "image" if picture else "video"))
        drawn = model.decoder.draw(state, 1000 * per_frame, context, batch["source"], batch["given"])
        alone = drawn.drawn if own.copying > 0 else None
        output = (drawn.output if alone is None else alone).float()
        error = output - (velocity(data, noise) if model.decoder.prediction == "velocity" else data)
        wanted = torch.ones_like(per_frame)
        wanted[:, 0] = (~clean).float()
        alike = (data - batch["source"]).abs().amax(1) < own.alike  # (B, T, h, w)
        alike &= batch["given"].view(-1, 1, 1, 1)
        weights = wanted[..., None, None] * torch.where(alike, own.kept, 1.0)
        each = (error.square().mean(dim=1) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1e-6)
        logs: dict[str, Tensor | float] = {}
        for name, rows in (
            ("i2i" if picture else "v2v", batch["edits"]),
            ("t2i" if picture else "t2v", ~batch["edits"]),
        ):
            if rows.any():
                logs[name] = each[rows].mean().detach()
        kind = batch["edits"].long() + 2 * clean + 4 * int(not picture)
        loss = self.module["uncertainty"](each, time, kind).mean()
        if alone is not None and drawn.copied is not None and batch["given"].any():
            chosen = batch["given"].view(-1, 1, 1, 1) & (wanted > 0)[..., None, None].expand_as(alike)
            logits, truth = drawn.copied[:, 0][chosen], alike[chosen].float()
            copied = F.binary_cross_entropy_with_logits(logits, truth)
            logs["copying"] = copied.detach()
            logs["copied_right"] = ((logits > 0) == (truth > 0)).float().mean().detach()
            loss = loss + own.copying * copied
        if self._watched and batch["given"].any():
            looked = torch.stack([_looked(watched.seen, batch["given"]) for watched in self._watched]).mean()
            logs["looking"] = looked.detach()
            loss = loss + own.looking * looked
        return loss, logs

    def _rows(self, batch: Any, kind: Any) -> list[Row]:
        model, own = self.model, self.model.conditioner
        heads = "vision_head" in self.config.train
        with torch.no_grad():
            states, mask, _ = model.mllm.states(heard_of(batch))
        with torch.set_grad_enabled(torch.is_grad_enabled() and heads):
            visual = own.visual_tokens(states, mask, [kind] * len(states))
        adapted = own.adapted(visual)
        tokens = [
            each if seen else None for each, seen in zip(adapted, batch["visual"].tolist(), strict=True)
        ]
        *texts, empty = own.texts(batch["text"], batch["text_mask"])
        sources: list[Tensor | None] = [None] * len(states)
        if model.settings.route == "tokens" and batch["given"].any():
            rows = batch["given"].nonzero().flatten()
            for row, source in zip(rows.tolist(), model.visual_context(batch["source"][rows]), strict=True):
                sources[row] = source
        return own.rows(tokens, texts, empty, sources)

    def evaluate(self) -> dict[str, float]:
        """PSNR in dB of eight trained edits made again from noise, and of their sources: what doing nothing reaches."""
        if self.mixture.edits is None:
            return {}
        made, wanted, source = self._eight()
        return {
            "edit_psnr": float(psnr(made, wanted).mean()),
            "source_psnr": float(psnr(source, wanted).mean()),
        }

    def samples(self) -> dict[str, np.ndarray]:
        """Eight trained edits: every fourth frame of the source, of what was made, and of what should have been."""
        if self.mixture.edits is None:
            return {}
        made, wanted, source = self._eight()
        strips = [
            np.concatenate(list(films[:, ::4].transpose(1, 0, 2, 3, 4)), axis=2)
            for films in (source, made, wanted)
        ]
        return {"edits": np.concatenate(list(np.concatenate(strips, axis=2)), axis=0)}

    def _eight(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pairs, model = self.mixture.edits, self.model
        assert pairs is not None
        count = min(8, len(pairs))
        chosen = pairs.pairs[:count]
        source = np.stack([self.mixture.films.frames[pair.source] for pair in chosen])
        seen = np.stack([self.mixture.seen.frames[pair.source] for pair in chosen])
        requests = [Request(pair.instruction, film) for pair, film in zip(chosen, seen, strict=True)]
        plans = [
            plan_after(self.mixture.seen.scene(pair.source), pairs.scene(place))
            for place, pair in enumerate(chosen)
        ]
        plans = plans if self.config.mixture.captions else None
        noise = torch.randn((count, *self.edit_latents.shape[1:]), generator=torch.Generator().manual_seed(0))
        latents = np.stack([self.film_latents[pair.source] for pair in chosen]).astype(np.float32)
        sampling = Sampling(12, self.config.shift, 1.0)
        source_latents = torch.from_numpy(latents).to(self.device)
        state = model.latents(requests, noise, sampling, plans, source=source_latents)
        return to_frames(decode(model.vae, state)), pairs.frames[:count], source


def _looked(weights: Tensor, given: Tensor) -> Tensor:
    """Mean of -log of the weight (B, N, L) of each token on the source's token at its own place, which come first."""
    own = weights[given].diagonal(dim1=1, dim2=2)[:, : weights.shape[1]]
    return -(own.float() + 1e-4).log().mean()
