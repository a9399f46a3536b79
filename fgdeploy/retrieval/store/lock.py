"""The lock of the one process that writes; the system frees it when that process is no more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fgdeploy.core.errors import IndexStoreError

NAME = "write.lock"
_POLL_S = 0.02


@contextlib.contextmanager
def held(folder: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of an index. Raises IndexStoreError if another has it for `wait_s`, OSError."""
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    owner = os.getpid()
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise IndexStoreError(
                        f"{folder}: another process is writing to it{_who(handle)}; "
                        "wait for it to finish"
                    ) from None
                time.sleep(_POLL_S)
        with contextlib.suppress(OSError):  # a full disk: only the name of the writer is missing
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            if os.getpid() == owner:  # closing alone would leave it to a child forked meanwhile
                fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _who(handle: int) -> str:
    with contextlib.suppress(OSError):
        number = os.pread(handle, 20, 0).decode("ascii", "replace")
        if number.isdecimal():
            return f" (process {number})"
    return ""
