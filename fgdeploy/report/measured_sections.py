"""The parts of a report that photos were needed for: ranking, engines, speed, failures."""

from __future__ import annotations

from fgdeploy.core.text import counted
from fgdeploy.evaluation.metrics import Detail
from fgdeploy.proof.pareto import Point
from fgdeploy.proof.scoreboard import Scoreboard
from fgdeploy.report import charts, photo_pictures
from fgdeploy.report.failing import Failing, worst
from fgdeploy.report.html_parts import Bar, facts, figure, paragraph, section, table
from fgdeploy.report.measuring import AT, EngineScores, Measurement

_CLASSES = 200  # rows; a table of all would print a hundred pages


def ranking(found: Measurement) -> str:
    """Return measures and curves by protocol."""
    lead = found.engines[0]
    rows = [_measures(name, detail) for name, detail in lead.protocols.items()]
    header = ["protocol", "queries", "gallery", "mAP", "mAP, ties averaged"]
    header += [f"{letter}@{k}" for letter in "RP" for k in (1, 8)]
    lonely = sum(one.scores.without_relevant for one in lead.protocols.values())
    words = [f"{lead.name}, {lead.evaluation.protocol}."]
    words += [f"No {name}: {why}." for name, why in lead.evaluation.absent.items()]
    if lonely:
        words.append(f"{counted(lonely, 'query')} had no photo of the class to find, and score 0.")
    plots = [
        figure(
            charts.precision_over_recall(lead.protocols),
            "Precision over recall within each Hamming radius, all queries together",
        ),
        figure(
            charts.at_k(lead.protocols, "recall"),
            "Recall at k: queries with a photo of their class among the first k",
        ),
        figure(
            charts.at_k(lead.protocols, "precision"),
            "Precision at k: photos of the query's class among the first k",
        ),
    ]
    return section(
        "ranking",
        "Ranking",
        paragraph(" ".join(words)),
        table(header, rows, "Measures by protocol; the first is the one that leads"),
        f'<div class="plots">{"".join(plots)}</div>',
        _numbers(lead),
        _accuracy(lead),
    )


def _measures(name: str, detail: Detail) -> list[object]:
    scores = detail.scores
    shares = [scores.map, scores.tie_aware_map]
    shares += [scores.recall[k] for k in (1, 8)] + [scores.precision[k] for k in (1, 8)]
    counts = (f"{scores.queries:,}", f"{scores.gallery:,}")
    return [name, *counts, *(f"{share:.4f}" for share in shares)]


def _numbers(lead: EngineScores) -> str:
    """Return what the curves at k show, as numbers."""
    rows = [
        [f"{name}, {measure}", *(f"{getattr(detail.scores, measure)[k]:.4f}" for k in AT)]
        for name, detail in lead.protocols.items()
        for measure in ("recall", "precision")
    ]
    return table(("at k", *map(str, AT)), rows, "The curves at k in numbers")


def _accuracy(lead: EngineScores) -> str:
    found = lead.evaluation.accuracy
    if found is None:
        return ""
    five = "-" if found.top5 is None else f"{found.top5:.4f}"
    return facts(
        [("top-1 by class logits", f"{found.top1:.4f} of {counted(found.queries, 'query')}")]
        + ([("top-5", five)] if found.top5 is not None else [])
    )


def by_class(found: Measurement) -> str:
    """Return a row for each class of queries, the worst first."""
    classes = worst(found.engines[0].protocols[found.headline].classes)
    rows = [
        [one.name, f"{one.queries:,}", Bar(one.map), f"{one.recall_at_1:.4f}"]
        for one in classes[:_CLASSES]
    ]
    more = len(classes) - len(rows)
    note = paragraph(f"{counted(more, 'class')} with a higher mAP not shown.", "soft")
    caption = f"Classes by mAP, the worst first ({found.headline})"
    return section(
        "classes",
        "Classes",
        table(("class", "queries", "mAP", "R@1"), rows, caption),
        note if more > 0 else "",
    )


def engines(found: Measurement) -> str:
    """Return the accuracy of every engine on the same photos."""
    rows = []
    for one in found.engines:
        scores, parity = one.protocols[found.headline].scores, one.parity
        marks = [mark for mark, true in _marks(found, one) if true]
        name = f"{one.name} ({', '.join(marks)})" if marks else one.name
        base = _reference(found)
        change = "-" if base is None else f"{100 * (scores.map - base):+.2f}"
        kept = ["-"] * 3
        if parity is not None:
            over = parity.top10_overlap
            kept = [f"{parity.bit_agreement:.2%}", f"{parity.identical_codes:.2%}"]
            kept.append("-" if over is None else f"{over:.2%}")
        rows.append([name, f"{scores.map:.4f}", change, f"{scores.recall[1]:.4f}", *kept])
    header = ["engine", "mAP", "points against fp32", "R@1"]
    header += ["bits equal to fp32", "codes equal", "top-10 kept"]
    caption = f"Measured on {counted(found.photos, 'photo')} ({found.headline})"
    return table(header, rows, caption) + "".join(
        paragraph(f"Not measured: {name}: {why}", "soft") for name, why in found.failed.items()
    )


def _marks(found: Measurement, one: EngineScores) -> list[tuple[str, bool]]:
    return [
        ("runs by default", one.name == found.default),
        ("reference", one.name == found.reference),
    ]


def _reference(found: Measurement) -> float | None:
    for one in found.engines:
        if one.name == found.reference:
            return one.protocols[found.headline].scores.map
    return None


def speed(found: Measurement, cpu: str) -> str:
    """Return latencies measured here, and accuracy over latency."""
    board = found.board
    if board is None:
        return ""
    rows = []
    for line in board.lines:
        name, calls = line.measured.contender.engine, line.calls
        times = (f"{calls.percentile(part):.2f}" for part in (50, 90, 95, 99))
        ratio = "-" if line.ratio is None else f"{line.ratio:.2f}"
        rows.append([name, calls.batch, *times, f"{calls.images_per_s:.1f}", ratio])
    header = ("engine", "batch", "p50 ms", "p90", "p95", "p99", "images/s", "ratio")
    first = board.base.rpartition(" ")[2]
    took = board.settings
    words = (
        f"Measured on {cpu}: each engine in a process of its own, in turn, "
        f"{counted(took.rounds, 'round')} of {took.seconds:g} s for each batch size, all calls "
        f"counted, on random frames. Ratio: times as fast as {first}. Other work on the machine "
        "shows in them."
    )
    points = pareto_points(found, board)
    plot = figure(
        charts.pareto(points, "median latency per image, ms", f"mAP x 100 ({found.headline})"),
        "Accuracy over latency: to the left and to the top is better; the dashed line joins what "
        "none beats in both; numbers are batch sizes",
    )
    lost = "".join(
        paragraph(f"Not timed: {name}: {why}", "soft") for name, why in board.not_run.items()
    )
    return paragraph(words) + table(header, rows, "Latency of a call") + plot + lost


def pareto_points(found: Measurement, board: Scoreboard) -> list[Point]:
    """Return mAP x 100 over ms per image for each engine and batch size."""
    scores = {one.name: one.protocols[found.headline].scores.map for one in found.engines}
    return [
        Point(
            line.measured.contender.engine,
            line.calls.batch,
            1e3 / line.calls.images_per_s,
            100 * scores[line.measured.contender.engine],
        )
        for line in board.lines
        if line.measured.contender.engine in scores
    ]


def failures(failing: Failing, headline: str) -> str:
    """Return queries whose nearest answer is of another class, with pictures, and class pairs."""
    share = failing.wrong / max(failing.queries, 1)
    words = (
        f"For {failing.wrong:,} of {counted(failing.queries, 'query')} ({share:.1%}) the nearest "
        f"answer is of another class ({headline})."
    )
    shown = ""
    if failing.shown:
        words += (
            f" Here are {len(failing.shown):,}, from the classes with the lowest mAP on: first the "
            "query, then its nearest answers."
        )
        picture = photo_pictures.within_limit()
        shown = "".join(
            '<div class="fail">'
            + photo_pictures.captioned(picture, one.path, one.label, "query", "query")
            + "".join(
                photo_pictures.captioned(
                    picture,
                    answer.path,
                    answer.label,
                    f"distance {answer.distance} {'✓' if answer.right else '✗'}",
                    "right" if answer.right else "wrong",
                )
                for answer in one.answers
            )
            + "</div>"
            for one in failing.shown
        )
    pairs = [
        [one.label, one.taken_for, one.times, f"{one.times / one.queries:.1%}"]
        for one in failing.confusions
    ]
    return section(
        "failures",
        "Failures",
        paragraph(words),
        shown,
        table(
            ("class", "nearest answer is of", "queries", "of its queries"),
            pairs,
            "Classes that are taken for others, the most frequent first",
            names=2,
        ),
    )
