"""A picture of a benchmark: what accuracy costs in time, or speed in memory, and who is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core import atomic
from fgdeploy.core.errors import UsageError
from fgdeploy.evaluation.report import figure_type
from fgdeploy.proof.scoreboard import Scoreboard

_FORMATS = (".png", ".svg")
_NEED = "drawing the Pareto plot"
_MARKERS = "os^Dv<>pP*X"
_WIDE = 4.0  # times the smallest value, from which an axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A contender at a batch size; to the left and to the top is better."""

    name: str
    batch: int
    x: float
    y: float


def check_plot(target: Path) -> None:
    """Raise UsageError for a name that is no picture's, MissingDependency without matplotlib."""
    if target.suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot {target}: expected a name that ends in .png or .svg")
    figure_type(_NEED)


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is at least as good as in both ways, from left to right."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.x, -one.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def points_of(board: Scoreboard) -> tuple[list[Point], str, str]:
    """Return the points of a benchmark, and what lies on x and on y.

    With accuracy: mAP of 100, or equal bits in per cent where photos have no classes, over ms per
    image. Without: images per second over MiB.
    """
    if not board.accuracy:
        return (
            [
                Point(
                    line.measured.contender.name,
                    line.calls.batch,
                    line.measured.peak_mib,
                    line.calls.images_per_s,
                )
                for line in board.lines
            ],
            "peak memory of the process, MiB",
            "images per second",
        )
    known = [line for line in board.lines if line.measured.contender.name in board.accuracy]
    named = all(one.map_candidate is not None for one in board.accuracy.values())
    points = []
    for line in known:
        parity = board.accuracy[line.measured.contender.name]
        share = parity.map_candidate if named else parity.bit_agreement
        name, batch = line.measured.contender.name, line.calls.batch
        points.append(Point(name, batch, 1e3 / line.calls.images_per_s, 100 * (share or 0.0)))
    high = "mAP x 100, photos among themselves" if named else "code bits equal to fp32, %"
    return points, "median latency per image, ms", high


def draw(board: Scoreboard, target: Path) -> None:
    """Draw a benchmark into a PNG or SVG. Raises as `check_plot`, and OSError."""
    check_plot(target)
    points, low, high = points_of(board)
    figure = figure_type(_NEED)(figsize=(9.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(point.name for point in points))
    batches = sorted({point.batch for point in points})
    for number, batch in enumerate(batches):
        here = [point for point in points if point.batch == batch]
        best = front(here)
        axes.plot(
            [one.x for one in best], [one.y for one in best], color="0.6", lw=1, ls="--", zorder=1
        )
        for point in here:
            axes.scatter(
                point.x,
                point.y,
                s=70,
                color=f"C{names.index(point.name) % 10}",
                marker=_MARKERS[number % len(_MARKERS)],
                edgecolors="black" if point in best else "none",
                zorder=2,
            )
    for number, name in enumerate(names):
        axes.scatter([], [], color=f"C{number % 10}", marker="s", label=name)
    for number, batch in enumerate(batches):
        axes.scatter(
            [], [], color="0.4", marker=_MARKERS[number % len(_MARKERS)], label=f"batch {batch}"
        )
    axes.plot([], [], color="0.6", lw=1, ls="--", label="outlined: none is better in both")
    values = [point.x for point in points]
    if values and max(values) > _WIDE * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel=f"{low} (less is better)", ylabel=f"{high} (more is better)")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    with atomic.new_file(target) as stream:
        figure.savefig(stream, format=target.suffix[1:].lower())
