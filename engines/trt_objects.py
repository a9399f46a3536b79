"""TensorRT objects end when we are done with them, never in Python's garbage collector.

Making a builder or a runtime holds a lock inside TensorRT while it logs, through Python. If a
collection begins there and finds an older builder, its end takes the same lock: for ever.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import traceback
from collections.abc import Iterator

_LOCK = threading.Lock()
_inside = 0
_resume = False


@contextlib.contextmanager
def freed_in_time() -> Iterator[None]:
    """Make and use TensorRT objects in functions called from this block.

    No collection happens meanwhile, in any thread. An error that leaves it holds no object: what
    the functions' variables held is freed here, though whoever catches it keeps their frames.
    """
    _pause()
    try:
        yield
    except BaseException as error:
        _forget(error)
        raise
    finally:
        _go_on()


def _forget(error: BaseException) -> None:
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)  # a frame that still runs is left alone
        one = one.__context__


def _pause() -> None:
    global _inside, _resume
    with _LOCK:
        if not _inside:
            _resume = gc.isenabled()
            gc.disable()
        _inside += 1


def _go_on() -> None:
    global _inside
    with _LOCK:
        _inside -= 1
        if not _inside and _resume:
            gc.enable()
