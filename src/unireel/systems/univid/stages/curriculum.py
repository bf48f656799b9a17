"""What is trained when, and how much of each view of a picture reaches the decoder: the paper's text as code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unireel.systems.univid.connector import WHOLE, Mix

Part = Literal["connector", "lora", "vit", "merger"]
PARTS: tuple[Part, ...] = ("connector", "lora", "vit", "merger")
"""What any stage trains.

"connector" is the paper's adapter between the two models (its "context projector"), "lora" are adapters on the
decoder's attention, "vit" the last blocks of the understanding model's ViT, and "merger" what the paper's stage II
calls the connector: the layers from the ViT to the language model. Language models, autoencoders, text encoders and
the decoder itself are always frozen.
"""

STAGE_ONE: tuple[Part, ...] = ("connector", "lora")
"""A.3: "optimizing only the context projector and LoRA parameters"; "all other DiT/MLLM weights remain frozen"."""

STAGE_TWO: tuple[Part, ...] = ("vit", "merger")
"""A.3: "only the last two ViT blocks and the connector", "keeping the LLM frozen"."""

Phase = Literal["semantic", "mixing", "joint"]
PHASES: tuple[Phase, ...] = ("semantic", "mixing", "joint")

STAGE_THREE: dict[Phase, tuple[Part, ...]] = {
    "semantic": ("vit", "merger"),
    "mixing": ("connector", "lora"),
    "joint": PARTS,
}
"""A.3: first "only the last few ViT layers and connector are trainable and the adapter is frozen"; "next, we freeze the
ViT and progressively introduce VAE features into the adapter input, enabling the DiT LoRA"; "finally, we co-train both
the ViT layers, connector, adapter and DiT". The adapter learns in the second phase, too: what reads VAE features would
otherwise stay as it was before there were any."""

LAST_BLOCKS = 2


@dataclass(frozen=True)
class Curriculum:
    """Stage III's phases.

    Attributes:
        batches: micro-batches of the whole training.
        semantic, mixing: shares of them in the first two phases; the rest is joint.
    """

    batches: int = 3000
    semantic: float = 0.25
    mixing: float = 0.35

    def __post_init__(self) -> None:
        if self.batches < 1 or min(self.semantic, self.mixing) < 0 or self.semantic + self.mixing > 1:
            raise ValueError(
                f"batches={self.batches}, semantic={self.semantic}, mixing={self.mixing}: "
                "at least 1, and shares that are not negative and together at most 1"
            )

    def phase(self, index: int) -> Phase:
        """The phase of micro-batch ``index``."""
        done = index / self.batches
        return (
            "semantic"
            if done < self.semantic
            else "mixing"
            if done < self.semantic + self.mixing
            else "joint"
        )

    def mix(self, index: int, draw: float) -> Mix:
        """How the views are mixed in micro-batch ``index``: by ViT alone, then towards the VAE, then both whole.

        Args:
            draw: uniform in [0, 1]: while mixing, the VAE's share is this share of the most there is yet, which grows
                from 0 to 1, and the ViT's is what is left, so that the decoder learns all ratios.
        """
        match self.phase(index):
            case "semantic":
                return Mix(vit=1.0, vae=0.0)
            case "mixing":
                most = (index / self.batches - self.semantic) / self.mixing
                return Mix(vit=1 - draw * most, vae=draw * most)
        return WHOLE
