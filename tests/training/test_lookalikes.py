"""Photos that the network cannot tell apart: every such pair is found, and told with names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.photos import Photo
from fgdeploy.training import lookalikes
from tests.checks import refused


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _all_pairs(units: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> list[list[int]]:
    """Return the twins of other classes of each row, by comparing all."""
    far = 1 - units @ units.T
    return [
        np.flatnonzero((far[row] < 1e-6) & (labels != labels[row])).tolist()
        for row in range(len(units))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_all_twins_of_other_classes_are_found(seed: int) -> None:
    chooser = np.random.default_rng(seed)
    count = 700  # more than two blocks
    rows = chooser.standard_normal((count, 6))
    labels = chooser.integers(0, 5, count)
    of, to = chooser.permutation(count)[:80].reshape(2, 40)
    noise = np.where(np.arange(40) % 2, 1e-4, 1e-2)[:, None]  # every other one is no twin
    rows[to] = 3 * (rows[of] + noise * chooser.standard_normal((40, 6)))
    units = _unit(rows)
    expected = _all_pairs(units, labels)
    found = lookalikes.between_classes(units, labels)
    assert found.rows.tolist() == [row for row, twins in enumerate(expected) if twins]
    assert len(found.rows) > 10
    pairs = zip(found.rows.tolist(), found.twins.tolist(), strict=True)
    assert all(twin in expected[row] for row, twin in pairs)


def test_twins_are_told_with_an_example() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    rows[4] = 2 * rows[1]
    rows[3] = rows[0]  # of the same class
    chosen = [Photo(Path(f"{row}.jpg"), "abbabc"[row]) for row in range(6)]
    labels = np.array([0, 1, 1, 0, 0, 2])
    chosen[4] = Photo(Path("4.jpg"), "a")
    said: list[str] = []
    lookalikes.tell_lookalikes(rows, labels, chosen, said.append)
    assert said == [
        "warning: 2 training photos cannot be told from photos of another class, as the network "
        "sees the same in both: 1.jpg (b) and 4.jpg (a); one class of each pair may be wrong"
    ]
    said.clear()
    lookalikes.tell_lookalikes(rows[[0, 1, 2, 5]], labels[[0, 1, 2, 5]], chosen, said.append)
    assert said == []


def test_photos_that_all_look_the_same_are_refused() -> None:
    rows = np.ones((5, 8), np.float32) + np.linspace(0, 1e-4, 40, dtype=np.float32).reshape(5, 8)
    chosen = [Photo(Path(f"{row}.jpg"), str(row)) for row in range(5)]
    with refused(DataError, "the same in all 5 training photos, such as 0.jpg and 4.jpg, so there"):
        lookalikes.tell_lookalikes(rows, np.arange(5), chosen, print)


def test_embeddings_that_are_no_numbers_are_left_to_others() -> None:
    rows = np.full((3, 4), np.nan, np.float32)
    lookalikes.tell_lookalikes(rows, np.arange(3), [Photo(Path("x"), "a")] * 3, lambda line: None)
