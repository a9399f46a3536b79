"""The page of a report: one HTML file without scripts that asks no other host for anything."""

from __future__ import annotations

from fgdeploy import __version__
from fgdeploy.core.text import counted
from fgdeploy.report import measured_sections, stating, surroundings
from fgdeploy.report.bundle_report import BundleReport
from fgdeploy.report.describing import sections
from fgdeploy.report.html_parts import facts, paragraph, section, table, text, whole_page
from fgdeploy.report.recorded import PARITY_HEADER


def render(report: BundleReport) -> str:
    """Return the page as HTML."""
    title = stating.title(report.bundle, report.card)
    found = report.measured
    body = [
        _model(report),
        *([] if found is None else [measured_sections.ranking(found)]),
        _engines(report),
        *([] if found is None else [measured_sections.by_class(found)]),
        *([] if found is None else [measured_sections.failures(found.failing, found.headline)]),
        _licences(report),
        _hashes(report),
        _origin(report),
    ]
    return whole_page(title, _head(report), "".join(body))


def _head(report: BundleReport) -> str:
    manifest, found = report.bundle.manifest, report.measured
    words = report.card.model.description
    keys = [
        ("code", f"{manifest.bits} bits"),
        ("MACs against dense", f"{manifest.macs['exported'] / manifest.macs['dense']:.0%}"),
    ]
    if found is not None:
        lead = found.engines[0].protocols[found.headline].scores
        keys += [(f"mAP, {found.headline}", f"{lead.map:.4f}"), ("R@1", f"{lead.recall[1]:.4f}")]
        if found.board is not None:
            best = min(found.board.lines, key=lambda one: 1e3 / one.calls.images_per_s)
            took = f"{1e3 / best.calls.images_per_s:.2f} ms"
            keys.append((f"an image, {best.measured.contender.engine}", took))
    items = "".join(f"<li><b>{text(value)}</b>{text(name)}</li>" for name, value in keys)
    return (
        f'<p class="soft">Report of the bundle {text(report.bundle.path.name)}, '
        f"{text(report.day)}, by fgdeploy {text(__version__)}</p>"
        f'{paragraph(words) if words else ""}<ul class="key">{items}</ul>{_missing(report)}'
    )


def _missing(report: BundleReport) -> str:
    """Say what the page has not, and how to get it."""
    found = report.measured
    if found is None:
        return paragraph(
            "Without photos there are no curves, classes, engines measured anew, latencies or "
            "failures here; for these run: fgdeploy report BUNDLE --data PHOTOS",
            "note",
        )
    words = []
    if found.board is None:
        words.append("Nothing was timed; leave out --no-timing for latencies.")
    if found.skipped:
        words.append(f"{counted(len(found.skipped), 'photo')} could not be read and are left out.")
    return paragraph(" ".join(words), "note") if words else ""


def _model(report: BundleReport) -> str:
    manifest = report.bundle.manifest
    network, *others = sections(manifest)
    tables = [
        table(one.header, one.rows, one.title)
        for one in others
        if one.header and one.header[0] != "name"  # files have a part of their own
    ]
    return section(
        "model",
        "Model card",
        facts(stating.lines(report.bundle, report.card)),
        _scores(report),
        paragraph("The network", "soft"),
        facts([(row[0], row[1]) for row in network.rows]),
        *tables,
    )


def _scores(report: BundleReport) -> str:
    """Return what the training measured at its end."""
    held = report.card.training.get("scores")
    if not isinstance(held, dict):
        return ""
    rows = [[name, f"{value:.4f}"] for name, value in held.items() if isinstance(value, float)]
    return table(("protocol", "mAP"), rows, "As the training measured it at its end, in PyTorch")


def _engines(report: BundleReport) -> str:
    found, held = report.measured, report.records
    speed = ("engine", "batch", "p50 ms", "p95 ms", "images/s", "on")
    swapped = [[row[0], row[5], *row[1:5]] for row in held.speed]
    fresh = ""
    if found is not None:
        cpu = dict(surroundings.environment())["CPU"]
        fresh = measured_sections.engines(found) + measured_sections.speed(found, cpu)
    nothing = "" if held.parity or held.speed else paragraph("No engine has a record yet.", "soft")
    return section(
        "engines",
        "Precisions, engines, speed",
        fresh,
        table(PARITY_HEADER, held.parity, "On record in the bundle: how near to fp32"),
        table(
            (speed[0], speed[5], *speed[1:5]),
            swapped,
            "On record in the bundle: timed when the engine was built",
            names=2,
        ),
        nothing,
        *(paragraph(note) for note in held.notes),
        *(paragraph(problem, "note") for problem in held.problems),
    )


def _licences(report: BundleReport) -> str:
    card, unknown = report.card, stating.UNKNOWN
    rows = [
        ("fgdeploy", "Apache-2.0"),
        ("the model", card.model.license or unknown),
        ("weights it began as", card.weights.license or unknown),
        ("training photos", card.data.license or unknown),
    ]
    packages = surroundings.package_licences(report.engine_names())
    return section(
        "licences",
        "Licences",
        facts(rows),
        paragraph(
            "State what is unknown with: fgdeploy card BUNDLE --license NAME --data-license NAME",
            "soft",
        )
        if unknown in {value for _, value in rows}
        else "",
        table(
            ("package", "version", "licence"),
            packages,
            "Packages that run the bundle, as each states it",
            names=3,
        ),
    )


def _hashes(report: BundleReport) -> str:
    manifest = report.bundle.manifest
    rows = [
        [name, facts_["sha256"], f"{facts_['bytes']:,}"] for name, facts_ in manifest.files.items()
    ]
    return section(
        "hashes",
        "Hashes",
        facts(
            [
                ("fingerprint", manifest.fingerprint),
                ("sha256 of the weights", manifest.weights["sha256"]),
                ("digest of the manifest", report.digest),
            ]
        ),
        table(("file", "sha256", "bytes"), rows, "Files, verified when opened", names=2),
    )


def _origin(report: BundleReport) -> str:
    commands = "\n".join(report.commands)
    return section(
        "origin",
        "Where it comes from",
        facts([("day", report.day), ("made by", report.bundle.manifest.created_by)]),
        facts(surroundings.environment()),
        paragraph("Commands, as far as the bundle knows them", "soft"),
        f"<pre>{text(commands)}</pre>",
    )
