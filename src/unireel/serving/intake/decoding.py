"""Decoding strangers' films and pictures in processes that are walled in, and checking what comes back."""

import atexit
import contextlib
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import numpy as np

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.media.timeline import MAX_RATE
from unireel.serving.intake.containers import CONTAINERS, HEAD, Container, Kind, recognise
from unireel.serving.intake.limits import Limits
from unireel.serving.intake.refusals import refusal
from unireel.serving.intake.wire import FRAMES, READY, Answer, Ending, Request, WireError

GRACE = 5.0
"""Seconds beyond a file's own time after which the decoding processes are given up and started anew."""

START_SECONDS = 300.0
"""Seconds in which the decoding processes must have loaded their libraries; no file's time is spent on that."""

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""What the decoding processes inherit: no keys, no proxies."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Decoder:
    """Decodes files, each in a process of its own; may be used from several threads.

    The first use starts the process that the others are forked from (a second or so; :meth:`start` does it before);
    it ends with :meth:`close`, or with this process, however that ends.

    Args:
        at_once: files that are decoded at the same time; more wait for their turn.

    Attributes:
        peak: bytes that the largest decoding process so far had resident, the program itself included.
    """

    def __init__(self, at_once: int = 2) -> None:
        if at_once < 1:
            raise UsageError(f"at_once={at_once}: at least 1")
        self.peak = 0
        self._turns = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the process that the decoding ones are forked from, if it is not there."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End it, and whatever is being decoded. What is being started is not waited for."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def read(
        self,
        source: bytes,
        limits: Limits,
        kind: Kind = "video",
        *,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> Clip:
        """As :func:`read_media`."""
        container = _accepted(source, limits, kind)
        _check_sampling(num_frames, size)
        height, width = size or (0, 0)
        request = Request(
            container=CONTAINERS.index(container),
            num_frames=1 if kind == "image" else num_frames or 0,
            height=height,
            width=width,
            max_bytes=limits.max_bytes,
            max_pixels=limits.max_pixels,
            max_frames=limits.max_frames,
            max_seconds=float(limits.max_seconds),
            decode_seconds=float(limits.decode_seconds),
            decode_memory=limits.decode_memory,
        )
        with self._turns, _file_without_name(source) as file:
            outcome, peak = self._ask(request, file, limits)
        self.peak = max(self.peak, peak)
        if isinstance(outcome, str):
            raise refusal(outcome, limits)
        return outcome

    def _ask(self, request: Request, file: int, limits: Limits) -> tuple[Clip | str, int]:
        seconds = limits.decode_seconds + GRACE
        try:
            try:
                return self._exchange(request, file, seconds)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                self.close()  # the process has ended since the last file; a new one gets this one
                return self._exchange(request, file, seconds)
        except TimeoutError:
            self.close()  # the processes do not even keep their own time
            raise refusal("decode_timeout", limits) from None
        except OSError:
            raise refusal("decode_failed", limits) from None

    def _exchange(self, request: Request, file: int, seconds: float) -> tuple[Clip | str, int]:
        """Hand a request over and receive the answer. Raises ``OSError`` if nobody took it."""
        answers, its_answers = socket.socketpair()
        endings, its_endings = socket.socketpair()
        with answers, endings:
            with its_answers, its_endings, self._lock:
                descriptors = [file, its_answers.fileno(), its_endings.fileno()]
                socket.send_fds(self._started(), [request.pack()], descriptors)
            return _receive(answers, endings, request, time.monotonic() + seconds)

    def _started(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._end()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "unireel.serving.intake.sandbox", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=os.path.abspath(os.sep),
                env=_environment(),
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(START_SECONDS)
        if ours.recv(len(READY)) != READY:
            raise ConnectionResetError
        ours.settimeout(None)
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            # The whole session: also children that were forked and not yet buried.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
        self._control = self._process = None


def _environment() -> dict[str, str]:
    """What the decoding processes find in their environment; one malloc arena, as each reserves 64 MiB."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | _ONE_THREAD | {"MALLOC_ARENA_MAX": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _accepted(source: bytes, limits: Limits, kind: Kind) -> Container:
    """The kind of file that ``source`` is; refuses what is too large or not what is wanted."""
    if kind not in ("video", "image", "any"):
        raise UsageError(f"kind={kind!r}: choose 'video', 'image' or 'any'")
    if not source:
        raise refusal("empty", limits)
    if len(source) > limits.max_bytes:
        raise refusal("too_many_bytes", limits)
    container = recognise(bytes(source[:HEAD]))
    if container is None:
        raise refusal("unknown_format", limits)
    if kind == "video" and not container.film:
        raise refusal("not_a_video", limits)
    if kind == "image" and not container.picture:
        raise refusal("not_an_image", limits)
    return container


def _check_sampling(num_frames: int | None, size: tuple[int, int] | None) -> None:
    if num_frames is not None and not 1 <= num_frames < 2**31:
        raise UsageError(f"num_frames={num_frames}: at least 1")
    if size is not None and not all(1 <= side < 2**31 for side in size):
        raise UsageError(f"size={size}: (height, width), at least 1 each")


@contextlib.contextmanager
def _file_without_name(content: bytes) -> Iterator[int]:
    """Descriptor of a file that holds ``content`` and has no name in any folder."""
    in_memory = hasattr(os, "memfd_create")
    with open(os.memfd_create("intake"), "wb") if in_memory else tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.fileno()


def _receive(
    answers: socket.socket, endings: socket.socket, request: Request, deadline: float
) -> tuple[Clip | str, int]:
    """Read and check what comes of a request; see :mod:`~unireel.serving.intake.wire`.

    Returns:
        The film, or the code of the catalogue for which it is refused; and the process's largest resident bytes.

    Raises:
        TimeoutError: ``deadline`` is over.
        OSError: nobody took the request.
    """
    try:
        with answers:  # a process that still writes when we have read enough is stopped by that
            outcome = _outcome(answers, request, deadline)
    except WireError:
        outcome = "decode_failed"
    try:
        ending = Ending.unpack(_exactly(endings, Ending.LAYOUT.size, deadline))
    except WireError:
        raise ConnectionResetError from None
    return (outcome if ending.how == "done" else ending.how), ending.peak


def _outcome(answers: socket.socket, request: Request, deadline: float) -> Clip | str:
    """What the decoding process itself says. Raises :class:`WireError` if that is not to be believed."""
    answer = Answer.unpack(_exactly(answers, Answer.LAYOUT.size, deadline))
    if answer.code != FRAMES:
        return answer.code
    _check_shape(answer, request)
    shape = (answer.frames, answer.height, answer.width, 3)
    pixels = np.frombuffer(_exactly(answers, math.prod(shape), deadline), dtype=np.uint8)
    return Clip(pixels.reshape(shape), answer.fps)


def _check_shape(answer: Answer, request: Request) -> None:
    """Refuse to believe in frames that the request does not allow, before room is made for them."""
    area = answer.height * answer.width
    asked = request.height * request.width
    if (
        not 1 <= answer.frames <= request.max_frames
        or not 1 <= area <= max(request.max_pixels, asked)
        or answer.frames * area * 3 > max(request.decode_memory // 2, 3)
        or not (math.isfinite(answer.fps) and 0 < answer.fps <= MAX_RATE)
    ):
        raise WireError


def _exactly(answers: socket.socket, count: int, deadline: float) -> bytearray:
    """The next ``count`` bytes. Raises :class:`WireError` if there are fewer, ``TimeoutError`` after ``deadline``."""
    content = bytearray(count)
    rest = memoryview(content)
    while rest:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        answers.settimeout(left)
        received = answers.recv_into(rest)
        if received == 0:
            raise WireError
        rest = rest[received:]
    return content


_decoder = Decoder()
atexit.register(_decoder.close)


def read_media(
    source: bytes,
    limits: Limits,
    kind: Kind = "video",
    *,
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
) -> Clip:
    """Decode a stranger's film or picture, in a process of its own behind walls.

    Blocks until done: call it in a thread. Two files are decoded at a time.

    Args:
        source: the file.
        limits: what it may cost.
        kind: ``"video"``, ``"image"`` (one frame), or ``"any"``; a picture has 1 frame a second.
        num_frames: frames to take of a film, evenly spread (all by default). A long film costs little memory then.
        size: (height, width) to resize to while decoding (as it is by default).

    Raises:
        IntakeError: it is refused; see :data:`~unireel.serving.intake.refusals.CATALOGUE`.
        UsageError: an unknown ``kind``, or ``num_frames`` or ``size`` below 1.
    """
    return _decoder.read(source, limits, kind, num_frames=num_frames, size=size)
