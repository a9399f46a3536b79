"""How near codes came to their targets, bit by bit and photo by photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.errors import DataError
from fgdeploy.evaluation.targets import Targets
from fgdeploy.training.reached import SHARES, Reached, compare_codes
from tests.checks import examples, refused


def _targets(signs: np.ndarray) -> Targets:
    return Targets(
        np.array(["a"]), np.zeros(len(signs), np.int64), np.packbits(signs > 0, axis=1), 12
    )


def test_shares_by_hand() -> None:
    signs = np.ones((2, 12), np.int8)
    own = signs.copy()
    own[0, :3] = -1
    found = compare_codes(np.packbits(own > 0, axis=1), _targets(signs), 0.8, 0.6)
    assert (found.bits_equal, found.codes_equal) == (21 / 24, 0.5)  # padding counts for nothing
    assert found.gap == pytest.approx(0.25)
    for to_targets, to_codes in ((None, None), (0.0, 0.2), (0.5, None)):
        none = compare_codes(np.packbits(own > 0, axis=1), _targets(signs), to_targets, to_codes)
        assert none.gap is None
    assert compare_codes(np.packbits(own > 0, axis=1), _targets(signs), 0.5, 0.6).gap == (
        pytest.approx(-0.2)
    )


@examples(60)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_shares_are_those_of_a_plain_count(rows: int, seed: int) -> None:
    chooser = np.random.default_rng(seed)
    signs, own = (np.where(chooser.random((rows, 12)) < 0.8, 1, -1) for _ in range(2))
    found = compare_codes(np.packbits(own > 0, axis=1), _targets(signs), None, None)
    equal = [
        [int(a == b) for a, b in zip(*pair, strict=True)] for pair in zip(signs, own, strict=True)
    ]
    assert found.bits_equal == pytest.approx(sum(map(sum, equal)) / (12 * rows))
    assert found.codes_equal == pytest.approx(sum(sum(row) == 12 for row in equal) / rows)
    SHARES(found.to_json(), "")
    assert Reached.from_json(found.to_json()) == found


def test_codes_of_other_photos_are_refused() -> None:
    with refused(DataError, r"codes \(3, 2\) and target codes \(2, 2\) differ"):
        compare_codes(np.zeros((3, 2), np.uint8), _targets(np.ones((2, 12))), None, None)
