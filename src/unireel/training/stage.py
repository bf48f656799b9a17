"""What one training objective is: modules, batches, a loss. Everything else is the trainer's."""

import abc
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from unireel.data.features import Source


@dataclass(frozen=True)
class ParameterRule:
    """How the parameters whose dotted name within ``stage.module`` matches a pattern are optimised.

    Attributes:
        pattern: shell-style pattern, for example ``"text_encoder.*"``; the first rule that matches wins.
        lr: multiplier on the recipe's learning rate; 0 freezes.
        weight_decay: whether the recipe's weight decay applies; ``None`` leaves the usual choice (matrices
            and convolution kernels yes; biases, norms, embeddings and other 1-D parameters no).
        muon: whether ``optimizer.name: muon`` may take them; ``None`` leaves the usual choice (hidden
            matrices yes).
    """

    pattern: str
    lr: float = 1.0
    weight_decay: bool | None = None
    muon: bool | None = None


class Stage(abc.ABC):
    """One training objective: what is trained, on which batches, with which loss.

    The trainer seeds every random generator with ``recipe.seed`` before it builds the stage, so that
    construction is deterministic. Attributes a subclass sets:

    - ``config_class``: frozen dataclass, filled strictly from the recipe's ``stage_config``.
    - ``module``: everything that is trained or whose weights a checkpoint must hold. Parameters with
      ``requires_grad=False`` are left alone. Frozen helpers live elsewhere on the stage.
    - ``samples_per_batch``: samples in one micro-batch, for the throughput that is shown; ``None`` if it
      varies.
    - ``forward_methods``: methods of the trained modules other than ``forward`` that ``loss`` calls; sharded
      training must know them to gather weights before they run.
    - ``plans_on_meta``: whether a plan builds it on the meta device, for models too large to be built just to be
      counted.
    """

    config_class: ClassVar[type]
    module: nn.Module
    samples_per_batch: int | None = None
    forward_methods: tuple[str, ...] = ("encode", "decode", "get_image_features", "get_text_features")

    plans_on_meta: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config
        self.device = torch.device("cpu")

    @abc.abstractmethod
    def batch(self, index: int) -> Any:
        """Micro-batch number ``index`` (over all processes): nested tuples, lists, dicts of CPU tensors.

        A pure function of ``index``: it may be called in another thread or process, out of order and again
        after a resume, and must neither use nor move any global random state.
        """

    @abc.abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Scalar loss of a micro-batch on ``self.device``, and scalars to log. Runs under autocast.

        May draw from torch's global generators, whose states are part of every checkpoint.
        """

    def parameter_groups(self) -> Iterable[ParameterRule]:
        """Exceptions to the recipe's learning rate and weight decay; none by default."""
        return ()

    def sequence_models(self) -> list[nn.Module]:
        """Models whose tokens may be split over processes, frozen ones included; by default those in ``module``."""
        return [each for each in self.module.modules() if getattr(each, "_cp_plan", None)]

    @classmethod
    def features(cls, config: Any) -> "tuple[Path, Source] | None":
        """Where features of its data are cached and what they are made of, without building the stage; None if not."""
        return None

    def report(self) -> list[str]:
        """Lines about the data that are shown before training starts; none by default."""
        return []

    def samples(self) -> dict[str, np.ndarray]:
        """Pictures ``(H, W, 3)`` uint8 to look at, by name; called with the averaged weights in place."""
        return {}

    def evaluate(self) -> dict[str, float]:
        """Metrics by name; called with the averaged (EMA) weights in place."""
        return {}

    @abc.abstractmethod
    def export(self, folder: Path) -> None:
        """Write ordinary diffusers/transformers folders under ``folder``; averaged weights are in place."""

    def to(self, device: torch.device) -> None:
        """Move the module and every frozen helper that is an ``nn.Module`` attribute of the stage."""
        self.device = device
        self.module.to(device)
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                value.to(device)

    def compile(self) -> None:
        """Compile in place: repeated blocks where a model names them, else the module and its children."""
        names = {name for m in self.module.modules() for name in (getattr(m, "_repeated_blocks", None) or ())}
        targets = [m for m in self.module.modules() if type(m).__name__ in names]
        for target in targets or [self.module, *self.module.children()]:
            target.compile()


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once, under their first name."""
    kept = module.state_dict().keys()
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    tensors.update({name: buffer for name, buffer in module.named_buffers() if name in kept})
    return tensors


def move(batch: Any, device: torch.device) -> Any:
    """The same nested structure with every tensor on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move(value, device) for value in batch)
    return batch


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """``eval()`` and no gradients inside; afterwards each submodule has the mode it had."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, mode in modes:
            m.training = mode
