"""Memory and time of training a Wan transformer on so many devices, before any is rented.

    python -m unireel.training.plan_scale recipes/scale/ti2v-5b-full.yaml [KEY=VALUE ...]

Nothing is allocated: the model is built on the meta device, where one step forwards and backwards leaves the shapes
of all that autograd saves and the operations of every product. What is counted is counted to the byte: shards as FSDP2
cuts them, gathered blocks, gradients, the optimiser's states, saved activations. What cannot be known is an assumption,
and stated: the share of the peak that kernels reach, the bandwidths, and a tenth of the memory for the allocator.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers import transformer_wan as stock
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unireel.backbones.lora import add_lora
from unireel.config import apply_overrides, from_dict, load_yaml
from unireel.errors import UserError

GIB = 2**30
OPTIMIZER_BYTES = {"adamw": 8.0, "adamw8bit": 2 + 8 / 256, "muon": 4.0}
"""Bytes of state per trained parameter: two float32 moments; two of 8 bits with a float32 scale for each 256 (as
bitsandbytes); one float32 moment."""


@dataclass(frozen=True)
class ScalePlan:
    """What is to be trained, on what.

    Attributes:
        model: arguments of diffusers' ``WanTransformer3DModel``.
        latents: (T, h, w) of a film.
        text_rows: rows of text states.
        train: all weights, or adapters (LoRA) of rank ``rank`` on both attentions of every block, the rest in bfloat16.
        batch: films a device and step.
        samples: films in all, for the time.
        devices: the numbers of devices to plan for.
        optimizer: whose states are counted.
        ema: an average of the trained weights, float32, sharded as they are.
        checkpointing: each block keeps its input alone, and is computed again in the backward pass.
        device_memory: GiB of one.
        peak: operations a second in bfloat16 (H100 and H200: 989e12).
        share: of the peak, that a step reaches; 0.40 to 0.50 is what good published trainings do.
        node: devices with the fast links; ``inside`` and ``between``: bytes a second and device in and out of a node.
    """

    model: dict[str, Any]
    latents: tuple[int, int, int]
    text_rows: int = 512
    train: Literal["full", "lora"] = "full"
    rank: int = 32
    batch: int = 1
    samples: int = 1_000_000
    devices: tuple[int, ...] = (1, 8, 64)
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    ema: bool = True
    checkpointing: bool = True
    device_memory: float = 80.0
    peak: float = 989e12
    share: float = 0.42
    node: int = 8
    inside: float = 450e9
    between: float = 50e9

    def __post_init__(self) -> None:
        if min(self.devices, default=0) < 1 or self.batch < 1 or self.rank < 1 or self.samples < 1:
            raise ValueError("devices, batch, rank and samples are 1 or more")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is a part of the peak, above 0 and at most 1, not {self.share}")


@dataclass(frozen=True)
class Step:
    """One micro-batch forwards and backwards: bytes that autograd keeps, and operations of each direction."""

    saved: int
    forward: int
    backward: int

    def with_blocks(self, one_more: Step, blocks: int) -> Step:
        """Of a model with ``blocks`` blocks, from those with one (self) and two: all blocks are alike."""
        names = ("saved", "forward", "backward")
        return Step(
            *(getattr(self, n) + (blocks - 1) * (getattr(one_more, n) - getattr(self, n)) for n in names)
        )


@dataclass(frozen=True)
class Estimate:
    """For one number of devices: bytes on each by what they are for, and seconds of one step."""

    devices: int
    memory: dict[str, int]
    compute: float
    communication: float

    @property
    def total(self) -> int:
        """Bytes on each device."""
        return sum(self.memory.values())

    @property
    def seconds(self) -> float:
        """Of one step, gathering hidden behind computing as far as it goes."""
        return max(self.compute, self.communication)


class _Fused(torch.autograd.Function):
    """What a fused attention keeps and does: queries, keys, values, output and a float32 logsumexp a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, counts: list[int]) -> Tensor:
        """(B, N, heads, width) in and out; two products."""
        output = torch.empty_like(query)
        ctx.counts, ctx.operations = counts, 4 * query.numel() * key.shape[1]
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        counts[0] += ctx.operations
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Five products, where the forward pass had two."""
        query, key, value, *_ = ctx.saved_tensors
        ctx.counts[1] += ctx.operations * 5 // 2
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


def measure_step(plan: ScalePlan, blocks: int) -> Step:
    """A step of the model with so many of its blocks, on the meta device, in bfloat16."""
    model = build(plan, blocks).to(torch.bfloat16).train()
    frames, height, width = plan.latents
    with torch.device("meta"):
        latents = torch.empty(
            plan.batch, model.config["in_channels"], frames, height, width, dtype=torch.bfloat16
        )
        text = torch.empty(plan.batch, plan.text_rows, model.config["text_dim"], dtype=torch.bfloat16)
        time = torch.empty(plan.batch, dtype=torch.bfloat16)
    own = {each.untyped_storage()._cdata for each in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}
    attention = [0, 0]

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        return _Fused.apply(query, key, value, attention)

    with mock.patch.object(stock, "dispatch_attention_fn", fused):
        with (
            FlopCounterMode(display=False) as forward,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        ):
            output = model(latents, time, text, return_dict=False)[0]
        with FlopCounterMode(display=False) as backward:
            output.float().square().mean().backward()
    saved = sum(storage.nbytes() for storage in kept.values())
    return Step(saved, forward.get_total_flops() + attention[0], backward.get_total_flops() + attention[1])


def build(plan: ScalePlan, blocks: int | None = None) -> WanTransformer3DModel:
    """The model on the meta device, with its adapters if it gets any; what is trained requires gradients."""
    arguments = dict(plan.model) | ({} if blocks is None else {"num_layers": blocks})
    with torch.device("meta"):
        model = WanTransformer3DModel(**arguments)
        if plan.train == "lora":
            add_lora(model, plan.rank)
    return model


def shard(parameters: Iterable[nn.Parameter], devices: int) -> int:
    """Elements on each device: FSDP2 cuts the first dimension into equal parts and pads the last."""
    return sum(-(-each.shape[0] // devices) * each[0].numel() if each.ndim else 1 for each in parameters)


def estimate(plan: ScalePlan) -> tuple[dict[str, int], list[Estimate]]:
    """Parameters (all and trained) and operations of a step, and what each number of devices would need."""
    model = build(plan)
    blocks = len(model.blocks)
    step = measure_step(plan, 1)
    more = measure_step(plan, 2)
    whole = step.with_blocks(more, blocks)
    inner = more.saved - step.saved
    saved, operations = whole.saved, whole.forward + whole.backward
    if plan.checkpointing:
        tokens = plan.latents[0] * plan.latents[1] * plan.latents[2] // math.prod(model.config["patch_size"])
        inputs = (
            2 * plan.batch * tokens * model.config["num_attention_heads"] * model.config["attention_head_dim"]
        )
        saved = step.saved - inner + blocks * inputs + inner
        operations += blocks * (more.forward - step.forward)
    trained = [each for each in model.parameters() if each.requires_grad]
    frozen = [each for each in model.parameters() if not each.requires_grad]
    block = sum(each.numel() for each in model.blocks[0].parameters())
    block_trained = sum(each.numel() for each in model.blocks[0].parameters() if each.requires_grad)
    everything = sum(each.numel() for each in model.parameters())
    outside = everything - blocks * block
    found = []
    for devices in plan.devices:
        own = shard(trained, devices)
        memory = {
            "weights": 4 * own + 2 * shard(frozen, devices),
            "gradients": 4 * own,
            "optimiser": math.ceil(OPTIMIZER_BYTES[plan.optimizer] * own),
            "average": 4 * own if plan.ema else 0,
            # Two blocks, the one that computes and the one that is being gathered, and all outside the blocks.
            "gathered": 2 * (min(2, blocks) * block + outside),
            "reduced": 4 * block_trained,
            "activations": saved,
        }
        moved = (2 * 2 * everything + 4 * sum(each.numel() for each in trained)) * (devices - 1) / devices
        compute = operations / (plan.peak * plan.share)
        found.append(
            Estimate(
                devices, memory, compute, moved / (plan.inside if devices <= plan.node else plan.between)
            )
        )
    counts = {
        "parameters": everything,
        "trained": sum(each.numel() for each in trained),
        "operations": operations,
    }
    return counts, found


def report(plan: ScalePlan) -> str:
    """The estimate as a table, assumptions first."""
    counts, found = estimate(plan)
    kept = "block inputs kept, blocks computed again" if plan.checkpointing else "all activations kept"
    gathering = [f"{each.communication:.2f}" for each in found]
    hidden = [", hidden" if each.communication < each.compute else "" for each in found]
    lines = [
        f"{counts['parameters']:,} parameters, {counts['trained']:,} of them trained ({plan.train}); "
        f"{counts['operations'] / 1e15:.3f} PFLOP a step and device at batch {plan.batch}; {kept}",
        f"assumed: {plan.share:.0%} of {plan.peak / 1e12:.0f} TFLOP/s; links of {plan.inside / 1e9:.0f} GB/s in a "
        f"node of {plan.node}, {plan.between / 1e9:.0f} between; bfloat16 products, float32 weights of what is trained",
        "",
        "bytes on each device".ljust(24) + "".join(f"{f'{each.devices} device(s)':>20}" for each in found),
    ]
    lines += [
        name.ljust(24) + "".join(f"{each.memory[name]:>20,}" for each in found) for name in found[0].memory
    ]
    rows = {
        "in all": [f"{each.total:,}" for each in found],
        "in all, GiB": [f"{each.total / GIB:.1f}" for each in found],
        f"fits {plan.device_memory:g} GiB (90 %)": [
            "yes" if each.total <= 0.9 * plan.device_memory * GIB else "no" for each in found
        ],
        "seconds a step": [f"{each.seconds:.2f}" for each in found],
        "  of them gathering": [time + word for time, word in zip(gathering, hidden, strict=True)],
        f"{plan.samples:,} films, hours": [
            f"{plan.samples / (each.devices * plan.batch) * each.seconds / 3600:,.1f}" for each in found
        ],
        "device hours": [f"{plan.samples / plan.batch * each.seconds / 3600:,.0f}" for each in found],
    }
    lines += [name.ljust(24) + "".join(f"{cell:>20}" for cell in cells) for name, cells in rows.items()]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Print the plan of a file, with KEY=VALUE in place of its settings."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        print(report(from_dict(ScalePlan, apply_overrides(load_yaml(words[0]), words[1:]))))
    except UserError as error:
        print(f"unireel: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
