"""A thread of its own for one source, which can be left behind when it hangs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fgdeploy.camera.capture_source import CaptureSource
from fgdeploy.live.handover import Ended, Handover

_Answer = TypeVar("_Answer")


class Hangs(Exception):
    """What the thread was asked for did not come in time."""


class ReadingThread:
    """Opens, reads and closes a source, one call at a time, in a daemon thread.

    It closes the source when it is dismissed, or as soon as a call that hangs comes back.
    """

    def __init__(self, source: CaptureSource) -> None:
        self.source = source
        self._calls: Handover[Callable[[], Any]] = Handover(1, newest=False)
        self._answers: Handover[tuple[Any, BaseException | None]] = Handover(1, newest=False)
        self._thread = threading.Thread(target=self._work, name="camera reading", daemon=True)
        self._thread.start()

    @property
    def lives(self) -> bool:
        """Tell whether the thread has not come to its end."""
        return self._thread.is_alive()

    def ask(self, call: Callable[[], _Answer], seconds: float | None) -> _Answer:
        """Let the thread make a call and return or raise what it does.

        seconds: to wait for it, None for as long as it takes. Raises Hangs; Ended if the thread was
        dismissed meanwhile.
        """
        if not self._calls.put(call):
            raise Ended
        came = self._answers.take(seconds)
        if came is None:
            raise Hangs
        answer, error = came
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def dismiss(self) -> None:
        """Let the thread close its source and end; who waits for its answer gets Ended."""
        self._calls.close()
        self._answers.close()

    def join(self, seconds: float) -> None:
        """Wait for its end, so many seconds at most."""
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _work(self) -> None:
        with contextlib.suppress(Ended):
            while True:
                call = self._calls.take()
                if call is not None and not self._answers.put(_outcome(call)):
                    break  # nobody waits any more
        _outcome(self.source.close)


def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # raised where it was asked for
        return None, error
