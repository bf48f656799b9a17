"""Checkpoints of which every process writes its own part, in the background (torch's asynchronous DCP).

A folder like those of :mod:`unireel.training.checkpoint`, with one safetensors file of shards a process in place of
whole tensors, named ``model/...``, ``ema/...`` and ``optimizer/...``. It can be read by any number of processes.
"""

# Modules of torch are typed too loosely for these rules.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training.distributed import Parallel


class Writer:
    """Writes checkpoints of a run, one at a time, while training goes on; every process has one and calls it alike."""

    def __init__(self, folder: Path, parallel: Parallel, keep_last: int) -> None:
        self.folder, self.parallel, self.keep_last = folder, parallel, keep_last
        # Threads of their own talk here, beside those of training.
        self._group = dist.new_group(backend="gloo") if parallel.world > 1 else None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        if self._group is None:  # DCP says so at every checkpoint, from a thread of its own
            warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninit")

    def start(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any]) -> Path:
        """Copy ``tensors`` (file stem to name to whole tensor or ``DTensor``) and begin to write; returns its folder.

        Waits for the checkpoint before it, if that is not done yet.

        Raises:
            UserError: the one before could not be written, or this one cannot be begun.
        """
        self.finish()
        final = checkpoints.folder_of(self.folder, step)
        aside = checkpoints.aside_of(final)
        problem = checkpoints.make_aside(aside) if self.parallel.first else None
        if problem := self.parallel.first_says(problem):
            raise UserError(problem)
        flat = {f"{stem}/{name}": each for stem, named in tensors.items() for name, each in named.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.distributed\.")  # notes for its own developers
            written = dcp.async_save(
                flat,
                storage_writer=dcp.HuggingFaceStorageWriter(str(aside), save_distributed=True),
                process_group=self._group,
                no_dist=self._group is None,
            )
        complete = self._completion(written, aside, final, {**state, "step": step})
        self._thread = threading.Thread(target=complete, name="unireel-checkpoint", daemon=True)
        self._thread.start()
        return final

    def finish(self) -> None:
        """Wait until what was begun is there whole.

        Raises:
            UserError: it could not be written; older checkpoints are untouched.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, failure, self._failure = None, self._failure, None
        failed = self.parallel.gather(None if failure is None else _reason(failure))
        for reason in filter(None, failed):
            raise UserError(f"cannot write a checkpoint under '{self.folder}': {reason}") from failure

    def _completion(
        self, written: Any, aside: Path, final: Path, state: dict[str, Any]
    ) -> Callable[[], None]:
        def complete() -> None:
            try:
                written.result()
                # Files are numbered from 1 on; each process describes its own.
                files = checkpoints.describe(aside.glob(f"shard-{self.parallel.rank + 1:05d}-*"))
                everyone = [files] * self.parallel.world
                if self._group is not None:
                    dist.all_gather_object(everyone, files, group=self._group)
                if self.parallel.first:
                    described = {name: entry for each in everyone for name, entry in each.items()}
                    checkpoints.finish(aside, final, state, described, self.keep_last)
                if self._group is not None:
                    dist.barrier(group=self._group)  # done is what all can read
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
                self._failure = error

        return complete


def _reason(error: BaseException) -> str:
    causes = list(getattr(error, "failures", {}).values())  # of DCP: by process, the error with its traceback
    cause = causes[0][0] if causes else error
    return (getattr(cause, "strerror", None) or str(cause).strip() or type(cause).__name__).splitlines()[0]
