"""The faster way is found, and found again when it changes."""

from __future__ import annotations

import pytest

from fgdeploy.retrieval.scan import pace


def taken(chooser: pace.Pace, seconds: dict[bool, float], times: int) -> list[bool]:
    """Return the ways that were taken, when they take so long."""
    ways = []
    for _ in range(times):
        ways.append(way := chooser.choose("kind", timed=True))
        chooser.note("kind", way, seconds[way])
    return ways


@pytest.mark.parametrize("faster", [False, True])
def test_the_faster_way_is_taken_once_both_were_timed(faster: bool) -> None:
    chooser = pace.Pace()
    ways = taken(chooser, {faster: 1.0, not faster: 1.1}, 40)
    assert ways[:4] == [True, True, False, False]
    assert set(ways[4:]) == {faster}
    assert chooser.choose("kind", timed=False) is faster


def test_the_first_time_may_compile() -> None:
    chooser = pace.Pace()
    for way, seconds in ((True, 99.0), (True, 1.0), (False, 99.0), (False, 2.0)):
        assert chooser.choose(0, timed=True) is way
        chooser.note(0, way, seconds)
    assert chooser.choose(0, timed=True) is True


def test_a_disturbed_measurement_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_AGAIN", 10)
    chooser = pace.Pace()
    taken(chooser, {True: 9.0, False: 2.0}, 4)  # while something else ran
    ways = taken(chooser, {True: 1.0, False: 2.0}, 30)
    assert ways[:9] == [False] * 9 and ways[9] is True
    assert ways[10:19] == [True] * 9 and ways[19] is False  # the other one, now and then


def test_kinds_are_apart_and_small_work_measures_nothing() -> None:
    chooser = pace.Pace()
    taken(chooser, {True: 2.0, False: 1.0}, 10)
    assert chooser.choose("kind", timed=False) is False
    assert chooser.choose("another", timed=False) is True
    assert [chooser.choose("another", timed=False) for _ in range(200)] == [True] * 200
