"""From one thread to the next: a few things wait at most, the newest win or the giver waits."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import UsageError

_Thing = TypeVar("_Thing")


class Ended(Exception):
    """Nothing comes any more: the hand-over was closed, and what waited in it has been taken."""


class Handover(Closing, Generic[_Thing]):
    """At most `most` things wait. newest: a full one drops its oldest, else `put` waits for room.

    dropped: how many were dropped so far. Any number of threads may put and take.
    """

    def __init__(self, most: int = 1, newest: bool = True) -> None:
        if most < 1:
            raise UsageError(f"expected room for at least one, got {most}; give 1")
        self.most, self.newest = most, newest
        self.dropped = 0
        self._waiting: deque[_Thing] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, thing: _Thing, timeout: float | None = None) -> bool:
        """Hand a thing over; False if it was not taken: closed, or no room within the seconds."""
        with self._changed:
            if self.newest and not self._closed:
                while len(self._waiting) >= self.most:
                    self._waiting.popleft()
                    self.dropped += 1
            else:
                self._changed.wait_for(
                    lambda: self._closed or len(self._waiting) < self.most, timeout
                )
            if self._closed or len(self._waiting) >= self.most:
                return False
            self._waiting.append(thing)
            self._changed.notify_all()
            return True

    def take(self, timeout: float | None = None) -> _Thing | None:
        """Return the thing that waits longest, None if none came in time.

        Raises Ended when it is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if self._waiting:
                thing = self._waiting.popleft()
                self._changed.notify_all()
                return thing
            if self._closed:
                raise Ended
            return None

    def close(self) -> None:
        """Take nothing more in; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
