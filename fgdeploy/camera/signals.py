"""SIGTERM and Ctrl-C end a camera in order: what was begun is finished, the gallery committed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

from fgdeploy.core.closing import Closing
from fgdeploy.live.events import tell

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class EndBySignal(Closing):
    """Within its block the first SIGTERM or Ctrl-C calls `close`, and a second ends the process.

    `close` (such as a camera's) runs in a thread of its own, so the loop of the main thread comes
    to its ordinary end: the item that it is writing is written. A process that was asked to end and
    ended so has done what was asked: it exits with 0, as service managers and containers expect.
    After a second signal it dies of it at once, which shells show as 130 or 143. Only the main
    thread may enter the block. received: the first signal's number, None before it.
    """

    def __init__(self, close: Callable[[], object]) -> None:
        self.received: int | None = None
        self._close = close
        # Only such a queue may be filled by a signal's handler, whatever the main thread does then
        self._told: SimpleQueue[int | None] = SimpleQueue()
        self._before: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._wait, name="end by signal", daemon=True)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._thread.start()

    def close(self) -> None:
        """Give the signals back to those who had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._told.put(None)
        self._thread.join()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = number
        self._told.put(number)

    def _wait(self) -> None:
        number = self._told.get()
        if number is not None:
            tell("asked_to_end", signal=signal.Signals(number).name)
            self._close()
