"""The page: whole HTML, every number the library's, nothing from outside runs or is loaded."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy.bundle import card, open_bundle
from fgdeploy.bundle.card import Stated
from fgdeploy.core.errors import BundleError
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.hasher import load
from fgdeploy.photos import read
from fgdeploy.proof.scoreboard import BenchSettings, run_benchmark
from fgdeploy.report import measured_sections, page, photo_pictures
from fgdeploy.report.bundle_report import BundleReport, make_report
from fgdeploy.report.measuring import AT, ReportSettings
from fgdeploy.report.stylesheet import STYLE
from tests.checks import refused
from tests.fgdeploy.report.conftest import LABELS

_VOID = {"meta", "img", "br"}


class _Reader(HTMLParser):
    """Reads a page: are tags closed in order; tables, attributes, ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if {"td", "th"} & set(self.open[-3:]):
            self.rows[-1][-1] += data


def _plain(toy_bundle: Path) -> BundleReport:
    return make_report(open_bundle(toy_bundle), None, ReportSettings(), "fgdeploy report toy.fgd")


def test_every_number_is_the_librarys(
    measured: BundleReport, toy_bundle: Path, odd_photos: Path
) -> None:
    found = _Reader(page.render(measured))
    rows = {row[0]: row for row in found.rows if row}
    with load(toy_bundle, "onnxruntime:fp32") as hasher:
        wanted = evaluate_photos(hasher, read(odd_photos), precision_at=AT)
    assert set(wanted.protocols) == {"asym_sign", "symmetric"}
    for name, detail in wanted.protocols.items():
        scores = detail.scores
        shares = [scores.map, scores.tie_aware_map, scores.recall[1], scores.recall[8]]
        shares += [scores.precision[1], scores.precision[8]]
        counts = [str(scores.queries), str(scores.gallery)]
        assert rows[name] == [name, *counts, *(f"{one:.4f}" for one in shares)]
        assert rows[f"{name}, precision"][1:] == [f"{scores.precision[k]:.4f}" for k in AT]
        assert rows[f"{name}, recall"][1:5] == [f"{scores.recall[k]:.4f}" for k in (1, 2, 4, 8)]
    classes = wanted.protocols["asym_sign"].classes
    shown = [row for row in found.rows if row and row[0] in LABELS and len(row) == 4]
    worst = sorted(classes, key=lambda one: (one.map, one.name))
    expected = [
        [one.name, str(one.queries), f"{one.map:.4f}", f"{one.recall_at_1:.4f}"] for one in worst
    ]
    assert [row for row in shown if row[2].startswith(("0.", "1."))][: len(worst)] == expected


def test_nothing_from_outside_runs_or_is_loaded(measured: BundleReport) -> None:
    text = page.render(measured)
    found = _Reader(text)
    kinds = {tag for tag, _ in found.tags}
    assert not kinds & {"script", "link", "iframe", "object", "base", "form", "foreignobject"}
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/jpeg;base64,", "#")), value
    assert not re.search(r"url\((?!#)|@import", text)
    # Words that look like addresses are names of XML, or what a card states
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in text
    for label in LABELS:
        assert label in "".join(found.texts)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [value for _, a in found.tags for name, value in a.items() if name == "href"]
    assert {one.removeprefix("#") for one in anchors if one} <= set(ids)


def test_a_card_cannot_get_into_the_page(measured: BundleReport) -> None:
    stated = Stated("</title><script>x</script>", "<b>bold", "x' onclick='y", "javascript:x")
    odd = dataclasses.replace(
        measured,
        card=dataclasses.replace(measured.card, model=stated, data=stated),
        command="fgdeploy report '<i>.fgd'",
    )
    found = _Reader(page.render(odd))
    assert not {tag for tag, _ in found.tags} & {"script", "i"}
    assert "</title><script>x</script>" in found.texts


def test_pictures_are_small_and_bounded(
    measured: BundleReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured.measured is not None and measured.measured.failing.shown
    found = _Reader(page.render(measured))
    sources = [a["src"] or "" for tag, a in found.tags if tag == "img"]
    assert len(sources) == 5 * len(measured.measured.failing.shown)
    for source in sources:
        content = base64.b64decode(source.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "JPEG" and min(image.size) <= 136
    assert all(a["alt"] for tag, a in found.tags if tag == "img")
    assert len(page.render(measured)) < 1_500_000
    monkeypatch.setattr(photo_pictures, "_MOST_BYTES", 1)
    few = _Reader(page.render(measured))
    assert sum(tag == "img" for tag, _ in few.tags) < len(sources)
    assert "left out" in "".join(few.texts)


def test_photos_that_went_are_said(measured: BundleReport) -> None:
    assert measured.measured is not None
    failing = measured.measured.failing
    gone = tuple(dataclasses.replace(one, path="/none.jpg") for one in failing.shown)
    shown = measured_sections.failures(dataclasses.replace(failing, shown=gone), "asym_sign")
    assert "cannot be shown" in shown
    remote = dataclasses.replace(failing.shown[0].answers[0], path="s3://x/y.jpg")
    away = dataclasses.replace(failing.shown[0], answers=(remote,))
    shown = measured_sections.failures(dataclasses.replace(failing, shown=(away,)), "asym_sign")
    assert "no photo here" in shown


def test_plots_have_words_and_the_pages_colours(measured: BundleReport) -> None:
    found = _Reader(page.render(measured))
    plots = [a for tag, a in found.tags if tag == "svg"]
    assert len(plots) == 3
    for one in plots:
        assert one["role"] == "img" and len(one["aria-label"] or "") > 40
    assert "asym_sign" in found.texts  # text stays text
    assert "currentColor" in page.render(measured) and "var(--line1)" in page.render(measured)


def test_it_prints_and_is_light_or_dark() -> None:
    assert "@media print" in STYLE and "@page" in STYLE and "break-inside: avoid" in STYLE
    assert "prefers-color-scheme: dark" in STYLE
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", STYLE))
    named = [set(re.findall(r"(--[a-z0-9]+):", part)) for part in STYLE.split("@media")]
    assert used <= named[0] and named[0] == named[1] == named[2] | (named[0] - named[2])


def test_the_same_inputs_give_the_same_bytes(
    measured: BundleReport, toy_bundle: Path, odd_photos: Path
) -> None:
    settings = ReportSettings(backends=("onnxruntime", "openvino"), timed=False, threads=1)
    again = make_report(
        open_bundle(toy_bundle), read(odd_photos), settings, "fgdeploy report toy.fgd"
    )
    assert page.render(again) == page.render(measured)
    assert "2027-01-15" in page.render(measured)


def test_without_photos_it_has_card_records_and_hashes(toy_bundle: Path) -> None:
    found = _Reader(page.render(_plain(toy_bundle)))
    words = "".join(found.texts)
    assert "for these run: fgdeploy report BUNDLE --data PHOTOS" in words
    manifest = open_bundle(toy_bundle).manifest
    for name, facts in manifest.files.items():
        assert [name, facts["sha256"], f"{facts['bytes']:,}"] in found.rows
    assert manifest.fingerprint in words and manifest.to_json()["digest"] in words
    assert "unknown" in words and "No engine has a record yet." in words
    assert not [tag for tag, _ in found.tags if tag in ("svg", "img")]


def test_latency_and_pareto_are_those_of_the_benchmark(measured: BundleReport) -> None:
    found = measured.measured
    assert found is not None
    settings = BenchSettings((1, 2), rounds=1, seconds=0.01, peaks=False)
    board = run_benchmark([measured.bundle.path], ["onnxruntime"], (), settings)
    timed = dataclasses.replace(measured, measured=dataclasses.replace(found, board=board))
    shown = _Reader(page.render(timed))
    for line in board.lines:
        calls = line.calls
        times = [f"{calls.percentile(part):.2f}" for part in (50, 90, 95, 99)]
        row = ["onnxruntime:fp32", str(calls.batch), *times, f"{calls.images_per_s:.1f}", "1.00"]
        assert row in shown.rows
    points = measured_sections.pareto_points(found, board)
    scores = found.engines[0].protocols[found.headline].scores
    assert [(p.batch, p.x, p.y) for p in points] == [
        (line.calls.batch, 1e3 / line.calls.images_per_s, 100 * scores.map) for line in board.lines
    ]
    assert sum(tag == "svg" for tag, _ in shown.tags) == 4


def test_a_damaged_card_gives_no_report(toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    odd = dataclasses.replace(card.read(bundle), fingerprint="ab" * 32)
    other = dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, fingerprint="cd" * 32)
    )
    assert card.read(bundle) != odd
    (folder := toy_bundle.parent / "damaged.fgd").mkdir(exist_ok=True)
    (folder / card.FILE).write_text("{")
    with refused(BundleError, "card.json is damaged"):
        make_report(dataclasses.replace(other, path=folder), None, ReportSettings(), "x")
