"""`fgdeploy index threshold`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.gallery.threshold import Threshold


def threshold(
    gallery: objects.IndexArgument = None,
    accept: Annotated[
        float, typer.Option(help="Share of known photos that must still be recognised.")
    ] = 0.95,
    sample: Annotated[
        int, typer.Option(min=30, help="Items to ask for; fewer where there are fewer.")
    ] = 2000,
    apart: Annotated[
        float,
        typer.Option(
            help="Seconds up to which two frames of a camera with one label are one scene."
        ),
    ] = 60.0,
    seed: show.SeedOption = 0,
    as_json: show.JsonOption = False,
) -> None:
    """Find the distance beyond which an answer is unknown, and note it in the index.

    Each of its labelled items is asked for without its scene, then without its label.
    """
    from fgdeploy.gallery import threshold as calibrating
    from fgdeploy.retrieval import Index

    settings = calibrating.ThresholdSettings(accept, sample, seed, apart)
    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index:
        found = calibrating.measure(index, settings, show.progress("reading items"))
        calibrating.keep(index, found)
        items = len(index)
    for warning in found.warnings():
        show.say(warning)
    if as_json:
        show.emit_json(calibrating.as_json(found, items))
        return
    asked = counted(found.asked, "item")
    show.rows(
        [
            ("threshold", f"{found.bits} bits: an answer that is farther is unknown"),
            ("known photos", f"{found.false_reject:.1%} are called unknown, of {asked} asked for"),
            ("unknown classes", f"{found.false_accept:.1%} are called known, of the same {asked}"),
            ("nearest is right", f"{found.first_right:.1%}, whatever its distance"),
            (
                "answers",
                f"{counted(found.labelled, 'item')} of {counted(found.labels, 'label')}, "
                f"{counted(found.scenes, 'scene')}",
            ),
            ("copies", f"{found.copies:,} left out"),
        ]
    )


def in_words(found: Threshold | None, items: int) -> str:
    """Return a line about the threshold of an index of so many items."""
    if found is None:
        return "none; `index threshold` finds one"
    stale = f"; stale: the index has {items:,} now, measure again" if found.stale(items) else ""
    return (
        f"{found.bits} bits, within which {1 - found.false_reject:.0%} of known photos and "
        f"{found.false_accept:.0%} of unknown classes are; measured on "
        f"{counted(found.items, 'item')}{stale}"
    )
