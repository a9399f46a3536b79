"""Times of stages."""

from __future__ import annotations

import numpy as np

from fgdeploy.live.stage_times import StageTimes


def test_percentiles_are_of_the_last_frames_and_counts_of_all() -> None:
    times = StageTimes(kept=100)
    for number in range(250):
        times.add({"search": float(number)})
    found = times.summary()["search"]
    assert (found.count, found.total) == (250, sum(range(250)))
    expected = np.percentile(np.arange(150, 250), [50, 95, 99])
    assert [found.p50, found.p95, found.p99] == list(expected)


def test_stages_keep_their_order_and_their_own_counts() -> None:
    times = StageTimes()
    times.add({"capture": 1.0, "total": 2.0})
    times.add({"total": 4.0, "search": 1.0})
    assert [(stage, found.count) for stage, found in times.summary().items()] == [
        ("capture", 1),
        ("total", 2),
        ("search", 1),
    ]
