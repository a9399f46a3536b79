"""Measuring: in processes of their own, in turn, over the calls of all rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import open_engine
from fgdeploy.proof import bench
from fgdeploy.proof.bench import Latency, Speed, compare, time_engine
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


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "words"),
    [
        (-9, "", "", r"onnxruntime:fp32 cannot be measured: exit code -9; see"),
        (1, "", "Traceback\n  x\nMemoryError: 3 GiB\n", r"measured: Traceback x MemoryError: 3"),
    ],
)
def test_a_process_that_dies(
    toy_bundle: Path,
    code: int,
    stdout: str,
    stderr: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, stdout, stderr)

    monkeypatch.setattr(bench.subprocess, "run", die)
    with refused(EngineError, words):
        compare(toy_bundle, ["onnxruntime:fp32"], (1,), rounds=1)


def test_the_process_measures_what_it_was_told(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "time_calls", lambda call: [[1.5, 2.5]])
    wanted = {"bundle": str(toy_bundle), "name": "onnxruntime:fp32", "batches": [1, 4]}
    monkeypatch.setattr(sys, "argv", ["bench", json.dumps(wanted), "1"])
    assert bench.main() == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["times"] == {"1": [1.5, 2.5], "4": [1.5, 2.5]}
    assert answer["peak_mib"] > 0
    monkeypatch.setattr(sys, "argv", ["bench", json.dumps({**wanted, "name": "abacus"}), "0"])
    assert bench.main() == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "no backend 'abacus'" in said.err


# --- in turn


class Clock:
    """Stands for the processes: the answers are known, the order is kept."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.threads: set[int | None] = set()

    def __call__(
        self, bundle: Path, name: str, batches: Sequence[int], threads: int | None
    ) -> dict[str, Any]:
        self.order.append(name)
        self.threads.add(threads)
        turn = self.order.count(name)
        base = 10 if name == "slow" else 1
        times = {str(batch): [base * batch * turn] * 10 for batch in batches}
        return {"times": times, "peak_mib": 100 * base + turn % 2}


def test_contenders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(), []
    monkeypatch.setattr(bench, "_apart", clock)
    slow, fast = compare(
        tmp_path, ["slow", "fast"], (1, 8), 3, progress=lambda *counts: told.append(counts)
    )
    assert clock.order == ["slow", "fast"] * 3
    assert clock.threads == {3}
    assert told == [(done, 6) for done in range(1, 7)]
    # 10 calls of 1, 2 and 3 ms each: the median and percentile of all of them.
    assert fast.latencies == (Latency(1, 2.0, 3.0), Latency(8, 16.0, 24.0))
    assert slow.at(8) == Latency(8, 160.0, 240.0)
    assert (slow.peak_mib, fast.peak_mib) == (1001, 101)


def test_percentiles_are_over_the_calls_of_all_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([[1.0] * 19, [1.0] * 80, [50.0]])  # means of percentiles would differ

    def apart(*_: Any) -> dict[str, Any]:
        return {"times": {"1": next(rounds)}, "peak_mib": 1.0}

    monkeypatch.setattr(bench, "_apart", apart)
    (speed,) = compare(tmp_path, ["one"], (1,))
    assert speed.at(1) == Latency(1, 1.0, 1.0)


def test_speeds_as_json() -> None:
    speed = Speed("a:int8", (Latency(1, 1.23456, 2.0), Latency(8, 4.0, 5.0)), 120.04)
    assert speed.to_json() == {
        "1": {"p50_ms": 1.235, "p95_ms": 2.0, "images_per_s": 810.0},
        "8": {"p50_ms": 4.0, "p95_ms": 5.0, "images_per_s": 2000.0},
        "peak_mib": 120.0,
    }


# --- one engine


def test_frames_are_those_of_the_model(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "time_calls", lambda call: [[float(len(call().code))]])
    with open_engine(open_bundle(toy_bundle), "onnxruntime", threads=1) as engine:
        assert time_engine(engine, (1, 5, 2)) == {1: [1.0], 5: [5.0], 2: [2.0]}
    assert np.isclose(Latency(4, 8.0, 9.0).images_per_s, 500)
