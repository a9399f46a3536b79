"""The standard streams of a command, whatever they are: none, closed, full, or a pipe that broke.

A message (stderr) that cannot be written is left out: the work goes on, and its exit code is right.
An answer (stdout) that cannot be written is an error, told once the work is done; where only the
reader has gone (`| head -1`) it is told by the exit code alone.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

BROKEN_PIPE = 141  # as the shell shows a program that SIGPIPE ended


class Guarded(io.TextIOBase):
    """A stream in front of another one, or of none, on which writing never fails.

    error: what went wrong first, None as long as all that was written has arrived.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write, or keep the error. Raises TypeError for bytes, as Typer asks to know."""
        if not isinstance(text, str):
            raise TypeError(f"expected str, got {type(text).__name__}")
        if text and self.error is None:
            self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or keep the error."""
        if self._stream is not None and self.error is None:
            self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Tell whether a terminal shows what is written."""
        return self._usable() and self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError where there is none."""
        if self._stream is None or not self._usable():
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True: writing never fails."""
        return True

    def _usable(self) -> bool:
        return self._stream is not None and not self._stream.closed

    def _attempt(self, do: Callable[[TextIO], object]) -> None:
        try:
            if self._stream is None or self._stream.closed:
                raise OSError(errno.EBADF, "closed")
            do(self._stream)
        except OSError as error:
            self.error = error
            self._divert()

    def _divert(self) -> None:
        """Let what is still in the buffer go nowhere, or Python complains of it at exit."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def guarded() -> Iterator[Guarded]:
    """Give standard output, guarded as standard error is, for as long as the block runs."""
    _fill_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    with open(os.devnull, encoding="utf-8") as nothing:
        out = Guarded(before[1])
        sys.stdin, sys.stdout, sys.stderr = before[0] or nothing, out, Guarded(before[2])
        try:
            yield out
        finally:
            out.flush()
            sys.stderr.flush()
            sys.stdin, sys.stdout, sys.stderr = before


def unheard() -> bool:
    """Tell whether an answer was lost, so that a long list of them need not go on."""
    return isinstance(sys.stdout, Guarded) and sys.stdout.error is not None


def _fill_descriptors() -> None:
    """Open what is closed of 0, 1 and 2, or the next file would be the one that libraries write
    their messages to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
