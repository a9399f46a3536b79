"""`fgdeploy eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core import numbers
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.evaluation import Detail
    from fgdeploy.evaluation.accuracy import Accuracy
    from fgdeploy.evaluation.by_embedding import EmbeddingEvaluation
    from fgdeploy.photos import Columns

_ACCURACY = ("queries", "top1", "top5", "without_class")  # entries of --json
_SHOWN = 3  # labels in a message
CODE, EMBEDDING = "code", "embedding"


@lists.takes_list
def evaluate(
    data: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="A folder of classes, or a CSV (path,class,split)."),
    ],
    bundle: objects.BundleOption = None,
    queries: Annotated[
        str, typer.Option(help="Split of a CSV whose photos are the queries.")
    ] = "test",
    gallery: Annotated[str, typer.Option(help="Split of a CSV that is searched.")] = "train",
    by: Annotated[
        str, typer.Option(help="code, or embedding: recall by cosine.", metavar="WAY")
    ] = CODE,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="closed-set: the queries' split. open-set: all photos of unseen classes. Both "
            "are of --by embedding. Default: closed-set.",
            metavar="NAME",
        ),
    ] = None,
    unseen: Annotated[
        str | None,
        typer.Option(
            help="Of open-set. bundle: classes that the bundle was not trained on. second-half: "
            "the last half of the names. Default: bundle.",
            metavar="CLASSES",
        ),
    ] = None,
    precision_at: Annotated[str, typer.Option(help="P@k for these k, with commas.")] = "10",
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FOLDER",
            help="Write precision-recall curves (CSV, PNG) and scores by class (CSV) there.",
        ),
    ] = None,
    allow_leaks: lists.LeaksOption = False,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Measure retrieval (mAP, R@1/2/4/8, P@k) by protocol, and the accuracy of class logits.

    asym_sign: queries of one split of a CSV against the gallery of another. asym_targets: against
    the target codes of the training images, where the bundle has them. symmetric: among themselves,
    each photo against all others; the only one for photos without splits. Top-1 and top-5 accuracy
    is that of the queries, where the bundle gives class logits and names the classes.

    With --by embedding the cosine of embeddings ranks: each photo of the queries' split, or of the
    unseen classes, against all others; beside it R@k by codes.
    """
    from fgdeploy.evaluation import report as reports
    from fgdeploy.evaluation.by_embedding import evaluate_embeddings
    from fgdeploy.evaluation.protocol import evaluate_photos
    from fgdeploy.photos import read

    cuts = _cuts(precision_at)
    sets = _sets(by, protocol, unseen, report)
    if report is not None:
        _check_place(report)
        reports.check_drawing()
    photos = read(data, None, columns, strict)
    with show.open_hasher(bundle, backend, threads, fallback, batch, columns.bit_depth) as hasher:
        progress = show.progress("hashing")
        if sets is not None:
            set_, classes = sets
            found = evaluate_embeddings(
                *(hasher, photos, set_, queries, classes, strict, progress, allow_leaks, show.say)
            )
            _show_embeddings(found, hasher.bits, hasher.engine.describe(), as_json)
            return
        result = evaluate_photos(
            hasher,
            photos,
            queries,
            gallery,
            cuts,
            strict,
            progress,
            threads,
            allow_leaks=allow_leaks,
            notify=show.say,
        )
        if as_json:
            entry = dataclasses.asdict(result.scores)
            entry |= {"bits": hasher.bits, "protocol": result.protocol, "skipped": result.skipped}
            entry["protocols"] = {
                name: dataclasses.asdict(detail.scores) for name, detail in result.protocols.items()
            }
            entry["accuracy"] = _accuracy_json(result.accuracy)
            show.emit_json(entry)
        else:
            show.line(f"{result.protocol}, {hasher.bits} bits, {hasher.engine.describe()}")
            show.rows(_rows(result.protocols), ("measure", *result.protocols))
            if result.accuracy is not None:
                title = f"by class logits, {counted(result.accuracy.queries, 'query')}"
                show.rows(_accuracy_rows(result.accuracy), ("measure", "share"), title)
    for name, reason in result.absent.items():
        show.say(f"no {name}: {reason}")
    for name, detail in result.protocols.items():
        if lonely := detail.scores.without_relevant:
            show.say(f"{name}: {counted(lonely, 'query')} without a photo of the class to find")
    if result.accuracy is not None:
        _say_unknown(result.accuracy)
    if report is not None:
        written = reports.write_report(report, result.protocols, result.accuracy)
        show.say(f"wrote {', '.join(path.name for path in written)} in {report}")
    show.report_skipped(result.skipped)


def _sets(
    by: str, protocol: str | None, unseen: str | None, report: Path | None
) -> tuple[str, str] | None:
    """Return protocol and unseen classes of an evaluation by embedding, None for one by code."""
    from fgdeploy.core.errors import UsageError
    from fgdeploy.evaluation.by_embedding import CLOSED_SET, NOT_TRAINED, OPEN_SET, SETS, UNSEEN

    if by not in (CODE, EMBEDDING):
        raise UsageError(f"--by {by}: expected {CODE} or {EMBEDDING}")
    for flag, word, known in (("--protocol", protocol, SETS), ("--unseen", unseen, UNSEEN)):
        if word not in (None, *known):
            raise UsageError(f"{flag} {word}: expected {' or '.join(known)}")
        if word is not None and by == CODE:
            raise UsageError(f"{flag} {word} is of --by {EMBEDDING}; give both")
    if by == CODE:
        return None
    if report is not None:
        raise UsageError(f"--report {report}: curves are of codes; leave out --by {EMBEDDING}")
    if unseen is not None and protocol != OPEN_SET:
        raise UsageError(f"--unseen {unseen} is of --protocol {OPEN_SET}; give both")
    return protocol or CLOSED_SET, unseen or NOT_TRAINED


def _show_embeddings(found: EmbeddingEvaluation, bits: int, engine: str, as_json: bool) -> None:
    cosine, code = found.cosine, found.code
    if as_json:
        entry = dataclasses.asdict(cosine)
        entry |= {"by": EMBEDDING, "protocol": found.protocol, "classes": found.classes}
        show.emit_json({**entry, "code_recall": code.recall, "skipped": found.skipped})
    else:
        show.line(f"{found.words}, {engine}")
        rows = [
            (f"R@{k}", f"{value:.4f}", f"{code.recall[k]:.4f}")
            for k, value in cosine.recall.items()
        ]
        show.rows(rows, ("measure", "by embedding", f"by code, {bits} bits"))
    if lonely := cosine.without_relevant:
        show.say(f"{counted(lonely, 'query')} without a photo of the class to find")
    show.report_skipped(found.skipped)


def _rows(protocols: Mapping[str, Detail]) -> list[tuple[str, ...]]:
    """Return a row for each measure, a column for each protocol."""
    columns = [
        {
            "mAP": detail.scores.map,
            "mAP, ties averaged": detail.scores.tie_aware_map,
            **{f"R@{k}": value for k, value in detail.scores.recall.items()},
            **{f"P@{k}": value for k, value in detail.scores.precision.items()},
        }
        for detail in protocols.values()
    ]
    return [(name, *(f"{column[name]:.4f}" for column in columns)) for name in columns[0]]


def _accuracy_rows(accuracy: Accuracy) -> list[tuple[str, str]]:
    shares = {"top-1": accuracy.top1, "top-5": accuracy.top5}
    return [(f"{name} accuracy", f"{one:.4f}") for name, one in shares.items() if one is not None]


def _accuracy_json(accuracy: Accuracy | None) -> dict[str, object] | None:
    """Return the measures, without the rows of classes."""
    if accuracy is None:
        return None
    return {name: getattr(accuracy, name) for name in _ACCURACY}


def _say_unknown(accuracy: Accuracy) -> None:
    """Say of which labels the model has no class, so that their photos do not count."""
    if accuracy.without_class:
        more = ", ..." if len(accuracy.unknown) > _SHOWN else ""
        show.say(
            f"accuracy: {counted(accuracy.without_class, 'query')} of "
            f"{counted(len(accuracy.unknown), 'class')} that the model does not have left out: "
            f"{', '.join(accuracy.unknown[:_SHOWN])}{more}"
        )


def _check_place(report: Path) -> None:
    from fgdeploy.core.errors import DataError

    if not report.parent.is_dir() or (report.exists() and not report.is_dir()):
        raise DataError(f"--report {report}: expected a folder, or a new name in one that exists")


def _cuts(text: str) -> tuple[int, ...]:
    return tuple(numbers.whole(part, "--precision-at", least=1) for part in text.split(","))
