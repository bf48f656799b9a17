"""Ctrl-C and SIGTERM as a wish to stop after the current step."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignal:
    """Context in which SIGINT and SIGTERM only raise a flag; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        # Python delivers signals to the main thread alone; elsewhere the caller's own handling stays.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.raised = True
