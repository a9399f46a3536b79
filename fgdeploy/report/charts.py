"""Plots of a report as SVG inside its page: text stays text, colours follow the page's, same bytes.

matplotlib draws with stand-in colours, which become `currentColor` and the page's variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from fgdeploy.evaluation.metrics import Detail
from fgdeploy.evaluation.report import figure_type
from fgdeploy.proof.pareto import Point, front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NEED = "the report with its plots"
_INK, _GRID = "#010203", "#040506"
_LINES = tuple(f"#0708{number:02x}" for number in range(16, 22))
_MARKERS = "os^Dv<"
_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), _INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "fgdeploy",
}


def check_plots() -> None:
    """Raise MissingDependency unless plots can be drawn."""
    figure_type(_NEED, "report")


def precision_over_recall(protocols: Mapping[str, Detail]) -> str:
    """Return precision over recall within each Hamming radius, a line for each protocol."""

    def draw(axes: Any) -> None:
        for number, (name, detail) in enumerate(protocols.items()):
            curve = detail.curve
            axes.plot(curve.recall, curve.precision, label=name, **_line(number))
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")

    words = "Precision over recall within each Hamming radius: " + "; ".join(
        f"{name} from {detail.curve.precision[0]:.2f} at recall {detail.curve.recall[0]:.2f} to "
        f"{detail.curve.precision[-1]:.2f} at recall 1"
        for name, detail in protocols.items()
    )
    return _drawn("pr", draw, words)


def at_k(protocols: Mapping[str, Detail], measure: str) -> str:
    """Return `recall` or `precision` at k, a line for each protocol."""

    def draw(axes: Any) -> None:
        for number, (name, detail) in enumerate(protocols.items()):
            values: dict[int, float] = getattr(detail.scores, measure)
            axes.plot(list(values), list(values.values()), label=name, **_line(number))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(ylim=(0, 1.02), xlabel="k", ylabel=f"{measure} at k")

    words = f"{measure} at k: " + "; ".join(
        f"{name} " + ", ".join(f"{v:.2f} at {k}" for k, v in getattr(d.scores, measure).items())
        for name, d in protocols.items()
    )
    return _drawn(measure, draw, words)


def pareto(points: Sequence[Point], low: str, high: str) -> str:
    """Return accuracy over time; outlined points are those that none beats in both."""
    best = front(points)
    names = list(dict.fromkeys(point.name for point in points))

    def draw(axes: Any) -> None:
        axes.plot([p.x for p in best], [p.y for p in best], color=_GRID, ls="--", zorder=1)
        for number, name in enumerate(names):
            mine = [point for point in points if point.name == name]
            axes.plot(
                [point.x for point in mine],
                [point.y for point in mine],
                label=name,
                ls="none",
                ms=8,
                marker=_MARKERS[number % len(_MARKERS)],
                color=_LINES[number % len(_LINES)],
            )
        for point in points:
            place = (point.x, point.y)
            axes.annotate(point.batch, place, (6, 5), textcoords="offset points", fontsize=8)
        axes.margins(0.15)
        axes.set(xlabel=low, ylabel=high)

    words = f"{high} over {low}: " + "; ".join(
        f"{one.name} batch {one.batch}: {one.y:.2f} at {one.x:.2f}" for one in points
    )
    return _drawn("pareto", draw, words, (7.0, 4.0))


def _line(number: int) -> dict[str, Any]:
    return {
        "color": _LINES[number % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "ms": 4,
        "lw": 1.8,
        "ls": ("-", "--", ":")[number % 3],
    }


def _drawn(name: str, draw: Any, words: str, size: tuple[float, float] = (4.4, 3.3)) -> str:
    make = figure_type(_NEED, "report")
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure = make(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(alpha=1, lw=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return _inline(figure, name, words)


def _inline(figure: Figure, name: str, words: str) -> str:
    stream = io.StringIO()
    without = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=without)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _own_ids(text, name)
    colours = {_INK: "currentColor", _GRID: "var(--grid)"}
    colours |= {line: f"var(--line{number})" for number, line in enumerate(_LINES)}
    for stand_in, colour in colours.items():
        text = text.replace(stand_in, colour)
    opening = f'<svg role="img" aria-label="{escape(words, quote=True)}" '
    return text.replace("<svg ", opening, 1).strip()


def _own_ids(text: str, name: str) -> str:
    """Keep the ids that something refers to, and make them this plot's: a page has several."""
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))

    def own(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([^"]+)"', own, text)
    return re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
