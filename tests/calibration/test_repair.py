"""Repair: the least number of layers, and the right ones."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from fgdeploy.calibration import qdq, repair
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.judge import Judge
from fgdeploy.core.text import counted
from fgdeploy.proof.parity import Limits, Parity

Frames = npt.NDArray[np.uint8]
PARITY = Parity(9, 0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 0, None, None, None, None)
KEPT = Limits(min_bit_agreement=0.9)


class KnownJudge:
    """Says of `count` layers what is known; layer i alone errs by i, so the last goes first."""

    def __init__(self, names: list[str], needed: int, harm: frozenset[str] = frozenset()) -> None:
        self.names, self.needed, self.harm = names, needed, harm
        self.runs: list[int] = []

    def error(self, in_float: list[str], count: int) -> tuple[float, float]:
        (alone,) = set(self.names) - set(in_float)
        return float(self.names.index(alone)), 0.0

    def latency_ms(self, graphs: list[list[str]]) -> list[float]:
        return [1.0 + len(in_float) for in_float in graphs]

    def parity(self, in_float: list[str]) -> Parity:
        self.runs.append(len(in_float))
        return dataclasses.replace(PARITY, bit_agreement=float(len(in_float) >= self.needed))


@pytest.fixture
def by_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a graph be the list of its layers in float."""

    def write(plan: Any, in_float: list[str], unsigned_activations: bool) -> list[str]:
        assert unsigned_activations  # what ONNX Runtime runs on x86
        return list(in_float)

    monkeypatch.setattr(repair.qdq, "write", write)


def _known(count: int, needed: int) -> tuple[Any, Any]:
    names = [f"layer{number}" for number in range(count)]
    return SimpleNamespace(int8=names), KnownJudge(names, needed)


@pytest.mark.usefixtures("by_names")
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 22])
def test_the_least_number(count: int) -> None:
    for needed in range(1, count + 1):
        plan, judge = _known(count, needed)
        told: list[str] = []
        done = repair.repair(plan, judge, KEPT, say=told.append)
        assert done.met
        assert done.in_float == plan.int8[::-1][:needed]
        assert done.parity.bit_agreement == 1
        assert done.latency_ms == (1.0, 1.0 + needed)
        assert len(judge.runs) == len(set(judge.runs)) == len(done.tried) == len(told)
        assert len(judge.runs) <= 2 * np.ceil(np.log2(count + 1)) + 1
        assert [number for number, _ in done.tried] == sorted(judge.runs)
        assert all(f"of {counted(count, 'layer')} in float" in line for line in told)


@pytest.mark.usefixtures("by_names")
@pytest.mark.parametrize("count", [1, 5, 8])
def test_limits_that_nothing_meets(count: int) -> None:
    plan, judge = _known(count, count + 1)
    done = repair.repair(plan, judge, KEPT)
    assert not done.met
    assert len(done.in_float) == count
    assert done.parity.breaches(KEPT)
    assert len(judge.runs) == len(set(judge.runs))


@pytest.mark.usefixtures("by_names")
def test_sensitivities_are_sorted_and_counted() -> None:
    plan, judge = _known(5, 1)
    told: list[tuple[int, int]] = []
    found = repair.sensitivities(plan, judge, lambda done, total: told.append((done, total)))
    assert [one.layer for one in found] == plan.int8[::-1]
    assert told == [(done, 5) for done in range(1, 6)]


@pytest.fixture(scope="module")
def judge(model: onnx.ModelProto, unseen: Frames) -> Judge:
    return Judge(model, unseen, [None] * len(unseen))


@pytest.mark.parametrize("name", ["blocks.2.mlp.fc1", "blocks.0.attn.proj", "embed.conv"])
def test_the_layer_that_was_broken(made: Int8Plan, judge: Judge, name: str) -> None:
    layer = made.layers[name]
    mixed = (
        np.random.default_rng(0).permutation(layer.integers.ravel()).reshape(layer.integers.shape)
    )
    layers = {**made.layers, name: dataclasses.replace(layer, integers=mixed)}
    broken = dataclasses.replace(made, layers=layers)
    whole = judge.parity(qdq.write(made, (), True)).bit_agreement
    limits = Limits(min_bit_agreement=whole - 0.01)
    assert judge.parity(qdq.write(broken, (), True)).breaches(limits)
    done = repair.repair(broken, judge, limits)
    assert done.met
    assert done.in_float == [name]
    assert len(done.sensitivities) == len(made.layers)
    assert done.sensitivities[0].hash_error > 3 * done.sensitivities[1].hash_error


def test_layers_in_float_are_left_out(made: Int8Plan, judge: Judge) -> None:
    few = dataclasses.replace(made, in_float=frozenset(list(made.layers)[2:]))
    found = repair.sensitivities(few, judge)
    assert {one.layer for one in found} == set(list(made.layers)[:2])
