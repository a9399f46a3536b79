from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import EngineError
from fgdeploy.core.logits import best, softmax
from tests.checks import refused


def test_the_best_classes_by_score_then_by_number() -> None:
    logits = np.array([[0, 2, 1, 2, -3], [5, 5, 5, 5, 5], [-1, -2, -3, -4, 9]], np.float32)
    assert best(logits, 4).tolist() == [[1, 3, 2, 0], [0, 1, 2, 3], [4, 0, 1, 2]]
    assert best(logits, 1).tolist() == [[1], [0], [4]]
    assert best(logits, 99).tolist()[0] == [1, 3, 2, 0, 4]


def test_they_are_those_of_a_plain_sort() -> None:
    drawn = np.random.default_rng(0).integers(-3, 3, (200, 40)).astype(np.float32)
    for row, found in zip(drawn.tolist(), best(drawn, 7).tolist(), strict=True):
        assert found == sorted(range(40), key=lambda number: (-row[number], number))[:7]


def test_probabilities() -> None:
    found = softmax(np.array([[0.0, math.log(3)], [7.0, 7.0]], np.float64))
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-12)
    large = softmax(np.array([[3e38, 0.0, -3e38]], np.float32))
    assert large.tolist() == [[1.0, 0.0, 0.0]]
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(odd: float) -> None:
    logits: npt.NDArray[np.float32] = np.array([[0, 1], [odd, 2]], np.float32)
    for function in (softmax, lambda given: best(given, 1)):
        with refused(EngineError, "NaN or infinite class logits; its precision does not hold"):
            function(logits)
