"""AdamW and Muon over named parameters, and their state by name.

Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks") replaces the momentum of
each hidden matrix by the nearest semi-orthogonal matrix, found with a Newton-Schulz iteration.
"""

import fnmatch
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unireel.training.distributed import is_sharded, part, whole
from unireel.training.precision import has_fast_bf16
from unireel.training.recipe import OptimizerConfig
from unireel.training.stage import ParameterRule

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """Approximate polar factor ``U V^T`` of each matrix ``U S V^T``: singular values of about 0.7 to 1.2.

    The iteration is ``X <- (a I + b A + c A A) X`` with ``A = X X^T``, started from the matrix over its
    Frobenius norm.

    Args:
        matrices: ``(B, rows, columns)``; float32 is computed in float32, bfloat16 in bfloat16.
        steps: iterations; 5 is the published choice, fewer are cheaper and coarser.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    # Rounding errors of A grow 12-fold a step where X is singular, so that few steps in float32 are safe.
    wide = 2 * x.shape[-1] > 3 * x.shape[-2] and steps <= 5 and x.dtype in (torch.float32, torch.float64)
    x = _iterate_gram(x, steps) if wide else _iterate(x, steps)
    return x.mT if tall else x


def _iterate(x: Tensor, steps: int) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterate_gram(x: Tensor, steps: int) -> Tensor:
    """The same on ``A`` alone: ``Q = a I + b A + c A A``, ``A <- Q A Q``; at the end all ``Q`` times ``X``.

    All of these commute, and are ``rows`` by ``rows``: 1.7 times faster for a feed-forward layer, 3 to 4 times
    for a convolution kernel.
    """
    a, b, c = NEWTON_SCHULZ
    gram = torch.bmm(x, x.mT)
    product = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else torch.bmm(factor, product)
        if step + 1 < steps:
            gram = torch.bmm(factor, torch.bmm(gram, factor))
    assert product is not None
    return torch.bmm(product, x)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised, decoupled weight decay, update scaled by ``sqrt(max(1, rows / columns))``.

    Convolution kernels count as matrices ``(out, in * kernel)``. Matrices of one shape are orthogonalised
    together. Sharded parameters are gathered for the iteration; the momentum stays sharded.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float, nesterov: bool, weight_decay: float, steps: int
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "steps": steps,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows = parameter.shape[0]
                    by_shape.setdefault((rows, parameter.numel() // rows), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._update(parameters, shape, group)

    def _update(self, parameters: list[nn.Parameter], shape: tuple[int, int], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            grad, momentum = parameter.grad, state["momentum"]
            assert grad is not None
            momentum.lerp_(grad, 1.0 - group["momentum"])
            direction = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            directions.append(direction.full_tensor() if is_sharded(direction) else direction)
        stacked = torch.stack([direction.reshape(shape) for direction in directions])
        if has_fast_bf16(stacked.device):
            stacked = stacked.bfloat16()
        updates = orthogonalise(stacked, group["steps"]).to(parameters[0].dtype)
        scale = -group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            update = update.reshape(parameter.shape)
            if is_sharded(parameter):
                from torch.distributed.tensor import DTensor, Replicate

                mesh = parameter.device_mesh
                update = DTensor.from_local(update, mesh, [Replicate()] * mesh.ndim, run_check=False)
                update = update.redistribute(placements=parameter.placements)
            parameter.add_(update, alpha=scale)


_STATE: dict[type, set[str]] = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, Muon: {"momentum"}}


class Optimizers:
    """The optimiser of a run: one or two torch optimisers on one schedule, with state by parameter name."""

    def __init__(
        self, module: nn.Module, config: OptimizerConfig, rules: Iterable[ParameterRule] = ()
    ) -> None:
        adamw, muon = _groups(module, config, list(rules))
        self.names = {p: name for name, p in module.named_parameters() if p.requires_grad}
        self.parts: list[torch.optim.Optimizer] = []
        if adamw:
            self.parts.append(
                torch.optim.AdamW(adamw, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
            )
        if muon:
            options = {
                "momentum": config.momentum,
                "nesterov": config.nesterov,
                "steps": config.newton_schulz_steps,
            }
            self.parts.append(Muon(muon, lr=config.muon_lr, weight_decay=config.muon_weight_decay, **options))

    @property
    def groups(self) -> list[dict[str, Any]]:
        """All parameter groups."""
        return [group for optimizer in self.parts for group in optimizer.param_groups]

    def step(self, factor: float) -> None:
        """One update at ``factor`` times each group's learning rate; clears the gradients."""
        for group in self.groups:
            group["lr"] = group["base_lr"] * factor
        for optimizer in self.parts:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self, form: Callable[[Tensor, Tensor], Tensor] = whole) -> dict[str, Tensor]:
        """State tensors, named ``parameter/key``, full and on the CPU by default; every process has to call it.

        ``form`` gets each state and its parameter.
        """
        tensors = {}
        for optimizer in self.parts:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{self.names[parameter]}/{key}"] = form(value, parameter)
        return tensors

    def empty(self, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Room for the states of those names and full shapes, laid out and placed as their parameters are."""
        parameters = {name: parameter for parameter, name in self.names.items()}
        room = {}
        for name, shape in shapes.items():
            parameter = parameters.get(name.rpartition("/")[0])
            if parameter is not None and parameter.shape == shape:
                room[name] = torch.zeros_like(parameter.detach())
            else:
                room[name] = torch.zeros(shape)
        return room

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` gave; warns of parameters that another optimiser had."""
        states: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter, _, key = name.rpartition("/")
            states.setdefault(parameter, {})[key] = tensor
        for optimizer in self.parts:
            parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
            for parameter in parameters:
                state = states.get(self.names[parameter], {})
                if state and set(state) != _STATE[type(optimizer)]:
                    warnings.warn(f"optimiser state of '{self.names[parameter]}' starts anew", stacklevel=2)
                    continue
                for key, tensor in state.items():
                    optimizer.state[parameter][key] = _placed(tensor, parameter)


def _placed(tensor: Tensor, parameter: Tensor) -> Tensor:
    if is_sharded(tensor):
        return tensor
    if is_sharded(parameter) and tensor.shape == parameter.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    placed = torch.zeros_like(parameter) if tensor.shape == parameter.shape else torch.zeros_like(tensor)
    return placed.to(parameter.device).copy_(part(tensor, parameter))


def _groups(module: nn.Module, config: OptimizerConfig, rules: list[ParameterRule]) -> tuple[list, list]:
    """Parameter groups for AdamW and for Muon; a group is one learning rate and one weight decay.

    Parameters that a rule gives a learning rate of 0 are frozen.
    """
    matrices = _matrices(module)
    found: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        rule = next((rule for rule in rules if fnmatch.fnmatchcase(name, rule.pattern)), ParameterRule("*"))
        if rule.lr == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        matrix = id(parameter) in matrices
        excluded = any(fnmatch.fnmatchcase(name, pattern) for pattern in config.muon_exclude)
        muon = config.name == "muon" and (matrix and not excluded if rule.muon is None else rule.muon)
        decay = matrix if rule.weight_decay is None else rule.weight_decay
        found.setdefault((muon, rule.lr, decay), []).append(parameter)
    adamw, muons = [], []
    for (muon, multiplier, decay), parameters in found.items():
        weight_decay = (config.muon_weight_decay if muon else config.weight_decay) if decay else 0.0
        base_lr = (config.muon_lr if muon else config.lr) * multiplier
        group = {"params": parameters, "lr": base_lr, "base_lr": base_lr, "weight_decay": weight_decay}
        (muons if muon else adamw).append(group)
    return adamw, muons


def _matrices(module: nn.Module) -> set[int]:
    """Identities of what multiplies activations: kernels of linear and convolution layers and of attention.

    Not everything with two dimensions is one: modulation tables, learned positions and embeddings are not.
    """
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    found = {id(m.weight) for m in module.modules() if isinstance(m, layers + transposed)}
    for attention in (m for m in module.modules() if isinstance(m, nn.MultiheadAttention)):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        found |= {id(getattr(attention, name)) for name in names if getattr(attention, name) is not None}
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return found - embeddings  # an output head that is tied to an embedding counts as the embedding
