"""Files of an evaluation: precision-recall curves as CSV and PNG, and a table of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgdeploy.core import atomic, privacy
from fgdeploy.core.errors import MissingDependency
from fgdeploy.evaluation.accuracy import Accuracy
from fgdeploy.evaluation.metrics import Curve, Detail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT_FILE, CLASSES_FILE = "pr_curve.png", "per_class.csv"
ACCURACY_FILE = "accuracy.csv"
_NEED = "drawing the PR curve"


def write_report(
    folder: Path, protocols: Mapping[str, Detail], accuracy: Accuracy | None = None
) -> list[Path]:
    """Write curve_<protocol>.csv, per_class.csv and pr_curve.png; return their paths.

    accuracy: written to accuracy.csv, where there is one; an old file of that name goes otherwise.
    The folder is made if its parent exists. Each file is replaced atomically. Raises
    MissingDependency without matplotlib, before anything is written, and OSError.
    """
    check_drawing()
    folder.mkdir(exist_ok=True)
    curves = {name: detail.curve for name, detail in protocols.items()}
    files = {folder / f"curve_{name}.csv": curve for name, curve in curves.items()}
    for path, curve in files.items():
        write_curve(path, curve)
    write_classes(folder / CLASSES_FILE, protocols)
    draw_curves(folder / PLOT_FILE, curves)
    written = [*files, folder / CLASSES_FILE, folder / PLOT_FILE]
    if accuracy is None:
        (folder / ACCURACY_FILE).unlink(missing_ok=True)
        return written
    write_accuracy(folder / ACCURACY_FILE, accuracy)
    return [*written, folder / ACCURACY_FILE]


def write_curve(target: Path, curve: Curve) -> None:
    """Write a CSV with columns radius, precision, recall, in full precision."""
    rows = zip(curve.radii, curve.precision, curve.recall, strict=True)
    _write_csv(target, ("radius", "precision", "recall"), rows)


def write_classes(target: Path, protocols: Mapping[str, Detail]) -> None:
    """Write a CSV with one row for each protocol and class of queries, in full precision."""
    rows = (
        (name, row.name, row.queries, row.map, row.tie_aware_map, row.recall_at_1)
        for name, detail in protocols.items()
        for row in detail.classes
    )
    header = ("protocol", "class", "queries", "map", "tie_aware_map", "recall_at_1")
    _write_csv(target, header, rows)


def write_accuracy(target: Path, accuracy: Accuracy) -> None:
    """Write a CSV with one row for each class of queries; top5 is empty below five classes."""
    rows = ((row.name, row.queries, row.top1, row.top5) for row in accuracy.classes)
    _write_csv(target, ("class", "queries", "top1", "top5"), rows)


def _write_csv(target: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic.write_text(target, text.getvalue())


def check_drawing() -> None:
    """Raise MissingDependency unless curves can be drawn."""
    figure_type(_NEED)


def figure_type(need: str, extra: str = "train") -> type[Figure]:
    """Return matplotlib's Figure, which needs no window. Raises MissingDependency of these."""
    try:
        # It lists the fonts of the machine, by default into a file in the home folder.
        with privacy.throwaway_folder("matplotlib", "MPLCONFIGDIR"):
            from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", extra, need) from None
    return Figure


def draw_curves(target: Path, curves: Mapping[str, Curve]) -> None:
    """Draw precision over recall into a PNG, a line for each name, a point for each radius.

    Raises MissingDependency without matplotlib.
    """
    # Not pyplot: it would choose a window system and keep every figure
    figure = figure_type(_NEED)(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(curve.recall, curve.precision, marker=".", label=name)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("Within each Hamming radius, all queries together")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic.new_file(target) as stream:
        figure.savefig(stream, format="png")
