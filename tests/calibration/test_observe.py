"""What was observed, against all values held at once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fgdeploy.calibration.observe import CLS_WEIGHT, ROWS_PER_IMAGE, Observed, observe
from tests.calibration.graphs import TOKENS, block, noise, run

TENSORS = ["norm1", "joined", "gelu"]


@pytest.fixture(scope="module")
def drawn() -> onnx.ModelProto:
    return block()


@pytest.fixture(scope="module")
def seen(drawn: onnx.ModelProto) -> dict[str, Observed]:
    frames = noise(10)
    return observe(drawn, TENSORS, [frames[:4], frames[4:8], frames[8:]])


@pytest.mark.parametrize("tensor", TENSORS)
def test_extremes_are_those_of_all_photos(
    drawn: onnx.ModelProto, seen: dict[str, Observed], tensor: str
) -> None:
    values = run(drawn, noise(10), TENSORS)[tensor].reshape(10 * TOKENS, -1)
    assert np.allclose(seen[tensor].low, values.min(axis=0), atol=1e-5)
    assert np.allclose(seen[tensor].high, values.max(axis=0), atol=1e-5)


def test_rows_are_each_photos_cls_and_some_others(
    drawn: onnx.ModelProto, seen: dict[str, Observed]
) -> None:
    values = run(drawn, noise(10), TENSORS)["norm1"]
    one, picked = seen["norm1"], min(ROWS_PER_IMAGE, TOKENS - 1)
    assert one.rows.shape == (10 * (1 + picked), values.shape[-1])
    assert one.weights.shape == (len(one.rows),)
    cls = one.rows[one.weights == CLS_WEIGHT]
    assert np.allclose(cls, values[:, 0], atol=1e-5)
    others = one.rows[one.weights == 1].reshape(10, picked, -1)
    for image in range(10):
        gaps = np.abs(others[image][:, None] - values[image, None, 1:]).max(axis=-1)
        places = gaps.argmin(axis=1)
        assert gaps.min(axis=1).max() < 1e-5
        assert len(set(places)) == picked  # no token twice


def test_the_same_seed_picks_the_same_rows() -> None:
    values = np.random.default_rng(0).standard_normal((3, 40, 5)).astype(np.float32)
    held = []
    for seed in (1, 1, 2):
        bound = np.full(5, np.inf)
        one = Observed(bound, -bound)
        one.add(values, np.random.default_rng(seed))
        assert one.rows.shape == (3 * (1 + ROWS_PER_IMAGE), 5)
        held.append(one.rows)
    assert (held[0] == held[1]).all()
    assert (held[0] != held[2]).any()


def test_the_graph_is_left_as_it_was(drawn: onnx.ModelProto) -> None:
    before = drawn.SerializeToString()
    observe(drawn, ["gelu"], [noise(2)])
    assert drawn.SerializeToString() == before
