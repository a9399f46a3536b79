"""Who may use a thing that several threads have: their turns, its end, and a process that forks."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref


class Guard:
    """Lets threads use its owner, one after the other or `together`, until it is closed.

    The owner belongs to the process that made it: threads do not follow a fork. A forked process
    never frees it, as that would wait for threads that are not there.
    """

    def __init__(self, owner: object, together: bool) -> None:
        self._together = together
        self._changed = threading.Condition()
        self._inside = 0
        self._process = os.getpid()
        self.closed = False
        _OWNERS.add(owner)

    @property
    def forked(self) -> bool:
        """Return whether this is a forked copy, in which nothing here may be waited for."""
        return self._process != os.getpid()

    def enter(self) -> bool:
        """Wait for a turn, which `leave` must end; return False, and no turn, if it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._together or not self._inside)
            if not self.closed:
                self._inside += 1
            return not self.closed

    def leave(self) -> None:
        """End a turn."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more and wait for those inside; return True the first time."""
        with self._changed:
            if self.closed:
                return False
            self.closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._inside)
            return True


_OWNERS: weakref.WeakSet[object] = weakref.WeakSet()


def _keep_owners() -> None:
    for owner in list(_OWNERS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))  # so that nobody ever frees it


os.register_at_fork(after_in_child=_keep_owners)
