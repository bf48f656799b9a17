"""Near-lossless by choice: films from fewer evaluations of the network, which differ from what it makes with all.

What each profile costs in quality and gains in time is measured in ``docs/performance.md``; none is on by default.
"""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import FirstBlockCacheConfig

from unireel.backbones.fast.accelerate import Acceleration, accelerate
from unireel.errors import UsageError

LOSSLESS = "lossless"


@dataclass(frozen=True)
class Profile:
    """What is left out of the sampling of a film.

    Attributes:
        says: what it does, for people.
        step_share: the share of the model's own number of steps that is taken.
        guided_above: the flow time down to which guidance acts (arXiv 2404.07724); one evaluation a step less below.
        cache: relative change of the first block's residual up to which the other blocks' is taken from the step before
            (FirstBlockCache); 0 computes every block.
        unguided: guidance is left out: half the evaluations of every step.
    """

    says: str
    step_share: float = 1.0
    guided_above: float = 0.0
    cache: float = 0.0
    unguided: bool = False


PROFILES: dict[str, Profile] = {
    LOSSLESS: Profile("the same result, in bfloat16 where the machine computes faster in it"),
    "early-guidance": Profile("guidance in the noisier half of the times only", guided_above=0.5),
    "cached": Profile("blocks whose input hardly changed are not computed again", cache=0.1),
    "half-steps": Profile("half the steps", step_share=0.5),
    "draft": Profile("half the steps, guidance in the noisier half only", step_share=0.5, guided_above=0.5),
    "few-steps": Profile("half the steps, without guidance", step_share=0.5, unguided=True),
}
"""What ``fast=`` and ``--fast`` accept; all are lossless first."""


def speed_up(pipeline: Any, profile: str = LOSSLESS) -> Acceleration:
    """Make ``pipeline`` faster by one of the :data:`PROFILES`, in place.

    Returns:
        What acts, in :attr:`Acceleration.levers`; :meth:`Acceleration.remove` takes all of it off again.

    Raises:
        UsageError: there is no such profile, the pipeline cannot be accelerated, or the profile would not act on it: it
            has a sampler of its own, or makes films without guidance.
    """
    if profile not in PROFILES:
        raise UsageError(f"there is no profile '{profile}'; accepted: {', '.join(PROFILES)}")
    own = PROFILES[profile]
    guides = bool(own.guided_above or own.unguided)
    if (guides or own.cache) and getattr(pipeline, "guidance_interval", None) is None:
        raise UsageError(f"'{profile}' does not act on {type(pipeline).__name__}, whose sampler is another")
    if guides and pipeline.config["guidance"] == 1.0:
        raise UsageError(f"'{profile}' does not act on this model: it makes films without guidance")
    acceleration = accelerate(pipeline, "auto")
    if own.step_share < 1:
        before = pipeline.config["steps"]
        pipeline.register_to_config(steps=max(round(before * own.step_share), 1))
        acceleration.add(
            f"{pipeline.config['steps']} steps", lambda: pipeline.register_to_config(steps=before)
        )
    if own.unguided:
        scale = pipeline.config["guidance"]
        pipeline.register_to_config(guidance=1.0)
        acceleration.add("no guidance", lambda: pipeline.register_to_config(guidance=scale))
    if own.guided_above:
        interval = pipeline.guidance_interval
        pipeline.guidance_interval = (own.guided_above, 1.0)
        acceleration.add(
            f"guidance above {own.guided_above:g}", lambda: setattr(pipeline, "guidance_interval", interval)
        )
    if own.cache:
        pipeline.drawing.enable_cache(FirstBlockCacheConfig(threshold=own.cache))
        acceleration.add("blocks kept between steps", pipeline.drawing.disable_cache)
    return acceleration
