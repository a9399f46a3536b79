"""Make the compiled scan ready while NumPy answers, so that no query waits for a compiler.

Compiling takes seconds and holds Python's lock for long. So another process compiles into numba's
cache, and a thread of this one then loads what it finds there. Importing numba takes 0.6 s of the
lock: the thread rests after each module and hands the lock over often; LLVM is linked without it;
and the garbage collector, which would stop all threads while it looks through numba's 100,000
objects, waits, and is told that these stay.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

_SCAN = "fgdeploy.retrieval.scan.scan_numba"
_COMPILE = f"import sys, importlib; importlib.import_module({_SCAN!r}).warm(int(sys.argv[1]))"
_SHARE = 3  # of the time that loading has taken, how long it rests
_LONGEST_REST_S = 0.1
_HAND_OVER_S = 1e-4  # how long a thread that wants Python's lock waits for the one that has it
_END_S = 2.0  # how long a process that ends waits for the thread


class Ahead:
    """What is ready in this process, by the words of a code; usable from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: set[int] = set()
        self._begun: set[int] = set()
        self._failure = ""
        self._ended = False
        self._thread: threading.Thread | None = None
        self._compiler: subprocess.Popen[bytes] | None = None

    def ready(self, words: int) -> bool:
        """Return whether the scan of codes of `words` words runs at once; if not, see that it will.

        Never waits. Warns once where compiling fails: then NumPy goes on for good.
        """
        if words in self._ready:
            return True
        with self._lock:
            failure, self._failure = self._failure, ""
            if words not in self._begun and not self._ended and not self._at_work():
                self._begun.add(words)
                self._thread = threading.Thread(
                    target=self._prepare, args=(words,), name="fgdeploy-compile", daemon=True
                )
                self._thread.start()
        if failure:
            warnings.warn(
                f"the fast search could not be compiled here: {failure}; NumPy answers instead, "
                "slower; `fgdeploy doctor` says what is installed",
                RuntimeWarning,
                stacklevel=2,
            )
        return False

    def wait(self, timeout_s: float) -> None:
        """Wait until what was begun is ready or has failed."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def end(self) -> None:
        """Stop compiling; a process that ends does not wait for it."""
        with self._lock:
            self._ended = True
            if self._compiler is not None:
                with contextlib.suppress(OSError):
                    self._compiler.kill()
        self.wait(_END_S)

    def _at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _prepare(self, words: int) -> None:
        try:
            failure = self._compile(words)
            if not failure and not self._ended:
                with _restfully() as rest:
                    importlib.import_module(_SCAN).warm(words, rest)
                self._ready.add(words)
        except Exception as error:  # whatever a compiler may raise: NumPy answers as well
            failure = f"{type(error).__name__}: {error}".splitlines()[0]
        if not self._ended:
            self._failure = failure

    def _compile(self, words: int) -> str:
        """Compile in another process, where Python can start one; return why that failed."""
        if not sys.executable or getattr(sys, "frozen", False):
            return ""  # an application in one file would start itself: this thread compiles
        command = [sys.executable, "-c", _COMPILE, str(words)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self._lock:
            if self._ended:
                return ""
            # A session of its own: Ctrl-C is for the search, not for the compiler.
            self._compiler = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        with self._compiler as running:
            said = running.communicate()[1].decode("utf-8", "replace").strip().splitlines()
        if running.returncode == 0:
            return ""
        return said[-1] if said else f"the compiler ended with {running.returncode}"


class _Rests:
    """Rests between imports of one thread: a finder that finds nothing."""

    def __init__(self) -> None:
        self._thread, self._since = threading.get_ident(), time.perf_counter()

    def rest(self) -> None:
        """Sleep in proportion to what was done since the last time."""
        if threading.get_ident() == self._thread:
            time.sleep(min(_LONGEST_REST_S, _SHARE * (time.perf_counter() - self._since)))
            self._since = time.perf_counter()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """Rest before a module is looked for."""
        self.rest()


@contextlib.contextmanager
def _restfully() -> Iterator[Callable[[], None]]:
    """Let other threads run while this one imports; give what to call between other steps."""
    _link_llvm()
    rests, interval, collecting = _Rests(), sys.getswitchinterval(), gc.isenabled()
    gc.collect(1)
    gc.disable()
    sys.meta_path.insert(0, rests)
    sys.setswitchinterval(min(_HAND_OVER_S, interval))
    try:
        yield rests.rest
    finally:
        sys.setswitchinterval(interval)
        sys.meta_path.remove(rests)
        if collecting:
            gc.freeze()
            gc.enable()


def _link_llvm() -> None:
    """Let the system link LLVM's library. Python's own import would do so holding its lock."""
    found = importlib.util.find_spec("llvmlite")
    places = (found.submodule_search_locations if found else None) or []
    for library in (Path(place) / "binding" / "libllvmlite.so" for place in places):
        # A function that ctypes calls runs without the lock. Where there is none, the import links.
        with contextlib.suppress(AttributeError, OSError, TypeError):
            link = ctypes.CDLL(None).dlopen
            link.argtypes, link.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
            link(os.fsencode(library), os.RTLD_NOW)


def _forget() -> None:
    """Start anew in a forked process: it has no thread of its parent's, only what is ready."""
    global ahead
    ready = ahead._ready
    ahead = Ahead()
    ahead._ready |= ready


ahead = Ahead()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: ahead.end())
