"""Running two models on the same inputs."""

import torch

Inputs = dict[str, torch.Tensor]
"""Arguments of a Wan transformer."""


def outcome(model: torch.nn.Module, inputs: Inputs, **options: object) -> torch.Tensor:
    """What the model makes of the inputs, without gradients."""
    with torch.no_grad():
        return model(**inputs, **options, return_dict=False)[0]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative difference, in the Euclidean norm."""
    return float((one.float() - other.float()).norm() / other.float().norm())
