"""Processes and devices: who am I, how parameters are split, how numbers are agreed on.

One process needs none of it. Under ``torchrun`` each process owns one device; weights are sharded by FSDP2
(``fully_shard``) over all processes or over groups of them (hybrid), or, with ``parallel: replicate``, kept whole and
their gradients averaged. Groups of neighbours may share one batch, see :mod:`unireel.training.sequence`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Parallel:
    """This process among ``world``.

    Attributes:
        sharded: whether parameters are split; every ``shards`` neighbouring processes hold one copy of them together.
        sequence: so many neighbouring processes work on one batch, each on its share of the tokens.
    """

    rank: int
    world: int
    device: torch.device
    sharded: bool
    shards: int = 1
    sequence: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Number of the batches that this process works on, among :attr:`data_world`."""
        return self.rank // self.sequence

    @property
    def data_world(self) -> int:
        """How many batches are worked on at the same time."""
        return self.world // self.sequence

    def agree(self, flags: Sequence[bool]) -> list[bool]:
        """Each flag raised by any process is raised in all of them."""
        if self.world == 1:
            return list(flags)
        tensor = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in tensor.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, in rank order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def first_says(self, value: Any) -> Any:
        """The first process's ``value``, in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over processes; sharded ones already are."""
        if self.world == 1:
            return
        whole = [p for p in parameters if p.requires_grad and not is_sharded(p)]
        for parameter in whole:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not whole:
            return
        grads = [p.grad for p in whole if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def start(device: str, parallel: str, shards: int = 0, sequence: int = 1) -> Parallel:
    """Join the processes that ``torchrun`` started, if it did, and choose the device.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        parallel: ``fsdp`` or ``replicate``.
        shards: processes that one copy of the weights is split over with ``fsdp``; 0 is all.
        sequence: processes that share a batch.

    Raises:
        UserError: CUDA was asked for and is not there, or torchrun starts again in a way that cannot work.
        UsageError: the processes cannot be grouped like that.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UserError("'device' is cuda, but torch sees no CUDA device here: use device=cpu or device=auto")
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    for key, size in (("shards", shards or world), ("sequence", sequence)):
        if world % size and world > 1:
            raise UsageError(f"'{key}' is {size}, which does not divide the {world} processes")
    if sequence > world:
        raise UsageError(f"'sequence' is {sequence}, but there is one process: start more with torchrun")
    use_cuda = cuda and device != "cpu"
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # Workers would find the addresses of dead ones: https://github.com/pytorch/pytorch/issues/135712
        raise UserError("for restarts torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment")
    if world > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_cuda else "gloo")
    sharded = world > 1 and parallel == "fsdp"
    return Parallel(rank, world, place, sharded, min(shards or world, world) if sharded else 1, sequence)


def shard(module: nn.Module, parallel: Parallel, forward_methods: Sequence[str]) -> None:
    """Split the parameters of ``module`` over ``parallel.shards`` processes each with FSDP2, in place.

    Blocks whose class a model names in ``_no_split_modules`` (diffusers and transformers do) are gathered one
    at a time; what remains is gathered with the model it belongs to. A ``ModuleDict`` or ``ModuleList`` at
    the top is a shelf of models, not a model: each one on it is split by itself.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    groups = parallel.world // parallel.shards
    sizes, names = ((groups, parallel.shards), ("copy", "shard")) if groups > 1 else ((parallel.world,), None)
    mesh = init_device_mesh(parallel.device.type, sizes, mesh_dim_names=names)
    blocks = {name for m in module.modules() for name in (getattr(m, "_no_split_modules", None) or ())}
    for child in module.modules():
        if type(child).__name__ in blocks and child is not module:
            fully_shard(child, mesh=mesh)
    shelf = isinstance(module, nn.ModuleDict | nn.ModuleList)
    for root in module.children() if shelf else [module]:
        if any(True for _ in root.parameters()):
            fully_shard(root, mesh=mesh)
            for method in forward_methods:
                if hasattr(root, method):
                    register_fsdp_forward_method(root, method)


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether ``tensor`` is a ``DTensor``."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of ``tensor`` that this process holds, sharing its memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that is laid out as parameter ``like`` is, as a ``DTensor`` on the same memory.

    ``tensor`` may also be a number that all processes hold, or whole already: then it stays as it is.
    """
    if is_sharded(like) and not is_sharded(tensor) and tensor.shape == local(like).shape and tensor.ndim:
        from torch.distributed.tensor import DTensor

        return DTensor.from_local(
            tensor, like.device_mesh, like.placements, shape=like.shape, stride=like.stride(), run_check=False
        )
    return tensor


def whole(tensor: Tensor, like: Tensor) -> Tensor:
    """The full tensor on the CPU, from what :func:`spread` takes; every process calls it, in the same order."""
    tensor = spread(tensor, like)
    if is_sharded(tensor):
        tensor = tensor.full_tensor()
    return tensor.detach().cpu()


def part(full: Tensor, like: Tensor) -> Tensor:
    """This process's part of ``full``, laid out and placed as parameter ``like`` is."""
    if is_sharded(like) and full.shape == like.shape:
        from torch.distributed.tensor import distribute_tensor

        full = distribute_tensor(full.to(like.device), like.device_mesh, like.placements)
        return full.to_local()
    return full.to(like.device)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], limit: float, parallel: Parallel) -> Tensor:
    """Scale all gradients to a joint L2 norm of at most ``limit`` (0: leave them); return the norm before.

    The norm is over all shards of one copy. Same rule as ``torch.nn.utils.clip_grad_norm_``: the factor is
    ``min(1, limit / (norm + 1e-6))``.
    """
    grads = [(local(p.grad), is_sharded(p)) for p in parameters if p.grad is not None]
    if not grads:
        return torch.zeros(())
    norms = torch._foreach_norm([grad for grad, _ in grads])  # pyright: ignore[reportPrivateImportUsage]
    split = [norm for norm, (_, sharded) in zip(norms, grads, strict=True) if sharded]
    alone = [norm for norm, (_, sharded) in zip(norms, grads, strict=True) if not sharded]
    square = torch.stack(alone).square().sum() if alone else torch.zeros((), device=parallel.device)
    if split:
        shared = torch.stack(split).square().sum()
        mesh = next(p.device_mesh for p in parameters if is_sharded(p))
        dist.all_reduce(shared, group=mesh.get_group(mesh.ndim - 1))
        square = square + shared
    norm = square.sqrt()
    if limit > 0:
        factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
        torch._foreach_mul_([grad for grad, _ in grads], factor)  # pyright: ignore[reportPrivateImportUsage]
    return norm
