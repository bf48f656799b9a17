"""The process in which strangers' files are decoded: ``python -m unireel.serving.intake.sandbox DESCRIPTOR``.

It loads the decoders once and never touches a stranger's byte itself: for every file it forks a child, which puts up
its walls (:mod:`~unireel.serving.intake.walls`), decodes that one file, answers, and ends. So no file pays for starting
Python, and nothing of one file is left when the next one comes.
"""

import contextlib
import itertools
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import av
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.media.limits import AboveLimit
from unireel.media.limits import Limits as MediaLimits
from unireel.media.stills import read_still
from unireel.media.timeline import MAX_RATE
from unireel.serving.intake.containers import CONTAINERS, DECODERS
from unireel.serving.intake.walls import forbid_files, leave_network, limit_resources
from unireel.serving.intake.wire import FRAMES, READY, Answer, Ending, Request

STILL_FPS = 1.0

CODE_OF_LIMIT = {
    "max_pixels": "too_many_pixels",
    "max_frames": "too_many_frames",
    "max_duration": "too_long",
    "max_bytes": "too_large_decoded",
    "max_file_bytes": "too_many_bytes",
    "decoders": "unsupported_codec",
}
"""Codes of the catalogue for limits of the media layer."""

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of ``ru_maxrss``."""


@dataclass(frozen=True)
class Child:
    """A decoding process: where its ending is to be told, when it must be over, and what closes when it ends."""

    pid: int
    endings: socket.socket
    deadline: float
    alive: int


def main(control: socket.socket) -> None:
    """Fork a child for every request that comes over ``control``, until that closes."""
    _load_all(av)
    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # the limits of each request are stricter
    leave_network()
    children: dict[int, Child] = {}
    control.sendall(READY)
    while True:
        now = time.monotonic()
        wait = min((child.deadline - now for child in children.values()), default=None)
        ready, _, _ = select.select([control, *children], [], [], None if wait is None else max(0.0, wait))
        for alive in [alive for alive in ready if isinstance(alive, int)]:
            _bury(children.pop(alive), "done")
        for child in [child for child in children.values() if child.deadline <= time.monotonic()]:
            _bury(children.pop(child.alive), "decode_timeout")
        if control in ready:
            record, descriptors, _, _ = socket.recv_fds(control, Request.LAYOUT.size, 3)
            if len(record) < Request.LAYOUT.size:
                break
            child = _start(Request.unpack(record), *descriptors)
            children[child.alive] = child
    for child in children.values():
        os.kill(child.pid, signal.SIGKILL)


def _load_all(package: ModuleType) -> None:
    """Import all modules of ``package``, so that no child has to when it meets its first subtitle."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def _start(request: Request, media: int, answers: int, endings: int) -> Child:
    """Fork the child that decodes the file ``media`` and puts what comes of it on ``answers``."""
    alive, its_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _keep_only(media, answers, its_end)
            with socket.socket(fileno=answers) as answer:
                _answer(request, f"/dev/fd/{media}", answer)
            status = 0
        finally:
            os._exit(status)
    for descriptor in (media, answers, its_end):
        os.close(descriptor)
    return Child(pid, socket.socket(fileno=endings), time.monotonic() + request.decode_seconds, alive)


def _keep_only(*descriptors: int) -> None:
    """Close all descriptors but these and the three of every process: those of other children are not ours."""
    edges = [2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX")]
    for low, high in itertools.pairwise(edges):
        os.closerange(low + 1, high)


def _bury(child: Child, how: str) -> None:
    """End a child if it has not ended, and tell how that came about."""
    os.kill(child.pid, signal.SIGKILL)  # a process that is already ending keeps its own exit status
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.alive)
    if how == "done" and os.WIFSIGNALED(status):
        how = "decode_timeout" if os.WTERMSIG(status) == signal.SIGXCPU else "decode_failed"
    elif how == "done" and os.WEXITSTATUS(status) != 0:
        how = "decode_failed"
    with child.endings, contextlib.suppress(OSError):  # whoever asked may have gone
        child.endings.sendall(Ending(how, usage.ru_maxrss * RSS_UNIT).pack())


def _answer(request: Request, path: str, answers: socket.socket) -> None:
    """Put up the walls, decode, and send what came of it."""
    limit_resources(request.decode_memory, request.decode_seconds)
    forbid_files(readable=sys.path)
    try:
        clip = decode(request, path)
    except AboveLimit as error:
        answers.sendall(Answer(CODE_OF_LIMIT[error.limit]).pack())
    except UserError:
        answers.sendall(Answer("damaged").pack())
    except MemoryError:
        answers.sendall(Answer("too_large_decoded").pack())
    else:
        answers.sendall(Answer(FRAMES, len(clip), clip.height, clip.width, clip.fps).pack())
        answers.sendall(clip.frames.data.cast("B"))


def decode(request: Request, path: str) -> Clip:
    """The frames that are asked for of the file at ``path``.

    Raises:
        UserError: it is damaged or above the request's limits.
    """
    demuxer = CONTAINERS[request.container].demuxer
    limits = MediaLimits(
        max_pixels=request.max_pixels,
        max_frames=request.max_frames,
        max_duration=request.max_seconds,
        max_bytes=max(1, request.decode_memory // 2),
        max_file_bytes=request.max_bytes,
        container=demuxer,
        decoders=DECODERS,
    )
    size = (request.height, request.width) if request.height and request.width else None
    if demuxer is None:
        clip = Clip(read_still(Path(path), limits)[None], STILL_FPS)
        return clip.resized(*size) if size else clip
    clip = Clip.load(path, num_frames=request.num_frames or None, size=size, limits=limits, on_damage="error")
    if clip.fps > MAX_RATE:
        raise UserError(f"{clip.fps:g} frames a second: not a true film")
    return clip


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
