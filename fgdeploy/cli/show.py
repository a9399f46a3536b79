"""What commands have in common: options, where output goes, tables and progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import objects

if TYPE_CHECKING:
    from fgdeploy.hasher import Hasher

SKIPPED = 3  # exit code when photos were left out

BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="NAME or NAME:PRECISION. Default: the fastest engine built here, else fp32.",
        metavar="NAME",
    ),
]
FallbackOption = Annotated[
    bool,
    typer.Option("--fallback", help="Where the engine does not fit this machine, run the next."),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="CPU threads. Default: all cores.")
]
BatchOption = Annotated[
    int | None, typer.Option("--batch", help="Photos in one run of the engine. Default: 8 at most.")
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


def say(message: str) -> None:
    """Print a message to stderr; stdout is for data."""
    typer.echo(plain(message), err=True)


def plain(text: str) -> str:
    """Return `text` without control characters, which a file name may hold to paint a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def emit_json(value: Any) -> None:
    """Print one JSON value on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def open_hasher(
    bundle: Path | None,
    backend: str,
    threads: int | None,
    fallback: bool,
    batch: int | None = None,
) -> Hasher:
    """Open the bundle that is meant, and say which engine runs if there was a choice."""
    from fgdeploy.hasher import load

    path = objects.bundle_of(None, bundle, "name one with --bundle")
    hasher = load(path, backend, "auto", threads, batch, fallback=fallback, notify=say)
    if hasher.engine.reason not in ("", "none built"):
        say(f"engine: {hasher.engine.describe()}, {hasher.engine.reason}")
    return hasher


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Return rows as aligned columns; numbers to the right."""
    lines = [
        [plain(str(cell)) for cell in row] for row in ([header] if header else []) + list(rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    numeric = [
        all(isinstance(row[i], (int, float)) or _number(str(row[i])) for row in rows)
        for i in range(len(widths))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def parity_line(parity: Any) -> str:
    """Return a parity in one line: bits, codes, and mAP where it is known."""
    line = f"{parity.bit_agreement:.2%} of bits, {parity.identical_codes:.1%} of codes equal"
    if parity.map_drop is not None:
        line += f", mAP {100 * parity.map_candidate:.2f} ({-parity.map_drop:+.2f} points)"
    return f"{line} on {parity.photos} photos"


def _number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").replace("-", "").isdigit()


def progress(label: str) -> Callable[[int, int], None]:
    """Return a callback (done, total) that keeps one line on a terminal's stderr up to date."""
    start = time.monotonic()

    def update(done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        seconds = max(time.monotonic() - start, 1e-9)
        left = seconds / max(done, 1) * (total - done)
        text = f"\r{label} {done}/{total}  {done / seconds:.0f}/s  {left:.0f} s left "
        sys.stderr.write(text + ("\n" if done >= total else ""))
        sys.stderr.flush()

    return update


def report_skipped(errors: Sequence[str], told: bool = False) -> None:
    """Name the photos that were left out and exit with 3, or return if there are none.

    told: they were named when they were met.
    """
    if not errors:
        return
    if not told:
        for error in errors:
            say(f"skipped: {error}")
        say(f"{len(errors)} photos skipped (--strict stops at the first)")
    raise typer.Exit(SKIPPED)


def macs(count: int) -> str:
    """Return multiply-accumulates with three digits and more, such as 2.274 G or 6.113 M."""
    return f"{count / 1e9:,.3f} G" if count >= 5e7 else f"{count / 1e6:,.3f} M"


def option(value: object) -> str:
    """Return an option's value in one line: pairs of numbers as `4:98, 8:49`."""
    if isinstance(value, list):
        items = (":".join(map(str, one)) if isinstance(one, list) else str(one) for one in value)
        return ", ".join(items) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "as published" if value is None else str(value)
