"""The page of a training's run: scores, its own photos, epochs, classes, failures as pictures."""

from __future__ import annotations

from typing import Any

from fgdeploy import __version__
from fgdeploy.core.text import counted
from fgdeploy.evaluation.worst_classes import WorstClass
from fgdeploy.report import photo_pictures
from fgdeploy.report.html_parts import Bar, facts, paragraph, section, table, text, whole_page
from fgdeploy.report.run_report import RunReport

_CLASSES = 200  # rows
_SHOWN = ("recipe", "epochs", "batch", "lr", "seed", "precision", "start", "photos")


def render_run(report: RunReport, pictures: int = 12) -> str:
    """Return the page as HTML. pictures: most queries that are shown with photos."""
    config = report.config
    title = f"{config['method']} on {config['backbone']}, {config.get('bits', '?')} bits"
    head = paragraph(
        f"Report of the training {report.folder}, {report.day}, by fgdeploy {__version__}", "soft"
    )
    advice = "" if report.advice is None else paragraph(f"Advice: {report.advice}", "note")
    inside = _scores(report) + _epochs(report) + _classes(report) + _failures(report, pictures)
    return whole_page(title, head + advice, inside)


def _scores(report: RunReport) -> str:
    rows = [
        (network, protocol, f"{found['map']:.4f}", f"{found['recall'].get('1', 0):.4f}")
        for network, protocols in report.scores.items()
        for protocol, found in protocols.items()
    ]
    own = [(network, *map(_share, _shares(found))) for network, found in report.reached.items()]
    header = ("network", "bits that are the target code's", "whole codes", "gap")
    known = report.config["training"]
    known = known if isinstance(known, dict) else {}
    return section(
        "scores",
        "Scores",
        facts([(name, known[name]) for name in _SHOWN if name in known]),
        table(("network", "protocol", "mAP", "R@1"), rows, "Photos held out", names=2),
        _folds(report),
        table(header, own, "Training photos, against the target codes they were drawn to"),
        paragraph(
            "gap: how much worse the training photos' own codes rank than their target codes.",
            "soft",
        )
        if own
        else "",
    )


def _shares(found: dict[str, Any]) -> list[float | None]:
    return [found.get(name) for name in ("bits_equal", "codes_equal", "gap")]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _folds(report: RunReport) -> str:
    held = report.folds
    if held is None:
        return ""
    rows = [
        (name, *(f"{one['mean']:.4f} ± {one['spread']:.4f}" for one in found.values()))
        for name, found in held["protocols"].items()
    ]
    measures = [name for found in held["protocols"].values() for name in found]
    return table(
        ("protocol", *dict.fromkeys(measures)),
        rows,
        f"Mean and spread over {counted(held['count'], 'fold')}; the model was trained on all "
        "photos afterwards",
    )


def _epochs(report: RunReport) -> str:
    if not report.log:
        return ""
    header = list(report.log[0])
    rows = [[row.get(name) or "-" for name in header] for row in report.log]
    return section("epochs", "Epochs", table(header, rows, "The log, a row for each epoch"))


def _classes(report: RunReport) -> str:
    worst = sorted(report.classes, key=lambda one: (one.map, one.name))
    rows = [
        [one.name, f"{one.queries:,}", Bar(one.map), f"{one.recall_at_1:.4f}"]
        for one in worst[:_CLASSES]
    ]
    caption = f"Classes by mAP, the worst first ({report.headline})"
    return section("classes", "Classes", table(("class", "queries", "mAP", "R@1"), rows, caption))


def _failures(report: RunReport, pictures: int) -> str:
    picture = photo_pictures.within_limit()
    parts, left = [], pictures
    for one in report.failures:
        shown = one.shown[:left]
        left -= len(shown)
        if shown:
            parts.append(_failure(one, len(shown), picture))
    if not parts:
        return ""
    words = (
        "The classes with the lowest mAP, and of each the queries with the lowest average "
        "precision: first the query, then its nearest answers of other classes."
    )
    return section("failures", "Failures", paragraph(words), *parts)


def _failure(one: WorstClass, count: int, picture: Any) -> str:
    words = f"mAP {one.map:.4f} over {counted(one.queries, 'query')}"
    if one.times:
        words += f"; taken for {one.taken_for} by {one.times} of them"
    rows = "".join(
        '<div class="fail">'
        + photo_pictures.captioned(
            picture, query.path, one.name, f"query, AP {query.average_precision:.2f}", "query"
        )
        + "".join(
            photo_pictures.captioned(
                picture, answer.path, answer.label, f"distance {answer.distance}", "wrong"
            )
            for answer in query.answers
        )
        + "</div>"
        for query in one.shown[:count]
    )
    return f"<h3>{text(one.name)}</h3>{paragraph(words)}{rows}"
