"""Ties in order from a server that gives them in none, and a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fgdeploy.remote.exact_ties import exact_nearest, exact_within
from fgdeploy.remote.remote_table import Ranked


class Server:
    """Gives the nearest of some distances, of ties any, at most `most`; counts what it is asked."""

    def __init__(self, distances: list[list[int]], ids: list[int], most: int) -> None:
        self.distances, self.ids, self.most = distances, ids, most
        self.random = np.random.default_rng(0)
        self.calls = 0

    def __call__(
        self, codes: Sequence[bytes], limit: int, low: int, high: int
    ) -> list[tuple[Ranked, bool]]:
        assert limit <= self.most
        self.calls += 1
        answers = []
        for code in codes:
            own = self.distances[code[0]]
            found = [(d, n) for d, n in zip(own, self.ids, strict=True) if low <= n <= high]
            self.random.shuffle(found)
            found = [(int(d), int(n)) for d, n in sorted(found, key=lambda one: one[0])]
            answers.append((found[:limit], len(found) <= limit))
        return answers


@pytest.mark.parametrize("most", [3, 10, 60, 1000])
@pytest.mark.parametrize("values", [1, 3, 20])
def test_answers_are_those_of_a_sort(most: int, values: int) -> None:
    random = np.random.default_rng(most + values)
    for count in (0, 1, 2, 9, 200):
        ids = (np.cumsum(random.integers(1, 1 << 50, count)) % (1 << 62)).tolist()
        distances = random.integers(0, values, (3, count)).tolist()
        server = Server(distances, ids, most)
        for k in {1, 2, most - 1, most} | ({7, 33, 150} & set(range(most))):
            got = exact_nearest(server, [b"\0", b"\1", b"\2"], k, most)
            assert got == [sorted(zip(one, ids, strict=True))[:k] for one in distances]
        for radius in (0, 1, values):
            near = sorted((d, n) for d, n in zip(distances[0], ids, strict=True) if d <= radius)
            assert exact_within(server, b"\0", radius, most) == near


def test_where_nothing_ties_one_call_is_enough() -> None:
    server = Server([list(range(500))], list(range(500)), 400)
    exact_nearest(server, [b"\0"] * 9, 10, 400)
    assert server.calls == 1
