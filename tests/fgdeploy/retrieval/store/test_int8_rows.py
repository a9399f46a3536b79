"""Embeddings in 8 bits: how far values and directions may be off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.cosine import cosines, unit
from fgdeploy.retrieval.store.int8_rows import MOST, angle_of, quantised, restored
from tests.checks import examples


def rows_of(seed: int, rows: int, width: int, scale: float) -> np.ndarray:
    chooser = np.random.default_rng(seed)
    kind = chooser.integers(3)
    values = chooser.standard_normal((rows, width))
    if kind == 1:
        values = values**5  # a few large values
    if kind == 2:
        values = np.abs(values)
    return np.asarray(values * scale, np.float32)


@examples(150)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 5),
    width=st.sampled_from([1, 2, 7, 64, 192]),
    scale=st.sampled_from([1e-44, 1e-38, 1e-6, 1.0, 1e30]),
)
def test_no_value_is_off_by_more_than_half_a_scale(
    seed: int, rows: int, width: int, scale: float
) -> None:
    given_rows = rows_of(seed, rows, width, scale)
    values, scales = quantised(given_rows)
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    assert np.abs(values.astype(np.int64)).max(initial=0) <= MOST
    error = np.abs(restored(values, scales) - given_rows.astype(np.float64))
    assert (error <= scales.astype(np.float64)[:, None] / 2 * (1 + 1e-12)).all()
    largest = np.abs(given_rows.astype(np.float64)).max(axis=1)
    assert (scales >= largest / MOST).all()
    assert (scales <= largest / MOST * (1 + 2.0**-22) + 2.0**-149).all()  # and no larger than that


@examples(150)
@given(
    seed=st.integers(0, 999), width=st.sampled_from([1, 2, 7, 64, 192]), queries=st.integers(1, 8)
)
def test_no_cosine_changes_by_more_than_the_angle(seed: int, width: int, queries: int) -> None:
    rows = rows_of(seed, 5, width, 1.0)
    values, scales = quantised(rows)
    bound = angle_of(rows, scales)
    turned = np.arccos(np.clip(cosines(unit(rows), unit(restored(values, scales))), -1, 1))
    assert (turned <= bound + 3e-8).all()  # arccos near 1 cannot tell less apart
    asked = unit(np.random.default_rng(seed).standard_normal((queries, width)))[:, None]
    change = cosines(asked, unit(rows)) - cosines(asked, unit(restored(values, scales)))
    assert (np.abs(change) <= bound + 1e-14).all()


def test_the_bound_is_met_by_a_row_that_lies_halfway() -> None:
    rows = np.array([[127.0, 0.5, -0.5, 2.5, 3.5]], np.float32)
    values, scales = quantised(rows)
    assert scales.tolist() == [1.0]
    assert values.tolist() == [[127, 0, 0, 2, 4]]
    assert np.abs(restored(values, scales) - rows).max() == 0.5


def test_zeros_stay_zeros() -> None:
    values, scales = quantised(np.zeros((2, 3), np.float32))
    assert (values.tolist(), scales.tolist()) == ([[0] * 3] * 2, [0.0, 0.0])
    assert angle_of(np.zeros((2, 3), np.float32), scales).tolist() == [0.0, 0.0]
    assert quantised(np.zeros((0, 3), np.float32))[0].shape == (0, 3)


@pytest.mark.parametrize("width", [64, 192, 768])
def test_of_ordinary_embeddings_a_cosine_changes_by_less_than_a_hundredth(width: int) -> None:
    rows = np.random.default_rng(0).standard_normal((200, width)).astype(np.float32)
    values, scales = quantised(rows)
    assert angle_of(rows, scales).max() < 0.02
    asked = unit(rows[:20])[:, None]
    change = cosines(asked, unit(rows)) - cosines(asked, unit(restored(values, scales)))
    assert np.abs(change).max() < 0.005
