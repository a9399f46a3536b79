"""The judge: limits, hashes in batches, and errors of a part of the frames."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fgdeploy.calibration import judge
from fgdeploy.calibration.judge import Judge
from fgdeploy.core.errors import ParityError
from tests.calibration.graphs import block, constant, noise, replace, run
from tests.checks import refused


def _turned(bits: list[int]) -> onnx.ModelProto:
    """Return the block with some bits of its hash of the other sign."""
    drawn = block()
    weight = constant(drawn, "head.weight").copy()
    weight[:, bits] *= -1
    replace(drawn, "head.weight", weight)
    return drawn


def test_hashes_of_all_frames_in_batches() -> None:
    drawn, frames = block(), noise(19)
    told: list[tuple[int, int]] = []
    found = judge.run(drawn, frames, lambda done, total: told.append((done, total)))
    assert told == [(8, 19), (16, 19), (19, 19)]
    hashes, codes = found.hash, found.code
    assert hashes.shape == (19, 16)
    assert np.allclose(hashes, run(drawn, frames)["hash"], atol=1e-4)
    assert (np.packbits(hashes > 0, axis=1) == codes).all()


def test_the_same_graph_does_not_differ() -> None:
    one = Judge(block(), noise(12), ["a", "b"] * 6)
    parity = one.parity(block())
    assert parity.max_hash_diff == 0
    assert (parity.bit_agreement, parity.map_drop) == (1, 0)
    assert one.error(block(), 12) == (0, 0)


def test_how_much_another_differs() -> None:
    frames = noise(12)
    one = Judge(block(), frames, [None] * 12)
    parity = one.parity(_turned([0, 5, 9, 10]))
    assert parity.bit_agreement == 0.75
    assert parity.map_drop is None
    error, changed = one.error(_turned([0, 5, 9, 10]), 7)
    assert changed == 0.25
    hashes = run(block(), frames[:7])["hash"].astype(np.float64)
    part = np.linalg.norm(2 * hashes[:, [0, 5, 9, 10]]) / np.linalg.norm(hashes)
    assert error == pytest.approx(part, rel=1e-4)


def test_checks_are_the_first_frames() -> None:
    frames = noise(70)
    one = Judge(block(), frames, [None] * 70)
    checks = one.checks(block(seed=1))
    assert (checks.frames == frames[:64]).all()
    assert (checks.hashes == one.hashes[:64]).all()
    assert (checks.codes == one.codes[:64]).all()
    assert checks.int8 is not None
    assert (checks.int8 == run(block(seed=1), frames[:64], ["code"])["code"]).all()


def test_one_latency_for_each_graph() -> None:
    one = Judge(block(), noise(2), [None] * 2)
    taken = one.latency_ms([block(), block(seed=1), block(seed=2)])
    assert len(taken) == 3
    assert all(0 < value < np.inf for value in taken)


def test_a_graph_that_overflows() -> None:
    drawn = block()
    held = next(item for item in drawn.graph.initializer if item.name == "head.weight")
    held.CopyFrom(numpy_helper.from_array(np.full((32, 16), np.inf, np.float32), "head.weight"))
    one = Judge(block(), noise(4), [None] * 4)
    with refused(ParityError, "NaN or infinite hashes"):
        one.parity(drawn)
