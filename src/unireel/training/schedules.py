"""Learning-rate schedules as plain functions of the step."""

import math

from unireel.training.recipe import ScheduleConfig


def lr_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """Factor on the learning rate for update number ``step`` (0-based) of ``steps``.

    Rises linearly over the first ``warmup`` updates (update ``i`` uses ``(i + 1) / warmup``), then falls from
    1 towards ``final``: ``final + (1 - final) * (1 + cos(pi x)) / 2`` or ``1 - (1 - final) * x``, where ``x``
    is the finished share of the updates after warm-up. ``final`` itself would be used by update ``steps``,
    the first that is not made, so that no update is spent at a rate of 0.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.name == "constant":
        return 1.0
    x = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    if config.name == "linear":
        return 1.0 - (1.0 - config.final) * x
    return config.final + (1.0 - config.final) * 0.5 * (1.0 + math.cos(math.pi * x))
