"""Cosines: against exact sums, and the same number for the same rows wherever they stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.cosine import cosines, unit
from tests.checks import examples


def plain_cosine(one: list[float], other: list[float]) -> float:
    """The cosine from exact sums, 0 for a row of zeros."""
    lengths = [math.sqrt(math.fsum(v * v for v in row)) for row in (one, other)]
    if not all(lengths):
        return 0.0
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])


@examples(60)
@given(rows=st.integers(1, 6), width=st.integers(1, 300), seed=st.integers(0, 99))
def test_cosines_against_exact_sums(rows: int, width: int, seed: int) -> None:
    chooser = np.random.default_rng(seed)
    one, other = chooser.standard_normal((2, rows, width)).astype(np.float32)
    one[chooser.random(rows) < 0.2] = 0
    found = cosines(unit(one)[:, None], unit(other)[None])
    for row in range(rows):
        for column in range(rows):
            expected = plain_cosine(one[row].tolist(), other[column].tolist())
            assert found[row, column] == pytest.approx(expected, abs=1e-15)


@examples(60)
@given(
    rows=st.integers(1, 40),
    width=st.sampled_from([1, 3, 8, 9, 127, 128, 129, 192, 384, 768, 1000]),
    seed=st.integers(0, 99),
)
def test_a_cosine_depends_on_its_two_rows_only(rows: int, width: int, seed: int) -> None:
    chooser = np.random.default_rng(seed)
    many = chooser.standard_normal((rows, width)).astype(np.float32)
    query = unit(chooser.standard_normal(width))
    together = cosines(query, unit(many))
    alone = [float(cosines(query, unit(row))) for row in many]
    assert together.tolist() == alone
    order = chooser.permutation(rows)
    assert cosines(query, unit(many[order])).tolist() == together[order].tolist()
    assert cosines(unit(many)[:, None], query[None, None])[:, 0].tolist() == alone


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 3e38])
def test_any_length_has_a_direction(scale: float) -> None:
    rows = np.array([[3, 4], [-4, 3], [0, 0]], np.float64) / 5 * scale
    narrow = rows.astype(np.float32)
    found = cosines(unit(narrow), unit(np.array([1.0, 0.0])))
    assert found == pytest.approx([0.6, -0.8, 0.0], abs=0.1 if scale < 1e-40 else 1e-6)
    assert np.isfinite(found).all()
