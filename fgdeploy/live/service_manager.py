"""What the service manager (systemd) is told: ready, stopping, and alive while work goes on.

The protocol of sd_notify(3): lines in a datagram to the socket that NOTIFY_SOCKET names. Without
that, as at a terminal or in a container, nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping

from fgdeploy.core.closing import Closing
from fgdeploy.live.events import tell

_BEATS = 3  # in the time within which the manager must hear one


class ServiceManager:
    """The manager that started this process, if one did and listens.

    patience: seconds within which it wants to hear that the process is alive, None if never.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for a socket without a file; other families are none of ours.
        known = name[:1] in ("/", "@") and hasattr(socket, "AF_UNIX")
        self._address = ("\0" + name[1:] if name[0] == "@" else name) if known else ""
        self.patience = _patience(environment) if known else None

    def ready(self, status: str = "") -> None:
        """Say that the first frame or request can be answered."""
        self._send("READY=1", *([f"STATUS={status}"] if status else []))

    def alive(self) -> None:
        """Say that work goes on."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outlet:
                outlet.settimeout(1.0)
                outlet.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # the work matters more than who hears of it
            tell("manager_unheard", logging.WARNING, said=lines[0], error=str(error))


class Heartbeat(Closing):
    """Tells the manager, from a thread of its own, that work goes on, for as long as it does.

    progress: gives what changes while work goes on, or None while there is none to do. Where it
    stays the same between two beats nothing is said, so that a process that hangs is restarted.
    """

    def __init__(self, manager: ServiceManager, progress: Callable[[], object]) -> None:
        self._manager, self._progress = manager, progress
        self._ended = threading.Event()
        self._stalled = False
        self._before: object = None
        self._thread: threading.Thread | None = None
        if manager.patience is not None:
            self._every = manager.patience / _BEATS
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Say nothing any more."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self) -> bool:
        """Look once, tell the manager if work goes on, and return whether it does."""
        now = self._progress()
        goes_on = now is None or now != self._before
        if goes_on:
            self._manager.alive()
        elif not self._stalled:
            tell("stalled", logging.WARNING, at=now, patience=self._manager.patience)
        self._before, self._stalled = now, not goes_on
        return goes_on

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self.check()


def _patience(environment: Mapping[str, str]) -> float | None:
    """Return the seconds of WATCHDOG_USEC, None if there are none or they are another process's."""
    given, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not given.isascii() or not given.isdigit() or whose not in ("", str(os.getpid())):
        return None
    return int(given) / 1e6 or None
