"""Progress bars for long work, on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fgdeploy.cli import show
from fgdeploy.cli.log_lines import LogLines
from fgdeploy.core.progress import no_progress
from fgdeploy.core.text import one_line


@dataclass(frozen=True)
class TerminalBars:
    """Bars on stderr. `say` prints above them; `make` gives a callback (done, total) by label."""

    live: Progress

    def say(self, message: str) -> None:
        """Print one line of plain text."""
        if not self.live.console.is_terminal:
            show.say(message)
        elif not show.manner().quiet:
            self.live.console.print(one_line(message), soft_wrap=True)

    def start(self, label: str, total: int | None = None) -> TaskID:
        """Show a bar and return its number."""
        return self.live.add_task(label, total=total, facts="")

    def log(self, label: str) -> Callable[[int, int], None]:
        """Return a callback (done, total) that says in a log how far work is; no bar."""
        if self.live.console.is_terminal:
            return no_progress
        return LogLines(label, show.say).update

    def make(self, label: str) -> Callable[[int, int], None]:
        """Return a callback (done, total) that shows a bar with its speed until all is done."""
        if not self.live.console.is_terminal:
            return self.log(label)
        shown: list[TaskID] = []
        start = time.monotonic()

        def update(done: int, total: int) -> None:
            if not shown:
                shown.append(self.start(label, total))
            rate = done / max(time.monotonic() - start, 1e-9)
            self.live.update(shown[0], completed=done, total=total, facts=f"{rate:.0f}/s")
            if done >= total:
                self.live.remove_task(shown.pop())

        return update


@contextlib.contextmanager
def bars() -> Iterator[TerminalBars]:
    """Give bars that vanish when their work is done."""
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    quiet = show.manner().quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as live:
        yield TerminalBars(live)
