"""What commands have in common: options, messages, and answers as a table, CSV or JSON."""

from __future__ import annotations

import contextvars
import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fgdeploy.cli import objects, streams
from fgdeploy.core.text import counted, one_line
from fgdeploy.core.text import plain as plain
from fgdeploy.report.describing import macs as macs
from fgdeploy.report.describing import option as option

if TYPE_CHECKING:
    from fgdeploy.hasher import Hasher

SKIPPED = 3  # exit code when photos were left out
_NARROWEST = 8  # characters of a column
_PAGE = 200  # rows of a table on a terminal, where more follow

BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="NAME or NAME:PRECISION. Default: auto, the fastest engine built here, else fp32.",
        metavar="NAME",
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option("--fallback", help="Where the engine does not fit this machine, run the next."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="CPU threads. Default: all cores."),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch", min=1, max=4096, help="Photos in one run of the engine. Default: 8 at most."
    ),
]
SelfTestOption = Annotated[
    float,
    typer.Option(
        "--self-test",
        min=0,
        max=3600,
        help="Seconds in which the engine must prove itself first; 0: it is not tested.",
    ),
]
LogJsonOption = Annotated[
    bool, typer.Option("--log-json", help="Log events to stderr as JSON, one object a line.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", max=2**32 - 1, help="Seed of all random choices.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable photo.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        help="Only items for which this SQL holds, such as: label = 'owl' and time > '2026-01-31'",
        metavar="EXPR",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


_One = TypeVar("_One")


@dataclass(frozen=True)
class Manner:
    """How a run talks: quiet says errors and the answer alone, csv prints rows as CSV."""

    quiet: bool = False
    csv: bool = False


_DEFAULT = Manner()
_manner: contextvars.ContextVar[Manner] = contextvars.ContextVar("manner", default=_DEFAULT)


def choose_manner(quiet: bool, as_csv: bool = False) -> None:
    """Talk so from here on; what was asked to be quiet before stays quiet."""
    _manner.set(Manner(quiet or _manner.get().quiet, as_csv))


def manner() -> Manner:
    """Return how this run talks."""
    return _manner.get()


def forget_manner() -> None:
    """Talk as by default again."""
    _manner.set(_DEFAULT)


def say(message: str) -> None:
    """Print a message to stderr, where not asked to be quiet; stdout is for data."""
    if not _manner.get().quiet:
        complain(message)


def complain(message: str) -> None:
    """Print an error to stderr."""
    typer.echo(one_line(message), err=True)


def line(text: str) -> None:
    """Print a line that goes with a table; beside CSV, which it is no part of, it is a message."""
    if _manner.get().csv:
        say(text)
    else:
        typer.echo(plain(text))


def emit_json(value: Any) -> None:
    """Print one JSON value on one line, without a character that could paint a terminal."""
    text = json.dumps(value, ensure_ascii=False)
    typer.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def rows(
    cells: Sequence[Sequence[Any]], header: Sequence[str] = (), title: str = "", empty: str = ""
) -> None:
    """Print rows as a table that fits the terminal, or as CSV.

    header: of the columns; without one, rows are names and values, and CSV says so. title: of a
    table that follows another; in CSV an empty line stands for it. empty: what to print for a
    table without rows.
    """
    if _manner.get().csv:
        typer.echo("\n" if title else "", nl=False)
        _emit_csv([header or ("name", "value"), *cells])
        return
    if title:
        typer.echo(f"\n{title}")
    typer.echo(table(cells, header, terminal_width()) if cells or not empty else empty)


def stream(cells: Iterable[Sequence[Any]], header: Sequence[str], between: str = "\t") -> None:
    """Print rows as they come: cells with a tab or such between, and no header, or CSV.

    On a terminal, rows with tabs are tables that fit it, a page at a time.
    """
    heard = while_heard(cells)
    if _manner.get().csv:
        _emit_csv([header])
        for row in heard:
            _emit_csv([row])
    elif between == "\t" and (width := terminal_width()) is not None:
        while page := list(islice(heard, _PAGE)):
            typer.echo(table(page, header, width))
    else:
        for row in heard:
            typer.echo(between.join(plain(str(cell)) for cell in row))


def while_heard(things: Iterable[_One]) -> Iterator[_One]:
    """Yield things as long as somebody reads the answers to them."""
    for thing in things:
        if streams.unheard():
            return
        yield thing


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None for a file or pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def open_hasher(
    bundle: Path | None,
    backend: str,
    threads: int | None,
    fallback: bool,
    batch: int | None = None,
    bit_depth: int | None = None,
    self_test: float | None = None,
    verify: Path | None = None,
) -> Hasher:
    """Open the bundle that is meant, and say which engine runs if there was a choice."""
    from fgdeploy.hasher import load

    path = objects.bundle_of(None, bundle, "name one with --bundle")
    hasher = load(
        path, backend, "auto", threads, batch, fallback, say, bit_depth, self_test, verify
    )
    if hasher.engine.reason not in ("", "none built"):
        say(f"engine: {hasher.engine.describe()}, {hasher.engine.reason}")
    return hasher


def table(
    rows: Sequence[Sequence[Any]], header: Sequence[str] = (), width: int | None = None
) -> str:
    """Return rows as aligned columns; numbers to the right.

    width: of the terminal; what is too long for it loses its middle.
    """
    lines = [
        [plain(str(cell)) for cell in row] for row in ([header] if header else []) + list(rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    if width is not None:
        widths = _narrowed(widths, width)
    numeric = [
        all(isinstance(row[i], (int, float)) or _number(str(row[i])) for row in rows)
        for i in range(len(widths))
    ]
    return "\n".join(
        "  ".join(
            _cut(cell, width).rjust(width) if right else _cut(cell, width).ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _narrowed(widths: Sequence[int], total: int) -> list[int]:
    """Return widths of columns of which the widest were made narrower, until all fit."""
    found = list(widths)
    while sum(found) + 2 * (len(found) - 1) > total and max(found) > _NARROWEST:
        found[found.index(max(found))] -= 1
    return found


def _cut(cell: str, width: int) -> str:
    """Return a cell of at most `width` characters, its middle left out; ends tell paths apart."""
    if len(cell) <= width:
        return cell
    end = width * 2 // 3
    return f"{cell[: width - end - 1]}\N{HORIZONTAL ELLIPSIS}{cell[-end:]}"


def _emit_csv(lines: Iterable[Sequence[Any]]) -> None:
    clean = plain if sys.stdout.isatty() else str  # a file gets names as they are
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([clean(_ungrouped(str(cell))) for cell in line] for line in lines)
    sys.stdout.flush()


def _ungrouped(text: str) -> str:
    return text.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", text, re.ASCII) else text


def parity_line(parity: Any) -> str:
    """Return a parity in one line: bits, codes, and mAP where it is known."""
    line = f"{parity.bit_agreement:.2%} of bits, {parity.identical_codes:.1%} of codes equal"
    if parity.map_drop is not None:
        line += f", mAP {100 * parity.map_candidate:.2f} ({-parity.map_drop:+.2f} points)"
    return f"{line} on {counted(parity.photos, 'photo')}"


def _number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").replace("-", "").isdigit()


def progress(label: str) -> Callable[[int, int], None]:
    """Return a callback (done, total): one line of a terminal kept up to date, or a log's lines."""
    from fgdeploy.cli.log_lines import LogLines, Painted

    if manner().quiet:
        return lambda done, total: None
    return Painted(label).update if sys.stderr.isatty() else LogLines(label, say).update


def report_skipped(errors: Sequence[str], told: bool = False) -> None:
    """Name the photos that were left out and exit with 3, or return if there are none.

    told: they were named when they were met.
    """
    if not errors:
        return
    if not told:
        for error in errors:
            complain(f"skipped: {error}")
        complain(f"{counted(len(errors), 'photo')} skipped (--strict stops at the first)")
    raise typer.Exit(SKIPPED)
