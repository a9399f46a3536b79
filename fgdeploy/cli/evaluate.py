"""`fgdeploy eval`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show


def evaluate(
    data: Annotated[Path, typer.Argument(help="A folder of classes, or a CSV (path,class,split).")],
    bundle: show.BundleOption = None,
    queries: Annotated[str, typer.Option(help="Split of a CSV that asks.")] = "test",
    gallery: Annotated[str, typer.Option(help="Split of a CSV that is searched.")] = "train",
    precision_at: Annotated[str, typer.Option(help="P@k for these k, with commas.")] = "10",
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = 8,
    strict: show.StrictOption = False,
    as_json: show.JsonOption = False,
) -> None:
    """Measure retrieval: mAP, tie-aware mAP, R@1/2/4/8 and P@k.

    A CSV with splits: the query split asks the gallery split. Without splits every photo asks all
    others.
    """
    from fgdeploy.evaluation.protocol import evaluate_photos
    from fgdeploy.hasher import load
    from fgdeploy.photos import read

    cuts = _cuts(precision_at)
    photos = read(data)
    with load(show.default_bundle(bundle), backend, threads=threads, batch=batch) as hasher:
        result = evaluate_photos(
            hasher, photos, queries, gallery, cuts, strict, show.progress("hashing")
        )
        scores = result.scores
        if as_json:
            entry = dataclasses.asdict(scores)
            entry |= {"bits": hasher.bits, "protocol": result.protocol, "skipped": result.skipped}
            show.emit_json(entry)
        else:
            rows = [
                ("mAP", f"{scores.map:.4f}"),
                ("mAP, ties averaged", f"{scores.tie_aware_map:.4f}"),
                *((f"R@{k}", f"{value:.4f}") for k, value in scores.recall.items()),
                *((f"P@{k}", f"{value:.4f}") for k, value in scores.precision.items()),
            ]
            typer.echo(f"{result.protocol}, {hasher.bits} bits, {hasher.engine.backend}")
            typer.echo(show.table(rows))
        if scores.without_relevant:
            show.say(f"{scores.without_relevant} queries have no photo of their class to find")
    show.report_skipped(result.skipped)


def _cuts(text: str) -> tuple[int, ...]:
    from fgdeploy.errors import UsageError

    try:
        cuts = tuple(int(part) for part in text.split(","))
    except ValueError:
        cuts = ()
    if not cuts or min(cuts) < 1:
        raise UsageError(f"--precision-at {text!r}: expected numbers above zero, such as 5,10")
    return cuts
