"""The front of a Pareto plot."""

from __future__ import annotations

from pathlib import Path

from fgdeploy.core.errors import UsageError
from fgdeploy.proof.pareto import Point, check_plot, front
from tests.checks import refused


def test_the_front_is_what_none_beats_in_both() -> None:
    a, b, c = Point("a", 1, 1.0, 5.0), Point("b", 1, 2.0, 5.0), Point("c", 1, 3.0, 9.0)
    d = Point("d", 1, 1.0, 4.0)
    assert front([c, d, b, a]) == [a, c]


def test_other_pictures_are_refused() -> None:
    with refused(UsageError, r"--plot x\.jpg: expected a name that ends in \.png or \.svg"):
        check_plot(Path("x.jpg"))
