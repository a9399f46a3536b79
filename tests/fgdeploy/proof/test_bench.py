"""Measuring: in processes of their own, in turn, over the calls of all rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import EngineError
from fgdeploy.proof import bench
from fgdeploy.proof.bench import Calls, Latency, Speed, compare, race
from fgdeploy.proof.contenders import Contender, Turn
from tests.checks import refused

# --- real processes


def test_two_engines_in_processes_of_their_own(toy_bundle: Path) -> None:
    told: list[tuple[int, int]] = []
    speeds = compare(
        toy_bundle,
        ["onnxruntime:fp32", "openvino:fp32"],
        (1, 2),
        threads=1,
        rounds=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
    assert [speed.name for speed in speeds] == ["onnxruntime:fp32", "openvino:fp32"]
    for speed in speeds:
        assert [one.batch for one in speed.latencies] == [1, 2]
        assert all(0 < one.p50_ms <= one.p95_ms for one in speed.latencies)
        assert speed.peak_mib > 10


def test_a_contender_that_cannot_run(toy_bundle: Path) -> None:
    with refused(
        EngineError,
        r"^openvino:int8 cannot be measured: .*toy\.fgd holds no int8 graph.*; see: fgdeploy doct",
    ):
        compare(toy_bundle, ["openvino:int8"], (1,), rounds=1)


# --- in turn


class Clock:
    """Stands for the processes: the answers are known, the order is kept."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.asked: set[tuple[int | None, float]] = set()

    def __call__(self, contender: Contender, threads: int | None, seconds: float) -> Turn:
        self.order.append(contender.name)
        self.asked.add((threads, seconds))
        turn = self.order.count(contender.name)
        if contender.name == "flaky" and turn == 2:
            raise EngineError("out of memory")
        base = 10.0 if contender.name == "slow" else 1.0
        sizes = [batch for batch in contender.batches if batch <= 8]
        return Turn(
            {batch: [base * batch * turn] * 10 for batch in sizes},
            {batch: "too many" for batch in contender.batches if batch > 8},
            {batch: base / turn for batch in sizes},
            100 * base + turn % 2,
            contender.name,
        )


def _one(name: str, *batches: int) -> Contender:
    return Contender(name, "bundle", "x.fgd", batches or (1, 8), "onnxruntime:fp32")


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(), []
    monkeypatch.setattr(bench, "measure_apart", clock)
    slow, fast = race(
        [_one("slow"), _one("fast")], 3, 3, 0.5, progress=lambda *counts: told.append(counts)
    ).measured
    assert clock.order == ["slow", "fast"] * 3
    assert clock.asked == {(3, 0.5)}
    assert told == [(done, 6) for done in range(1, 7)]
    # 10 calls of 1, 2 and 3 ms each: all of them
    assert fast.calls == tuple(Calls(b, (b,) * 10 + (2 * b,) * 10 + (3 * b,) * 10) for b in (1, 8))
    assert (slow.peak_mib, fast.peak_mib) == (1001, 101)
    assert fast.first_s == {1: 1.0, 8: 1.0}
    assert fast.at(8) == fast.calls[1]
    assert fast.at(2) is None


def test_what_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bench, "measure_apart", clock)
    found = race([_one("flaky"), _one("fast", 1, 32), _one("large", 64)], None, 3)
    assert clock.order == ["flaky", "fast", "large", "flaky", "fast", "large", "fast", "large"]
    assert [one.contender.name for one in found.measured] == ["fast"]
    assert [calls.batch for calls in found.measured[0].calls] == [1]
    assert found.failed == {
        "flaky": "out of memory",
        "fast, batch 32": "too many",
        "large, batch 64": "too many",
    }


def test_percentiles_are_over_the_calls_of_all_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([[1.0] * 19, [1.0] * 80, [50.0]])  # means of percentiles would differ

    def apart(*_: object) -> Turn:
        return Turn({1: next(rounds)}, {}, {1: 0.1}, 1.0, "")

    monkeypatch.setattr(bench, "measure_apart", apart)
    (speed,) = compare(tmp_path, ["one"], (1,))
    assert speed.at(1) == Latency(1, 1.0, 1.0)


def test_nothing_is_clipped() -> None:
    calls = Calls(2, (*map(float, range(1, 100)), 1000.0))
    entry = calls.to_json()
    assert (entry["calls"], entry["min_ms"], entry["max_ms"]) == (100, 1.0, 1000.0)
    assert entry["mean_ms"] == pytest.approx((99 * 50 + 1000) / 100)
    assert (entry["p50_ms"], entry["p90_ms"], entry["p95_ms"]) == (50.5, 90.1, 95.05)
    assert entry["p99_ms"] == pytest.approx(99 + 0.01 * 901)
    assert entry["images_per_s"] == pytest.approx(1e3 * 2 / 50.5, abs=0.01)


def test_speeds_as_json() -> None:
    speed = Speed("a:int8", (Latency(1, 1.23456, 2.0), Latency(8, 4.0, 5.0)), 120.04)
    assert speed.to_json() == {
        "1": {"p50_ms": 1.235, "p95_ms": 2.0, "images_per_s": 810.0},
        "8": {"p50_ms": 4.0, "p95_ms": 5.0, "images_per_s": 2000.0},
        "peak_mib": 120.0,
    }
