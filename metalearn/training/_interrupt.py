"""Ctrl-C that waits for the end of an iteration."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """A context in which the first Ctrl-C only sets `came`, so that no optimizer step is torn.

    A second Ctrl-C interrupts as usual.

    Args:
        waits: Whether it does anything. Outside the main thread, where Python handles no signals,
            it never does.
    """

    def __init__(self, waits: bool) -> None:
        self.came = False
        self._waits = waits and threading.current_thread() is threading.main_thread()
        self._handler: Any = None

    def __enter__(self) -> "Interrupt":
        if self._waits:
            self._handler = signal.signal(signal.SIGINT, self._note) or signal.default_int_handler
        return self

    def __exit__(self, *_: object) -> None:
        if self._waits:
            signal.signal(signal.SIGINT, self._handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(number, self._handler)
