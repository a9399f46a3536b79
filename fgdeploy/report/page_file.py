"""A report's page as a file."""

from __future__ import annotations

from pathlib import Path

from fgdeploy.core import atomic
from fgdeploy.core.errors import UsageError
from fgdeploy.report import charts, page
from fgdeploy.report.bundle_report import BundleReport


def check_page(target: Path, with_plots: bool) -> None:
    """Raise UsageError for a name that can be no page, MissingDependency where plots need it."""
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {target}: expected a name that ends in .html")
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"-o {target}: expected a file name in a folder that exists")
    if with_plots:
        charts.check_plots()


def write_page(target: Path, report: BundleReport) -> None:
    """Write a report as one HTML file, atomically."""
    atomic.write_text(target, page.render(report))
