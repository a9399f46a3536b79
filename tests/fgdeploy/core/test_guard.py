from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fgdeploy.core.guard import Guard


class Owner:
    """What a guard can belong to."""


@pytest.mark.parametrize(("together", "most"), [(False, 1), (True, 4)])
def test_turns(together: bool, most: int) -> None:
    guard, inside, seen = Guard(Owner(), together), 0, []
    counting, met = threading.Lock(), threading.Barrier(4 if together else 1)

    def turn() -> None:
        nonlocal inside
        assert guard.enter()
        with counting:
            inside += 1
            seen.append(inside)
        met.wait(10)
        with counting:
            inside -= 1
        guard.leave()

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 4 and max(seen) == most


def _sleeping(guard: Guard, count: int) -> Callable[[], bool]:
    """Return whether so many threads wait in the guard."""
    return lambda: len(guard._changed._waiters) >= count  # type: ignore[attr-defined]


def _until(happened: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2000):
        if happened():
            return
        pause.wait(0.005)
    pytest.fail("waited in vain")


def test_closing_waits_for_the_one_inside_and_turns_the_next_away() -> None:
    guard = Guard(Owner(), together=False)
    assert guard.enter()
    with ThreadPoolExecutor(2) as pool:
        next_one = pool.submit(guard.enter)
        _until(_sleeping(guard, 1))
        closing = pool.submit(guard.close)
        assert next_one.result(10) is False
        _until(_sleeping(guard, 1))
        assert guard.closed and not closing.done()
        guard.leave()
        assert closing.result(10) is True
    assert guard.close() is False and guard.enter() is False


def test_closing_waits_for_all_inside() -> None:
    guard = Guard(Owner(), together=True)
    assert guard.enter() and guard.enter()
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(guard.close)
        guard.leave()
        _until(_sleeping(guard, 1))
        assert not closing.done()
        guard.leave()
        assert closing.result(10) is True
