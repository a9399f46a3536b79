"""`fgdeploy index migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted, shorten

if TYPE_CHECKING:
    from fgdeploy.gallery import MigrationReport

_NAMED = 5  # items in a message; all of them with --json
_PATH = 300  # characters of a path


def migrate(
    gallery: objects.IndexArgument = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="The bundle of the new model. Default: none, for --back.",
            metavar="BUNDLE",
        ),
    ] = None,
    throttle: Annotated[
        float,
        typer.Option(
            "--throttle",
            min=0.01,
            max=1,
            help="Share of the time to work in, so that a camera beside it keeps its frames.",
        ),
    ] = 0.5,
    drop_missing: Annotated[
        bool,
        typer.Option(
            "--drop-missing", help="Switch even so where items have neither photo nor thumbnail."
        ),
    ] = False,
    keep_old: Annotated[
        bool,
        typer.Option("--keep-old/--no-keep-old", help="Keep the old index as INDEX.old."),
    ] = True,
    back: Annotated[
        bool, typer.Option("--back", help="Put the old index back, and keep the new one.")
    ] = False,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    bit_depth: lists.BitDepthOption = None,
    as_json: show.JsonOption = False,
) -> None:
    """Hash all items anew with another bundle, beside the running index, then switch at once.

    From the photos, or from thumbnails where photos are gone or have changed. After any end the
    same command goes on where it was.
    """
    from fgdeploy.core.errors import UsageError
    from fgdeploy.gallery import Throttle
    from fgdeploy.gallery import migrate as migrate_index

    gallery = objects.index_of(gallery)
    if back:
        if bundle is not None:
            raise UsageError("--back takes the index of before and no bundle; give one of them")
        _go_back(gallery, as_json)
        return
    if bundle is None:
        raise UsageError("name the bundle of the new model with --bundle, or say --back")
    with show.open_hasher(bundle, backend, threads, fallback, batch, bit_depth) as hasher:
        report = migrate_index(
            gallery,
            hasher,
            drop_missing=drop_missing,
            keep_old=keep_old,
            throttle=Throttle(throttle),
            progress=show.progress("hashing anew"),
            notify=show.say,
        )
    if as_json:
        show.emit_json(_as_json(report))
    elif show.manner().csv:
        found = report.rehashed.lacking.values()
        cells = [(item.id, item.path or "", item.label or "", why) for item, why in found]
        show.rows(cells, ("id", "path", "label", "why"))
    _tell(report, bundle)
    if not (report.switched or report.needless):
        raise typer.Exit(1)


def _go_back(gallery: Path, as_json: bool) -> None:
    from fgdeploy.gallery import go_back

    report = go_back(gallery, show.say)
    facts = {"path": str(report.path), "kept": str(report.kept)}
    numbers = {"added": report.added, "removed": report.removed}
    if as_json:
        show.emit_json({**facts, **numbers})
    elif show.manner().csv:
        show.rows([*facts.items(), *numbers.items()])
    since = ""
    if report.added or report.removed:
        since = (
            f"; {counted(report.added, 'item')} added and {report.removed:,} removed since are "
            f"as they were in {report.kept} alone"
        )
    show.say(
        f"{gallery} is the index of before again, the new one is kept at {report.kept}{since}; "
        f"to undo this: fgdeploy index migrate {gallery} --back"
    )


def _tell(report: MigrationReport, bundle: Path) -> None:
    gallery, done = report.path, report.rehashed
    _name("photos have changed; the items keep what they were of", list(done.changed.values()))
    lacking = [
        f"{shorten(item.path or f'item {number}', _PATH)}: {why}"
        for number, (item, why) in done.lacking.items()
    ]
    _name("items have neither photo nor thumbnail", lacking)
    if report.needless:
        show.say(f"{gallery} is of the model of {bundle} already; nothing to do")
        return
    work = (
        f"hashed {counted(done.hashed, 'photo')} and {counted(done.by_thumbnail, 'thumbnail')}"
        + (f", {report.before:,} before" if report.before else "")
    )
    if not report.switched:
        show.complain(
            f"error: {work}; {counted(len(lacking), 'item')} of {report.items:,} in {gallery} "
            "could not be hashed, so nothing was switched; bring their photos back and run the "
            "command again, or leave them out with --drop-missing"
        )
        return
    left = f", {counted(len(lacking), 'item')} left out" if lacking else ""
    show.say(
        f"{work}{left}; {gallery} with {counted(report.items, 'item')} is of {bundle} from now on"
        + (
            f"; the old one is kept at {report.kept}, to go back: fgdeploy index migrate "
            f"{gallery} --back"
            if report.kept
            else ""
        )
    )


def _name(what: str, lines: list[str]) -> None:
    for line in lines[:_NAMED]:
        show.say(line)
    if len(lines) > _NAMED:
        show.say(f"... {len(lines):,} {what}; --json names all")


def _as_json(report: MigrationReport) -> dict[str, Any]:
    done = report.rehashed
    return {
        "path": str(report.path),
        "items": report.items,
        "before": report.before,
        "hashed": done.hashed,
        "by_thumbnail": done.by_thumbnail,
        "changed": [{"id": number, "why": why} for number, why in done.changed.items()],
        "lacking": [
            {"id": number, "path": item.path, "label": item.label, "why": why}
            for number, (item, why) in done.lacking.items()
        ],
        "switched": report.switched,
        "needless": report.needless,
        "kept": None if report.kept is None else str(report.kept),
    }
