"""The order of equal scores: by position, whatever an engine's TopK or ArgMin does with them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.models.reduce import order
from tests.checks import examples

# Few different values, so that most of them are equal.
_ROWS = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 7.0]), min_size=1, max_size=12)


@examples(60)
@given(_ROWS, st.data())
def test_best_is_a_stable_sort(row: list[float], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(row)))
    chosen = order.best(torch.tensor([row, row[::-1]]), keep)
    for scores, rows, mask in zip(
        (row, row[::-1]), chosen.rows.tolist(), chosen.mask.tolist(), strict=True
    ):
        by_score = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
        assert rows == sorted(by_score[:keep])
        assert mask == [float(at in rows) for at in range(len(scores))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_scores_keep_the_first(dtype: torch.dtype) -> None:
    chosen = order.best(torch.full((2, 784), 0.125, dtype=dtype), 393)
    assert chosen.rows.tolist() == [list(range(393))] * 2


def test_positions_rise() -> None:
    mask = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]])
    assert order.positions(mask, 3).tolist() == [[1, 3, 4], [0, 1, 2]]


@examples(40)
@given(_ROWS)
def test_first_least_is_the_first_of_equal_ones(row: list[float]) -> None:
    values = torch.tensor([[row], [row[::-1]]])
    expected = [[row.index(min(row))], [row[::-1].index(min(row))]]
    assert order.first_least(values).tolist() == expected


def test_rising_sorts_values() -> None:
    assert order.rising(torch.tensor([[2.0, -1.0, 2.0, 0.0]])).tolist() == [[-1.0, 0.0, 2.0, 2.0]]


@examples(40)
@given(_ROWS, st.data())
def test_the_best_in_several_goes_are_the_best(row: list[float], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(row)))
    most = data.draw(st.integers(1, len(row)))
    scores = torch.tensor([row, row[::-1]])
    assert torch.equal(order.mask_of_best(scores, keep, most), order.best(scores, keep).mask)
