"""Handing things over between threads."""

from __future__ import annotations

import threading

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.live.handover import Ended, Handover


def test_the_newest_win() -> None:
    handed: Handover[int] = Handover(2)
    for number in range(5):
        assert handed.put(number)
    assert [handed.take(), handed.take()] == [3, 4]
    assert handed.dropped == 3 and handed.take(timeout=0) is None


def test_the_giver_waits_for_room_where_none_may_be_lost() -> None:
    handed: Handover[int] = Handover(1, newest=False)
    got: list[int] = []

    def take_all() -> None:
        while True:
            try:
                got.append(handed.take(10) or 0)
            except Ended:
                return

    taker = threading.Thread(target=take_all)
    taker.start()
    for number in range(1, 101):
        assert handed.put(number, timeout=10)
    handed.close()
    taker.join(10)
    assert got == list(range(1, 101)) and handed.dropped == 0


def test_closed_it_takes_nothing_in_and_gives_what_waits() -> None:
    handed: Handover[str] = Handover(1)
    handed.put("last")
    handed.close()
    assert not handed.put("more") and handed.take() == "last"
    with pytest.raises(Ended):
        handed.take()


def test_a_full_one_says_so_in_time() -> None:
    handed: Handover[int] = Handover(1, newest=False)
    assert handed.put(1) and not handed.put(2, timeout=0)


def test_room_for_none_is_refused() -> None:
    with pytest.raises(UsageError, match="expected room for at least one"):
        Handover(0)
