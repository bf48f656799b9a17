"""Training the decoder of edits on verdicts: it edits films, the checker judges them, it learns from that."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from unireel.backbones.low_rank import as_matrices
from unireel.backbones.wan import MatmulAttention, embed_times_by_frame
from unireel.data.world import to_frames, to_pixels
from unireel.errors import UsageError
from unireel.flow.matching import interpolate, sample_times
from unireel.flow.reinforcement import follow, negative_aware_loss, shared_draws, worth_learning
from unireel.systems.base.stages.verdicts import edit_reward, picture_reward
from unireel.systems.omnivideo.context import Context
from unireel.systems.omnivideo.decoder import Decoder
from unireel.systems.omnivideo.guidance import FULL
from unireel.systems.omnivideo.sampling import Sampling, integrate
from unireel.systems.omnivideo.speech import Request
from unireel.systems.omnivideo.stages.flow import FlowConfig, FlowStage
from unireel.systems.omnivideo.stages.mixture import EDITS, Sample
from unireel.world.render import render_frames


@dataclass(frozen=True)
class EditReinforcementConfig(FlowConfig):
    """Of learning from verdicts; the mixture's batches are the edits of which several are drawn.

    Attributes:
        drawn: films that the policy makes of each edit, by the model's own sampling of edits, without guidance. All of
            an edit go on from one first frame, which the policy draws as a picture; batches of pictures are those.
        strength: see :func:`~unireel.flow.reinforcement.negative_aware_loss`.
        policy_decay: of the running average of the trained weights that draws.
    """

    drawn: int = 7
    strength: float = 1.0
    policy_decay: float = 0.8


class EditReinforcementStage(FlowStage):
    """Negative-aware fine-tuning (arXiv 2509.16117) of the decoder of edits, on what its gate lets through."""

    config_class = EditReinforcementConfig
    config: EditReinforcementConfig

    def __init__(self, config: EditReinforcementConfig) -> None:
        super().__init__(config)
        model = self.model
        if model.editor is None or model.decoder.prediction != "data" or "editor" not in config.train:
            raise UsageError(
                "stage_config.train: verdicts teach a decoder of edits ('editor') that predicts data"
            )
        if set(config.mixture.shares) - set(EDITS):
            raise UsageError("stage_config.mixture.shares: verdicts are on edits, v2v and i2i")
        with as_matrices(self.module):
            policy = WanTransformer3DModel.from_config(model.editor.config)
            policy.load_state_dict(model.editor.state_dict())
        policy.requires_grad_(False).eval()
        for block in policy.blocks:
            block.attn1.set_processor(MatmulAttention())
        embed_times_by_frame(policy, self._tokens)
        self.module["policy"] = policy
        own = model.settings
        gate = own.copies, policy, own.sharpness, own.caution
        self._policy = Decoder(model.transformer, "data", own.route, *gate)

    def batch(self, index: int) -> dict[str, Any]:
        """As for flow matching, with the batch's number."""
        return {**super().batch(index), "index": torch.tensor(index)}

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean of the negative-aware loss; logs how the edits that were drawn fared."""
        own, source = self.config, batch["source"]
        samples, group = self.mixture.batch(int(batch["index"])), self.mixture.group(int(batch["index"]))
        edit = torch.arange(len(source), device=source.device).repeat_interleave(own.drawn)
        with torch.no_grad():
            with as_matrices(self.module):
                trained = self.module["editor"].parameters()
                follow(self.module["policy"].parameters(), trained, own.policy_decay)
            context = self._assemble(self._rows(batch, group))
            first = self._first_frames(samples, source)[edit] if group == "video" else None
            noise = torch.randn(len(edit), *source.shape[1:], device=source.device)
            drawn = self._drawn(_of(context, edit), source[edit], noise, first)
            rewards, right = self._judge(samples, source, drawn.unflatten(0, (-1, own.drawn)))
        data = torch.cat([drawn.unflatten(0, (-1, own.drawn)), batch["latents"][:, None]], 1)
        used, good = worth_learning(rewards, len(drawn))
        edit = used // data.shape[1]
        draw = shared_draws(edit)
        loss = self._learnt(data.flatten(0, 1)[used], _of(context, edit), source[edit], good, draw).mean()
        kind = "picture" if group == "image" else "film"
        return loss, {f"{kind}_reward": rewards.mean(), f"{kind}_right": right.mean()}

    def _first_frames(self, samples: list[Sample], source: Tensor) -> Tensor:
        """The policy's first frame of each edited film, (G, C, 1, h, w)."""
        stills = [Request(each.text, each.source[:1]) for each in samples]
        plans, still = [each.plan for each in samples], source[:, :, :1]
        contexts = self.model.contexts(stills, ["image"] * len(stills), plans, still, "", [FULL])
        return self._drawn(contexts[FULL], still, torch.randn_like(still), None)

    def _drawn(self, context: Context, source: Tensor, noise: Tensor, first: Tensor | None) -> Tensor:
        """What the policy makes, (B, C, T, h, w)."""
        settings = self.model.settings
        sampling = (settings.i2i if noise.shape[2] == 1 else settings.v2v) or Sampling()

        def velocity(state: Tensor, time: Tensor, sigma: Tensor) -> Tensor:
            return self._policy.velocity(state, time, sigma, context, source, None, first is not None).float()

        return integrate(velocity, noise, sampling.steps, sampling.shift, first)

    def _judge(self, samples: list[Sample], source: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards (G, K) of edited films (G, K, C, T, h, w), and which of them are right, (G * K,)."""
        verdicts = []
        for number, sample in enumerate(samples):
            seen = to_pixels(sample.source[None]).to(drawn.device)
            with torch.autocast(self.device.type, enabled=False):
                frames = to_frames(self.model.shown(drawn[number], seen, source[number : number + 1]))
            edit = self.mixture.edits.edit(sample.place)
            if len(frames[0]) == 1:
                truth = render_frames(edit.target)[0]
                verdicts += [picture_reward(each[0], truth, edit.target) for each in frames]
            else:
                verdicts += [edit_reward(each, edit) for each in frames]
        found = torch.tensor(verdicts, dtype=torch.float32, device=drawn.device)
        return found[:, 0].view(drawn.shape[:2]), found[:, 1]

    def _learnt(self, data: Tensor, context: Context, source: Tensor, good: Tensor, draw: Tensor) -> Tensor:
        """The loss (B,) at random times."""
        own = self.config
        time = sample_times(len(data), own.shift, own.uniform, data.device)[draw]
        noise = torch.randn_like(data)[draw]
        per_frame = time[:, None].repeat(1, data.shape[2])
        film = data.shape[2] > 1
        per_frame[:, 0] = 0.0 if film else time
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        arguments = state, 1000 * per_frame, context, source
        with torch.no_grad():
            old = self._policy.output(*arguments).float()
        new = self.model.decoder.output(*arguments).float()
        alike = (data - source).abs().amax(1, keepdim=True) < own.alike  # (B, 1, T, h, w)
        wanted = torch.where(alike, own.kept, 1.0)
        if film:
            wanted[:, :, 0] = 0
        return negative_aware_loss(data, new, old, good, wanted, own.strength)


def _of(context: Context, rows: Tensor) -> Context:
    """Some rows of a context, in any order."""
    return Context(context.tokens[rows], None if context.mask is None else context.mask[rows])
