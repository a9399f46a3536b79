"""`fgdeploy camera`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import objects, show, signing
from fgdeploy.core.errors import ImageError
from fgdeploy.core.text import counted
from fgdeploy.core.text import shown as shortened

if TYPE_CHECKING:
    from fgdeploy.camera.on_site import Site, SiteSettings
    from fgdeploy.camera.preview import Preview
    from fgdeploy.camera.watching import Sighting
    from fgdeploy.hasher import Hasher
    from fgdeploy.live.pair import Pair

_HEADER = ("frame", "time", "label", "share", "distance", "code", "dropped", "enrolled")
_PACE = 1.0  # seconds between lines that no new verdict calls for


def camera(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A device number, rtsp:// or http:// address, pipeline, video or folder.",
        ),
    ],
    bundle: objects.SearchedBundleOption = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            help="The index to search. Default: the one *.fgi in this folder; without one, codes.",
            metavar="INDEX",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits of a frame.")] = 5,
    region: Annotated[
        str | None,
        typer.Option(
            help="Only this part of each frame, in pixels or per cent: 10%,10%,80%,80%. "
            "Default: all of it.",
            metavar="X,Y,W,H",
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only every n-th frame.")] = 1,
    changed: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Only frames of which this share changed, such as 0.02. Default: all.",
        ),
    ] = None,
    vote: Annotated[
        int, typer.Option(min=1, max=1000, help="Frames that decide together what is seen.")
    ] = 5,
    enroll: Annotated[
        str | None,
        typer.Option(
            help="Add the frames to the index under this label. Default: none are added.",
            metavar="LABEL",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What the camera is called in enrolled items. Default: the source, shortened.",
            metavar="NAME",
        ),
    ] = None,
    keep_thumbnails: Annotated[
        bool,
        typer.Option("--keep-thumbnails", help="With --enroll: keep small pictures in the index."),
    ] = False,
    preview: Annotated[
        str | None,
        typer.Option(
            help="Show annotated frames: out.mp4, or http://127.0.0.1:8090. Default: none.",
            metavar="TARGET",
        ),
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--every-frame",
            help="Drop frames that nobody is ready for, or none. Default: as the source is.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for a source that is away at the start, and do not end."),
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many results. Default: never.")
    ] = None,
    open_timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that opening the source may take.")
    ] = 10.0,
    read_timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that one frame may take.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each frame.")
    ] = False,
    log_json: show.LogJsonOption = False,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    fallback: show.FallbackOption = False,
    self_test: show.SelfTestOption = 10.0,
    verify_key: signing.VerifyKeyOption = None,
) -> None:
    """Hash and search the frames of a camera, stream or video as they come, until Ctrl-C."""
    from fgdeploy.camera.on_site import SiteSettings
    from fgdeploy.live.events import log_to_stderr

    level = logging.WARNING if show.manner().quiet else logging.INFO
    settings = SiteSettings(
        source, k, region, every, changed, enroll, name, keep_thumbnails, vote, preview, live,
        wait, open_timeout, read_timeout,
    )  # fmt: skip
    with log_to_stderr(log_json, level), ExitStack() as stack:
        feed = settings.open_source()
        shown = settings.open_preview(feed.live)
        if shown is not None:
            stack.enter_context(shown)
        path = _gallery(gallery, bundle, enroll is not None)
        if path is not None:
            bundle = bundle or objects.bundle_at(path)

        def load(found: Path | None) -> Hasher:
            tested = self_test or None
            return show.open_hasher(
                found, backend, threads, fallback, self_test=tested, verify=verify_key
            )

        site = _run(settings, path, bundle, load, shown, frames, as_json)
        if shown is not None:
            shown.close()
    _say_end(site, path)
    if shown is not None and shown.failed is not None:
        raise shown.failed
    count = site.camera.counters
    if not feed.lasts and count.captured == count.broken > 0:
        raise ImageError(f"none of {counted(count.broken, 'frame')} of {source} can be read")


def _gallery(named: Path | None, bundle: Path | None, enrolls: bool) -> Path | None:
    """Return the index that is meant, None to go without one."""
    if named is None and not enrolls and not objects.here("*.fgi"):
        return None
    return objects.index_for(named, bundle)


def _run(
    settings: SiteSettings,
    path: Path | None,
    bundle: Path | None,
    load: Callable[[Path | None], Hasher],
    preview: Preview | None,
    most: int | None,
    as_json: bool,
) -> Site:
    """Go through the camera's frames to the end, show what is seen, and return what saw it."""
    from fgdeploy.camera.on_site import Site
    from fgdeploy.camera.signals import EndBySignal
    from fgdeploy.camera.site_pair import pair_for
    from fgdeploy.live.service_manager import Heartbeat, ServiceManager

    manager = ServiceManager()

    def watch(model: Hasher | Pair) -> Site:
        with Site(settings, model, preview) as site, EndBySignal(site.close):
            if preview is not None:
                show.say(f"preview: {preview.where}")
            for warning in site.warnings():
                show.say(warning)
            manager.ready()
            with Heartbeat(manager, site.progress):
                _show(islice(site, most), as_json)
            manager.stopping()
        return site

    if path is None:
        with load(bundle) as hasher:
            return watch(hasher)
    with pair_for(path, bundle, load, settings.enroll is not None) as pair:
        return watch(pair)


def _show(seen: Iterator[Sighting], as_json: bool) -> None:
    from fgdeploy.camera.result_lines import line_of

    heard = show.while_heard(seen)
    if as_json:
        for one in heard:
            path = None if one.enrolled is None else one.enrolled.path
            show.emit_json(line_of(one.result, one.verdict, path))
    elif show.manner().csv:
        show.stream(map(_row, heard), _HEADER)
    else:
        for text in _changes(heard):
            show.line(text)


def _changes(seen: Iterable[Sighting]) -> Iterator[str]:
    """Yield a line for each change of the verdict; one a second for codes, or what is enrolled."""
    from fgdeploy.camera.watching import nearest_of, title_of

    before: object = None
    due = -math.inf
    for one in seen:
        at, label = one.result.captured.at, one.verdict and one.verdict.label
        searched = one.verdict is not None
        if (searched and (label, True) != before) or (at >= due and (one.enrolled or not searched)):
            parts = [one.result.time.isoformat(" ", "seconds"), title_of(one)]
            parts += [
                nearest_of(one.result),
                f"enrolled {one.enrolled.path}" if one.enrolled else "",
            ]
            yield "  ".join(filter(None, parts))
            before, due = (label, searched), at + _PACE


def _row(seen: Sighting) -> tuple[object, ...]:
    result, verdict = seen.result, seen.verdict
    return (
        result.number,
        result.time.isoformat(),
        "" if verdict is None else verdict.label or "",
        "" if verdict is None else f"{verdict.share:.2f}",
        result.hits[0].distance if result.hits else "",
        result.code.hex(),
        result.dropped,
        (seen.enrolled.path or "") if seen.enrolled else "",
    )


def _say_end(site: Site, path: Path | None) -> None:
    """Say what became of the frames, how fast, and what is next."""
    counted_so = site.camera.counters
    show.say(
        f"captured {counted(counted_so.captured, 'frame')}: {counted_so.processed:,} hashed, "
        f"{counted_so.dropped:,} dropped, {counted_so.skipped:,} left out, {counted_so.broken:,} "
        f"broken; {counted(counted_so.reconnects, 'reconnection')}"
    )
    times = site.camera.times.summary()
    if (total := times.get("total")) is not None:
        stages = (f"{name} {1000 * one.p50:.1f}" for name, one in times.items() if name != "total")
        show.say(
            f"capture to result: {1000 * total.p50:.1f} ms (p50), {1000 * total.p95:.1f} (p95), "
            f"{1000 * total.p99:.1f} (p99); of it {', '.join(stages)} (p50)"
        )
    enroller = site.enroller
    if enroller is not None:
        show.say(
            f"enrolled {counted(enroller.enrolled, 'frame')} as {shortened(enroller.label)}, "
            f"{enroller.repeated:,} more had the code of the one before; "
            f"next: fgdeploy camera SOURCE --index {path}"
        )
    elif path is None:
        show.say("next: fgdeploy camera SOURCE --index gallery.fgi --enroll LABEL")
    else:
        show.say(f"next: fgdeploy camera SOURCE --index {path} --enroll LABEL")
