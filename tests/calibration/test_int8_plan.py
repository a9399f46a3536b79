"""Plans: made of photos, restored from what a bundle keeps, the same every time."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from fgdeploy.calibration import int8_plan, qdq
from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.cache import Calibration
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.ranges import RANGES
from fgdeploy.core.errors import ExportError
from tests.calibration.graphs import BITS, Draft, block, constant, maker, noise, run
from tests.checks import refused

Frames = npt.NDArray[np.uint8]


def _reread(made: Int8Plan) -> dict[str, Balance]:
    """Return the balances after a way through `calibration.json`."""
    record = Calibration("", {"range": "mse"}, {}, made.ranges(), [], "", {})
    entry = json.loads(record.to_bytes())
    del entry["schema_version"]
    return Calibration(**entry).balances()


def _bytes(made: Int8Plan, in_float: list[str], unsigned: bool = False) -> bytes:
    return qdq.write(made, in_float, unsigned).SerializeToString(deterministic=True)


def test_every_layer_both_ways(made: Int8Plan) -> None:
    assert len(made.layers) == 22
    assert made.int8 == list(made.layers)
    for name, layer in made.layers.items():
        assert layer.integers.dtype == np.int8
        assert layer.integers.shape == layer.weight.shape
        assert layer.steps.shape == (layer.linear.fan_out,)
        axis = 0 if layer.linear.is_patch_embedding else 1
        steps = np.expand_dims(layer.steps, tuple({*range(layer.weight.ndim)} - {axis}))
        # Compensation moves a weight by some steps, not by many.
        assert np.abs(layer.integers * steps - layer.weight).max() < 20 * layer.steps.max(), name
        assert layer.snr_db > 25


def test_bias_takes_up_what_rounding_does_on_average(made: Int8Plan, plain: Int8Plan) -> None:
    assert any((layer.int8_bias != layer.bias).any() for layer in made.layers.values())
    assert all((layer.int8_bias == layer.bias).all() for layer in plain.layers.values())


def test_each_layer_on_its_own_is_better_than_plain(made: Int8Plan, plain: Int8Plan) -> None:
    for name, layer in made.layers.items():
        assert layer.snr_db > plain.layers[name].snr_db, name


def test_the_fp32_graph_is_left_as_it_was(seen: list[Frames]) -> None:
    drawn = block()
    before = drawn.SerializeToString()
    made = int8_plan.make(drawn, [noise(8)], CalibrationSettings())
    qdq.write(made, ["fc1"])
    assert drawn.SerializeToString() == before


@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize("balance", [True, False])
def test_two_calibrations_are_the_same_to_the_byte(range_: str, balance: bool) -> None:
    settings = CalibrationSettings(range=range_, balance=balance, seed=3)
    one, two = (int8_plan.make(block(), [noise(8), noise(8, seed=1)], settings) for _ in range(2))
    assert json.dumps(one.ranges()) == json.dumps(two.ranges())
    assert _bytes(one, []) == _bytes(two, [])


def test_another_seed_picks_other_rows() -> None:
    one, two = (
        int8_plan.make(block(), [noise(100)], CalibrationSettings(seed=seed)) for seed in (0, 1)
    )
    assert one.ranges() != two.ranges()


def test_progress_counts_activations() -> None:
    told: list[tuple[int, int]] = []
    int8_plan.make(
        block(), [noise(8)], CalibrationSettings(), lambda done, total: told.append((done, total))
    )
    assert told == [(done, 8) for done in range(1, 9)]


def test_ranges_are_what_a_person_reads(made: Int8Plan) -> None:
    ranges = made.ranges()
    assert json.loads(json.dumps(ranges, allow_nan=False)) == ranges
    assert [tuple(entry["readers"]) for entry in ranges.values()] == [
        item.readers for item in made.activations
    ]
    for entry in ranges.values():
        assert entry["limit"] == 127 * entry["step"]
        assert len(entry["shift"]) == len(entry["scale"]) in (64, 192)


@pytest.mark.parametrize("in_float", [[], ["blocks.1.mlp.fc1", "embed.conv", "blocks.0.attn.qkv"]])
@pytest.mark.parametrize("which", ["made", "plain"])
def test_restored_to_the_bit(
    which: str, in_float: list[str], request: pytest.FixtureRequest
) -> None:
    made: Int8Plan = request.getfixturevalue(which)
    stored = onnx.ModelProto.FromString(_bytes(made, in_float))
    again = int8_plan.restore(made.model, stored, _reread(made))
    assert again.in_float == set(in_float)
    assert again.int8 == [name for name in made.layers if name not in in_float]
    for more in ([], ["blocks.2.attn.qkv"], list(made.layers)):
        for unsigned in (False, True):
            assert _bytes(again, more, unsigned) == _bytes(made, [*in_float, *more], unsigned)


def test_restored_from_a_block_without_biases() -> None:
    made = int8_plan.make(block(biased=False), [noise(8)], CalibrationSettings())
    again = int8_plan.restore(made.model, qdq.write(made, ["proj"]), _reread(made))
    assert _bytes(again, []) == _bytes(made, ["proj"])


def test_what_does_not_belong_together(made: Int8Plan, model: onnx.ModelProto) -> None:
    balances = _reread(made)
    int8 = qdq.write(made)
    lacking = {key: value for key, value in balances.items() if key != "gelu"}
    short = dict(balances)
    short["gelu"] = dataclasses.replace(short["gelu"], shift=short["gelu"].shift[:5])
    for wrong in (lacking, {**balances, "other": balances["gelu"]}, short):
        with refused(ExportError, "belongs to another graph; run: fgdeploy calibrate"):
            int8_plan.restore(model, int8, wrong)
    held = next(i for i in int8.graph.initializer if i.name == "blocks.0.mlp.fc1/integers")
    held.CopyFrom(numpy_helper.from_array(np.zeros((3, 5), np.int8), held.name))
    with refused(ExportError, r"blocks\.0\.mlp\.fc1 is of another model; run: fgdeploy calibrate"):
        int8_plan.restore(model, int8, balances)


def test_a_quantised_graph(made: Int8Plan) -> None:
    with refused(ExportError, "quantised already; calibrate the fp32 graph"):
        int8_plan.make(qdq.write(made), [], CalibrationSettings())


def test_a_graph_without_layers() -> None:
    draft = Draft()
    draft.op("Relu", ["frames"], "hash")
    small = draft.model({"frames": ["n", 4]}, {"hash": ["n", 4]})
    with refused(ExportError, "no layer that INT8 could take; export it again"):
        int8_plan.make(small, [], CalibrationSettings())


def test_pixels_that_are_no_pixels() -> None:
    """A patch embedding that reads anything but cast and turned frames stays in float."""
    drawn = block()
    maker(drawn, "pixels").op_type = "Cast"
    half = Draft()
    half.op("Mul", ["pixels", half.constant("half", np.float32(0.5))], "halved")
    drawn.graph.initializer.extend(half.held)
    drawn.graph.node.insert(1, half.nodes[0])
    maker(drawn, "planes").input[0] = "halved"
    made = int8_plan.make(drawn, [noise(8)], CalibrationSettings())
    assert list(made.layers) == ["qkv", "proj", "fc1", "fc2"]
    assert "embed.weight" in {item.name for item in qdq.write(made).graph.initializer}


@pytest.mark.parametrize("compensate", [True, False])
def test_a_patch_embedding_without_a_bias(compensate: bool) -> None:
    drawn = block()
    node = maker(drawn, "patches")
    del node.input[2]
    drawn.graph.initializer.remove(
        next(item for item in drawn.graph.initializer if item.name == "embed.bias")
    )
    made = int8_plan.make(drawn, [noise(16)], CalibrationSettings(compensate=compensate))
    layer = made.layers["embed"]
    # bias + centre * sum of the kernel: what centring pixels takes away
    kernel = constant(drawn, "embed.weight").astype(np.float64)
    assert np.allclose(layer.bias, 128 * kernel.reshape(len(kernel), -1).sum(axis=1))
    frames = noise(4, seed=5)
    got = run(qdq.write(made, ["qkv", "proj", "fc1", "fc2"]), frames)["hash"]
    wanted = run(drawn, frames)["hash"]
    assert got.shape == (4, BITS)
    assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted)
