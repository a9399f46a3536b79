"""Run a command in this process or in one of its own, and say what came of it."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

import typer.main

LONGEST_S = 60  # for one command; more counts as a fault
LONGEST_LINE = 3000  # characters of an error that a person may be asked to read
# Where torch makes a folder in this process; a command's own process removes it when it ends.
ONLY_HERE = "TORCHINDUCTOR_CACHE_DIR"
SKIPPED = 3  # exit code when photos were left out


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, texts, and what it may not do (a traceback, warnings)."""

    code: int
    out: str
    err: str
    crash: str = ""
    warned: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    @property
    def accepted(self) -> bool:
        """Return whether the command did its work, perhaps without some photos."""
        return self.code in (0, SKIPPED) and not self.crash

    @property
    def refused(self) -> bool:
        """Return whether it ended in an error, so that nothing may be left."""
        return not self.accepted and bool(self.errors)

    @property
    def errors(self) -> list[str]:
        """Return the lines that say why it was refused."""
        return [line for line in self.err.splitlines() if line.lower().startswith("error:")]

    def faults(self) -> Iterator[str]:
        """Yield what no command may do, whatever it was given."""
        if self.crash:
            yield f"a traceback: {self.crash}"
        elif "Traceback (most recent" in self.err + self.out:
            yield f"a traceback: {self.err[-600:]}"
        for warned in self.warned:
            yield f"a warning: {warned}"
        if "Warning:" in self.err:
            yield f"a warning: {self.err[-300:]}"
        if not self.accepted and not self.crash:
            yield from self._faults_of_error()
        odd = {c for c in self.err if not (c.isprintable() or c in "\n\r\t")}
        odd |= {c for c in self.out if unicodedata.category(c) == "Cc" and c not in "\n\t"}
        if odd:
            yield f"control characters on the terminal: {sorted(odd)}"

    def _faults_of_error(self) -> Iterator[str]:
        lines = self.err.splitlines()
        if len(self.errors) != 1 and not (self.out and not self.errors):  # a verdict, as `verify`
            yield f"exit {self.code} with {len(self.errors)} errors: {self.err[-300:]!r}"
        elif self.errors and lines[-1] != self.errors[0]:
            yield f"an error of more than one line: {self.err[-300:]!r}"
        elif self.errors and len(self.errors[0]) > LONGEST_LINE:
            yield f"an error of {len(self.errors[0])} characters: {self.errors[0][:200]!r}"
        if self.errors and self.code not in (1, 2):
            yield f"an error with exit {self.code}"


class _TooLongError(BaseException):
    """A command did not end; no handler of the program may catch it."""


class InProcess:
    """Runs commands in this process, as `fgdeploy` does when it is started; a context manager.

    What native libraries write to stderr is caught, too.
    """

    def __enter__(self) -> InProcess:
        self._stderr = os.dup(2)
        self._native = os.memfd_create("stderr")
        os.dup2(self._native, 2)
        signal.signal(signal.SIGALRM, self._stop)
        # The tree of commands takes longer to make than most tries; it keeps nothing of a run
        typer.main.get_command = functools.cache(typer.main.get_command)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._stderr, 2)
        os.close(self._native)

    @staticmethod
    def _stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"no end after {LONGEST_S} s")

    def tell(self, text: str) -> None:
        """Write a line to the stderr of before."""
        os.write(self._stderr, f"{text}\n".encode(errors="backslashreplace"))

    def run(self, arguments: Sequence[str]) -> Outcome:
        """Return what comes of `fgdeploy ARGUMENTS`."""
        from fgdeploy.cli import main

        os.ftruncate(self._native, 0)
        os.lseek(self._native, 0, os.SEEK_SET)
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
        code, crash, start = 0, "", time.perf_counter()
        with _instead(out, err, arguments), warnings.catch_warnings(record=True) as warned:
            warnings.resetwarnings()  # all are shown, but those that the program turns off
            signal.alarm(LONGEST_S)
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                code, crash = 1, _where(error)
            finally:
                signal.alarm(0)
        texts = []
        for stream in (out, err):
            with contextlib.suppress(ValueError):  # the program may have closed it
                stream.flush()
            raw = stream.detach() if not stream.closed else io.BytesIO()
            texts.append(raw.getvalue().decode(errors="backslashreplace"))  # type: ignore[attr-defined]
        native = os.pread(self._native, 1 << 20, 0).decode(errors="backslashreplace")
        told = tuple(f"{one.category.__name__}: {one.message}" for one in warned)
        if native:
            told += (f"a library on stderr: {native[:300]!r}",)
        return Outcome(code, texts[0], texts[1], crash, told, time.perf_counter() - start)


@contextlib.contextmanager
def _instead(
    out: io.TextIOWrapper, err: io.TextIOWrapper, arguments: Sequence[str]
) -> Iterator[None]:
    before = sys.stdout, sys.stderr, sys.stdin, sys.argv, signal.getsignal(signal.SIGTERM)
    sys.stdout, sys.stderr, sys.argv = out, err, ["fgdeploy", *arguments]
    with open(os.devnull, encoding="utf-8") as sys.stdin:
        try:
            yield
        finally:
            sys.stdout, sys.stderr, sys.stdin, sys.argv, stop = before
            signal.signal(signal.SIGTERM, stop)


def _where(error: BaseException) -> str:
    """Return an exception and the last places of its traceback in one line."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " > ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames)
    return f"{type(error).__name__}: {str(error)[:300]} ({places})"


def as_process(arguments: Sequence[str]) -> Outcome:
    """Return what comes of `python -m fgdeploy ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "fgdeploy", *arguments]
    own = {name: value for name, value in os.environ.items() if name != ONLY_HERE}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=2 * LONGEST_S, env=own
        )
    except subprocess.TimeoutExpired:
        return Outcome(1, "", "", f"no end after {2 * LONGEST_S} s")
    out, err = (text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr))
    crash = f"ended by signal {-done.returncode}" if done.returncode < 0 else ""
    return Outcome(done.returncode, out, err, crash, (), time.perf_counter() - start)
