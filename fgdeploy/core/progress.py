"""How long work says what it does: how far it is, and in words. By default nobody hears it."""

from __future__ import annotations

from collections.abc import Callable

# Called with (done, total) as work goes on.
Progress = Callable[[int, int], None]
# Makes a progress for a label.
Bars = Callable[[str], Progress]
# Called with one line of plain text.
Notify = Callable[[str], None]


def no_progress(done: int, total: int) -> None:
    """Show nothing of how far work is."""


def no_bars(label: str) -> Progress:
    """Return a progress that shows nothing."""
    return no_progress


def silent(message: str) -> None:
    """Say nothing."""
