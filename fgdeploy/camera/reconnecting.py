"""A source that comes back: a watchdog for reads that hang, and reconnecting with back-off."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fgdeploy.camera.back_off import BackOff
from fgdeploy.camera.capture_source import (
    BrokenFrame,
    Captured,
    CaptureSource,
    StreamBroken,
    StreamEnded,
)
from fgdeploy.camera.reading_thread import Hangs, ReadingThread
from fgdeploy.core.text import counted
from fgdeploy.live.events import tell
from fgdeploy.live.handover import Ended

_AT_CLOSE = 0.2  # seconds that closing waits for a read that runs


@dataclass(frozen=True)
class Patience:
    """grace_s: seconds beyond a source's own limit after which its thread counts as hanging.

    broken_in_a_row: damaged frames after which a stream that lasts is opened anew.
    most_hanging: threads that may hang at once; until one ends no other is started.
    at_start: whether the first opening may fail and is tried again, as after a break, or raises.
    """

    back_off: BackOff = field(default_factory=BackOff)
    grace_s: float = 5.0
    broken_in_a_row: int = 300
    most_hanging: int = 4
    at_start: bool = False


class Reconnecting(CaptureSource):
    """Reads a source in a thread of its own; one that lasts is opened anew when it breaks off.

    `read` then waits until frames come again, told as the events `stream_broken` and `reconnected`.
    A BrokenFrame is counted and passed on. A source that does not last ends for good. `close`, from
    any thread, ends a read or a wait at once. broken, reconnects, hung: how often so far.
    """

    def __init__(
        self,
        source: CaptureSource,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.live, self.lasts = source.live, source.lasts
        self.patience = patience or Patience()
        self.broken = self.reconnects = self.hung = 0
        self._source = source
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._chance = chance or random.Random()
        self._lock = threading.Lock()
        self._thread: ReadingThread | None = None
        self._hanging: list[ReadingThread] = []
        self._in_a_row = 0
        self._down_since: float | None = None
        self._attempts = 0

    def open(self) -> None:
        """Open the source. Raises StreamBroken, if `patience.at_start` does not hold."""
        try:
            self._start()
        except StreamBroken as error:
            if not (self.lasts and self.patience.at_start):
                raise
            self._went_down(error)

    def read(self) -> Captured:
        """Return the next frame, when there is one.

        Raises BrokenFrame; StreamEnded when it is closed; StreamEnded or StreamBroken of a source
        that does not last.
        """
        if self._closed.is_set() or (self._thread is None and self._down_since is None):
            raise self._ended()
        while True:
            try:
                thread = self._thread
                if thread is None:
                    self._come_back()
                    continue
                captured = self._ask(thread, thread.source.read)
            except BrokenFrame as error:
                self._count_broken(error)
                raise
            except StreamBroken as error:
                if not self.lasts or self._closed.is_set():
                    raise
                self._went_down(error)
            else:
                self._came_back()
                return captured

    def close(self) -> None:
        """End it at once; a thread that hangs is left behind, and ends by itself."""
        self._closed.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.dismiss()
            thread.join(_AT_CLOSE)

    def interrupt(self) -> None:
        """Close it."""
        self.close()

    def describe(self) -> str:
        """Return what the source is."""
        return self._source.describe()

    @property
    def hanging(self) -> int:
        """How many threads were left behind and hang still."""
        self._hanging = [thread for thread in self._hanging if thread.lives]
        return len(self._hanging)

    def _start(self) -> None:
        """Open the source in a new thread. Raises StreamBroken, and StreamEnded if closed."""
        with self._lock:
            if self._closed.is_set():
                raise self._ended()
            thread = self._thread = ReadingThread(self._source)
        try:
            self._ask(thread, self._source.open)
        except BaseException:
            self._dismiss()
            raise

    def _ask(self, thread: ReadingThread, call: Callable[[], Captured | None]) -> Captured:
        longest = thread.source.longest
        seconds = None if longest is None else longest + self.patience.grace_s
        try:
            return thread.ask(call, seconds)  # type: ignore[return-value]
        except Ended:
            raise self._ended() from None
        except Hangs:
            self.hung += 1
            self._hanging.append(thread)
            tell("reader_hangs", logging.WARNING, source=self.describe(), seconds=seconds)
            raise StreamBroken(
                f"{self.describe()} hangs: no answer for {seconds:g} s; check the camera"
            ) from None

    def _went_down(self, error: StreamBroken) -> None:
        self._dismiss()
        self._in_a_row = 0
        if self._down_since is None:
            self._down_since, self._attempts = self._clock(), 0
            name = self.describe()
            tell("stream_broken", logging.WARNING, source=name, error=str(error))
        else:
            tell("reconnect_failed", logging.DEBUG, attempts=self._attempts, error=str(error))

    def _come_back(self) -> None:
        """Wait, then try to open the source anew. Raises StreamBroken if that fails."""
        self._wait(self.patience.back_off.seconds(self._attempts, self._chance))
        if self._closed.is_set():
            raise self._ended()
        self._attempts += 1
        if self.hanging >= self.patience.most_hanging:
            raise StreamBroken(f"{counted(self.hanging, 'thread')} hang in {self.describe()}")
        self._source = self._source.again()
        self._start()

    def _came_back(self) -> None:
        """Note that a frame came: only then is a stream back."""
        self._in_a_row = 0
        if self._down_since is None:
            return
        down = self._clock() - self._down_since
        self._down_since = None
        self.reconnects += 1
        tell("reconnected", source=self.describe(), attempts=self._attempts, down_s=down)

    def _count_broken(self, error: BrokenFrame) -> None:
        self.broken += 1
        self._in_a_row += 1
        if self.lasts and self._in_a_row >= self.patience.broken_in_a_row:
            number = counted(self._in_a_row, "frame")
            self._went_down(StreamBroken(f"{number} in a row are damaged, the last: {error}"))

    def _dismiss(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.dismiss()

    def _ended(self) -> StreamEnded:
        why = "was closed" if self._closed.is_set() else "is not open; open it first"
        return StreamEnded(f"{self.describe()} {why}")
