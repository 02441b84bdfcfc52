"""How a run hears that it should stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a scheduler's request, a closed terminal; the last is unknown on Windows."""


class Signals:
    """While it stands, the first signal asks to stop; a second one acts as ever.

    A signal that is ignored (SIGHUP under nohup, SIGINT in the background) stays ignored. Off the
    main thread, where Python takes no handlers, nothing is heard.

    Args:
        stop: called once, with the signal's number.
    """

    def __init__(self, stop: Callable[[int], None]) -> None:
        self.stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self.stop(number)
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *fault: object) -> None:
        self._restore()
