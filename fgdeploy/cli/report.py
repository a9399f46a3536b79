"""`fgdeploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show

if TYPE_CHECKING:
    from fgdeploy.photos import Columns


@lists.takes_list
def report(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE",
            help="The bundle, or the folder of a training. Default: the one *.fgd in this folder.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of classes, or a CSV (path,class,split), to measure it on. "
            "Default: none; the page has card, records and hashes.",
            metavar="PHOTOS",
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            help="A gallery that the queries search, too. Default: none.", metavar="INDEX"
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="BACKEND[:PRECISION] to measure, the first in full; more with more --backend. "
            "Default: those that were built, or else the graphs that open directly.",
            metavar="NAME",
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("-o", help="The page to write. Default: report.html.", metavar="FILE"),
    ] = None,
    queries: Annotated[
        str, typer.Option(help="Split of a CSV whose photos are the queries.")
    ] = "test",
    gallery: Annotated[str, typer.Option(help="Split of a CSV that is searched.")] = "train",
    pictures: Annotated[
        int, typer.Option(min=0, max=100, help="Most queries that are shown with photos.")
    ] = 12,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time the engines.")] = True,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="How often each engine takes its turn.")
    ] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.001, max=3600, help="For each batch size in each round.")
    ] = 1.0,
    threads: show.ThreadsOption = None,
    strict: show.StrictOption = False,
    allow_leaks: lists.LeaksOption = False,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Write one page about a bundle: card, ranking, engines, speed, failures, licences, hashes.

    Of a training's folder: its scores, epochs, classes and failures, from what the training left.

    The page is one file without scripts; it prints, and asks no other host for anything. With
    --json all of it goes to stdout, and a page is written only where -o names one.
    """
    from fgdeploy.bundle import open_bundle
    from fgdeploy.cli.bars import bars
    from fgdeploy.core.errors import UsageError
    from fgdeploy.photos import read
    from fgdeploy.report import page_file
    from fgdeploy.report.bundle_report import command_of, make_report
    from fgdeploy.report.measuring import ReportSettings
    from fgdeploy.report.run_report import is_run

    page = target or (None if as_json else Path("report.html"))
    if path is not None and is_run(path):
        if data is not None or index is not None or backend:
            raise UsageError(f"{path} is a training; --data, --index and --backend are of bundles")
        _report_run(path, page, pictures, as_json)
        return
    if page is not None:
        page_file.check_page(page, with_plots=data is not None)
    if index is not None and data is None:
        raise UsageError(f"--index {index} is searched by photos; name them with --data")
    settings = ReportSettings(
        backends=tuple(backend or ()),
        queries=queries,
        gallery=gallery,
        index=index,
        timed=timing,
        rounds=rounds,
        seconds=seconds,
        threads=threads,
        pictures=pictures,
        strict=strict,
        allow_leaks=allow_leaks,
    )
    bundle = open_bundle(objects.bundle_of(path, None))
    photos = None if data is None else read(data, None, columns, strict)
    command = command_of(bundle.path, data, settings)
    with bars() as shown:
        made = make_report(bundle, photos, settings, command, shown.say, shown.make)
    if page is not None:
        page_file.write_page(page, made)
        show.say(f"wrote {page}")
    if as_json:
        show.emit_json(made.to_json())
    show.report_skipped([] if made.measured is None else list(made.measured.skipped))


def _report_run(folder: Path, page: Path | None, pictures: int, as_json: bool) -> None:
    from fgdeploy.core import atomic
    from fgdeploy.report import page_file
    from fgdeploy.report.run_page import render_run
    from fgdeploy.report.run_report import read_run

    if page is not None:
        page_file.check_page(page, with_plots=False)
    made = read_run(folder)
    if page is not None:
        atomic.write_text(page, render_run(made, pictures))
        show.say(f"wrote {page}")
    if as_json:
        show.emit_json(made.to_json())
