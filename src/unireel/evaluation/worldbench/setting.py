"""The setting of an evaluation: what its scenes, prompts and noise are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from unireel.world.sampling import MIXTURE, sample_scene
from unireel.world.scene import Scene, stable_hash

SPLITS = ("test", "compositional")


@dataclass(frozen=True)
class Setting:
    """Everything that decides the items of an evaluation and how films are sampled.

    Attributes:
        split: one of :data:`SPLITS`.
        seed: of scenes, wording and noise.
        size: side of the model's films in pixels (32, 48 or 64).
        steps, guidance: of the sampler; None leaves them to the model.
        batch: films made at once.
        best_of: films made of each prompt, of which the model keeps the one that it believes in.
    """

    split: str
    seed: int
    size: int
    steps: int | None = None
    guidance: float | None = None
    batch: int = 16
    best_of: int = 1

    def scene(self, part: str, index: int, category: str = MIXTURE, still: bool = False) -> Scene:
        """Scene number ``index`` of a part. Every part has a sequence of its own, so that figures are independent."""
        stream = stable_hash(f"worldbench/{self.seed}/{part}") % 2**31
        return sample_scene(stream, index, self.split, category, self.size, still)

    def item_seed(self, part: str, index: int) -> int:
        """The seed of an item's wording and noise, in [0, 2**31)."""
        return stable_hash(f"worldbench/{self.seed}/{part}/{index}") % 2**31
