"""What follows on a future, in the thread that ends it: the event loop wakes once, at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, TypeVar

from fgdeploy.core.errors import EngineError

_First = TypeVar("_First")
_Second = TypeVar("_Second")


def chain(first: Future[_First], step: Callable[[_First], Future[_Second]]) -> Future[_Second]:
    """Return the future of what `step` makes of the first one's result.

    An error of either is its error. Cancelling it cancels what has not begun. A stage that somebody
    else cancelled, as at the end of the service, is an EngineError.
    """
    result: Future[_Second] = Future()
    stages: list[Future[Any]] = [first]

    def cancel(done: Future[_Second]) -> None:
        if done.cancelled():
            for stage in stages:
                stage.cancel()

    def begin(done: Future[_First]) -> None:
        with _telling(result):
            second = step(done.result())
            stages.append(second)
            second.add_done_callback(end)
            cancel(result)  # which may have come meanwhile

    def end(done: Future[_Second]) -> None:
        with _telling(result), contextlib.suppress(InvalidStateError):
            result.set_result(done.result())

    result.add_done_callback(cancel)
    first.add_done_callback(begin)
    return result


@contextlib.contextmanager
def _telling(result: Future[Any]) -> Any:
    """Give errors to whoever waits; nobody does for a future that was cancelled."""
    try:
        yield
    except CancelledError:
        with contextlib.suppress(InvalidStateError):
            result.set_exception(EngineError("the service is ending; send it again later"))
    except Exception as error:
        with contextlib.suppress(InvalidStateError):
            result.set_exception(error)


def otherwise(
    first: Future[_First], again: Callable[[Exception], Future[_First] | None]
) -> Future[_First]:
    """Return the future of the first one's result, or where it failed of what `again` begins then.

    again: called with the error in the thread that met it; None keeps the error.
    """
    result: Future[_First] = Future()
    stages: list[Future[Any]] = [first]

    def cancel(done: Future[_First]) -> None:
        if done.cancelled():
            for stage in stages:
                stage.cancel()

    def end(done: Future[_First]) -> None:
        with _telling(result), contextlib.suppress(InvalidStateError):
            result.set_result(done.result())

    def look(done: Future[_First]) -> None:
        error = None if done.cancelled() else done.exception()
        second = None
        with _telling(result):
            if isinstance(error, Exception) and not result.cancelled():
                second = again(error)
            if second is None:
                end(done)
                return
            stages.append(second)
            second.add_done_callback(end)
            cancel(result)

    result.add_done_callback(cancel)
    first.add_done_callback(look)
    return result
