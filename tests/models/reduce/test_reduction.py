"""What all reductions share: options, where each acts, and which rates it is given."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fgdeploy.core.errors import StageError, UsageError
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.models.walk import LastStep, Step
from tests.checks import refused

SHAPE = Geometry(width=64, depth=12, patch_size=16, grid=(14, 14))


def test_options_are_read_and_kept() -> None:
    options = ReducedOptions.parse({"keep_rate": "0.7,0.5,0.3", "blocks": "2,4,6"})
    assert options == ReducedOptions((0.7, 0.5, 0.3), (2, 4, 6))
    written = json.loads(json.dumps(options.to_json()))
    assert ReducedOptions.from_json(written) == options
    assert ReducedOptions().resolved(SHAPE).blocks == (4, 7, 10)


@pytest.mark.parametrize(
    "entry",
    [
        {"keep_rate": 0.5},
        {"keep_rate": []},
        {"keep_rate": [1.5]},
        {"keep_rate": ["0.5"]},
        {"blocks": [0]},
        {"blocks": "4"},
        {"speed": 1},
    ],
)
def test_other_entries_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        ReducedOptions.from_json(entry)


def test_what_does_not_fit_is_said() -> None:
    with refused(StageError, "expected rising numbers from 1 to 11, got 12"):
        ReducedOptions.parse({"blocks": "4,12"}).resolved(SHAPE)
    with refused(StageError, "2 keep rates for 3 blocks"):
        ReducedOptions.parse({"keep_rate": "0.5,0.3"}).resolved(SHAPE)
    with refused(UsageError, "above 0 and up to 1"):
        ReducedOptions.parse({"keep_rate": "0"})


def test_one_rate_is_powered_and_a_list_is_taken_as_it_is() -> None:
    def slots(*rates: float) -> list[Slot]:
        return [Slot(n, 3 * n, rates, 196, 197, 64) for n in (1, 2, 3)]

    assert [slot.of_arriving for slot in slots(0.7)] == [0.7] * 3
    assert [slot.of_all for slot in slots(0.7)] == [0.7, 0.7**2, 0.7**3]
    assert [slot.of_all for slot in slots(0.9, 0.5, 0.1)] == [0.9, 0.5, 0.1]


def test_steps_lie_where_they_should() -> None:
    given: list[Slot] = []

    def make(slot: Slot, options: ReducedOptions) -> Step:
        given.append(slot)
        return Step()

    one = Reduction("made-up", make, "nobody")
    options = ReducedOptions((0.5,)).resolved(SHAPE)
    steps = one.steps(options, SHAPE, start=198, cached=True)
    assert sorted(steps) == list(range(1, 13)) and isinstance(steps[12], LastStep)
    assert [(slot.number, slot.block) for slot in given] == [(1, 4), (2, 7), (3, 10)]
    assert {(slot.patches, slot.start, slot.cached) for slot in given} == {(196, 198, True)}
    given.clear()
    for dense in (options.dense(), dataclasses.replace(options, keep_rate=(1.0, 1.0, 1.0))):
        one.steps(dense, SHAPE, start=197)
    assert given == []  # a rate of 1 reduces nothing


def test_every_reduction_is_called_what_its_file_is_called() -> None:
    assert all(one.name == name for name, one in REDUCTIONS.items())
    assert all(one.source for one in REDUCTIONS.values())
