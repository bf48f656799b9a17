"""What training a model of two streams needs: memory on each device and operations of a step, by counting."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unireel.backbones.uni_wan import UniWanTransformer
from unireel.training.plan_scale import shard

GIB = 2**30
DEVICES = (1, 8, 16)
PEAK, SHARE = 989e12, 0.4
"""Operations a second of an H100 in bfloat16, and the part of them that a step is assumed to reach."""


@dataclass(frozen=True)
class Sizing:
    """Sizes of a training in numbers.

    Attributes:
        film_rows, text_rows, context_rows: N, L and rows of the condition.
        parameters, of_text: of the transformer, and of its text half alone.
        frozen: of the models that help, in bfloat16.
        shares: trained parameters on each of :data:`DEVICES`.
        forward: operations of the blocks and heads, forwards, for a batch.
        kept: bytes of the blocks' inputs.
        checkpointing: whether these are all that is kept of blocks.
    """

    film_rows: int
    text_rows: int
    context_rows: int
    parameters: int
    of_text: int
    frozen: int
    shares: tuple[int, ...]
    forward: int
    kept: int
    checkpointing: bool

    @classmethod
    def of(
        cls,
        model: UniWanTransformer,
        frozen: Sequence[nn.Module],
        latents: tuple[int, int, int],
        text_rows: int,
        context_rows: int,
        batch: int,
        checkpointing: bool,
    ) -> Sizing:
        """Count ``model`` (the meta device will do) on films of ``latents`` (T, h, w)."""
        film = math.prod(latents) // math.prod(model.config["patch_size"])
        width = model.config["num_attention_heads"] * model.config["attention_head_dim"]
        layers = model.config["num_layers"]
        named = dict(model.named_parameters())
        own = [each for name, each in named.items() if is_of_text(name)]
        return cls(
            film,
            text_rows,
            context_rows,
            sum(each.numel() for each in named.values()),
            sum(each.numel() for each in own),
            sum(each.numel() for module in frozen for each in module.parameters()),
            tuple(shard(named.values(), count) for count in DEVICES),
            batch * operations(model, film, text_rows, context_rows),
            2 * batch * (film + text_rows) * width * layers,
            checkpointing,
        )

    @property
    def step(self) -> int:
        """Operations of a step and device: backwards costs twice the way forwards, which checkpointing goes again."""
        return (4 if self.checkpointing else 3) * self.forward

    def lines(self) -> list[str]:
        """The numbers as lines of a plan."""
        own, again = self.of_text / 1e9, " (blocks are computed again)" if self.checkpointing else ""
        lines = [
            f"two-stream model: {self.parameters / 1e9:.3f} B parameters, {own:.3f} B of them text's own; "
            f"text encoder and autoencoder: {self.frozen / 1e9:.3f} B",
            f"{self.film_rows} rows of film, {self.text_rows} of text, {self.context_rows} of the condition",
            f"a step: {self.step / 1e15:.2f} PFLOP on each device{again}, {self.step / (PEAK * SHARE):.1f} s "
            f"at {SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s",
        ]
        kept = (
            "the blocks' inputs, and one block's inside"
            if self.checkpointing
            else "the blocks' inputs and insides"
        )
        for devices, own in zip(DEVICES, self.shares, strict=True):
            # Weight, gradient, two moments and the average in float32; what is frozen is on every device.
            parts = {"trained (AdamW, average)": 20 * own, "frozen": 2 * self.frozen, kept: self.kept}
            said = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
            lines.append(
                f"GiB on each of {devices} device(s): {sum(parts.values()) / GIB:.1f} and more: {said}"
            )
        return lines


def is_of_text(name: str) -> bool:
    """Whether a parameter of the transformer belongs to the text stream alone."""
    return name.startswith(("text", "slot_embedding")) or ".ffn_t." in name or name.endswith("_table_t")


def operations(model: UniWanTransformer, film: int, text: int, context: int) -> int:
    """Operations (a product and a sum are two) of one film and one text forwards, matrix products alone.

    Args:
        film, text, context: rows.
    """
    config = model.config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    rows = film + text
    linear = (
        4 * rows * width**2 + 2 * rows * width**2 + 2 * context * width**2
    )  # self; cross: own and condition
    linear += 2 * rows * width * config["ffn_dim"]  # each stream's own layer, on its own rows
    attention = 2 * rows * rows * width + 2 * rows * context * width
    patch = math.prod(config["patch_size"])
    ends = film * width * patch * (config["in_channels"] + config["out_channels"])
    head = config["code_width"] if config["text_output"] == "velocity" else config["text_vocabulary"]
    ends += text * width * head + context * (config["text_dim"] * width + width**2)
    return 2 * (config["num_layers"] * (linear + attention) + ends)
