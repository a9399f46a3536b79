"""The linear probe: its photos left out one by one are those of as many regressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgdeploy.training import linear_probe


def _set(classes: int, apart: float) -> tuple[Any, Any]:
    chooser = np.random.default_rng(3)
    labels = np.arange(30) % classes
    rows = apart * chooser.standard_normal((classes, 8))[labels]
    return rows + chooser.standard_normal((30, 8)) + 0.4, labels


@pytest.mark.parametrize("apart", [0.0, 0.8, 30.0])
def test_leaving_out_needs_no_second_fit(apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = _set(3, apart)
    gram = np.concatenate([rows, np.ones((30, 1))], axis=1)
    penalty = linear_probe.RIDGE * np.square(gram).sum() / 9
    right = 0
    for out in range(30):
        kept = np.arange(30) != out
        some = gram[kept]
        solved = np.linalg.solve(
            some.T @ some + penalty * np.eye(9), some.T @ np.eye(3)[labels[kept]]
        )
        right += int((gram[out] @ solved).argmax() == labels[out])
    assert linear_probe.fit(rows, labels, 3).told == right / 30
    monkeypatch.setattr(linear_probe, "_AT_ONCE", 10)  # in parts
    assert linear_probe.fit(rows, labels, 3).told == right / 30
    if apart == 30:
        assert right == 30


def test_classes_of_one_photo_are_not_asked() -> None:
    rows, _ = _set(3, 1.0)
    assert linear_probe.fit(rows, np.arange(30), 30).told is None
    labels = np.array([0] * 15 + list(range(1, 16)))
    told = linear_probe.fit(rows, labels, 16).told
    assert told is not None and (told * 15) % 1 == pytest.approx(0)


def test_photos_that_are_all_alike_give_no_nan() -> None:
    labels = np.arange(10) % 2
    probe = linear_probe.fit(np.ones((10, 4)), labels, 2)
    assert np.isfinite(probe.weights).all() and np.isfinite(probe.bias).all()
    assert probe.told is not None and 0 <= probe.told <= 1
