"""Successive halving."""

from __future__ import annotations

from fgdeploy.tuning.searching import Round, halve, rounds


def test_rounds_double_the_photos_and_halve_the_schedules() -> None:
    assert rounds(400, 6) == (Round(24, 100), Round(12, 200), Round(6, 400))
    assert rounds(130, 6) == (Round(12, 65), Round(6, 130))
    assert rounds(20, 6) == (Round(6, 20),)


def test_the_best_come_through() -> None:
    seen: list[tuple[int, int]] = []

    def evaluate(one: int, photos: int) -> float:
        seen.append((one, photos))
        return one / 10

    told: list[tuple[int, int]] = []
    found = halve(
        [3, 1, 4, 9, 5],
        [Round(4, 10), Round(2, 20)],
        evaluate,
        lambda done, total: told.append((done, total)),
    )
    assert found == [(9, 0.9), (4, 0.4)]
    assert seen == [(3, 10), (1, 10), (4, 10), (9, 10), (9, 20), (4, 20)]
    assert told[-1] == (6, 6)
