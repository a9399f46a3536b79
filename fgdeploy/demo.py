"""The whole way on generated photos: draw, export, index, search, evaluate, parity."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy import photos
from fgdeploy.bundle import Bundle
from fgdeploy.contact_sheet import write_contact_sheet
from fgdeploy.errors import DataError, EngineError, UsageError
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.export.exporter import export_bundle
from fgdeploy.export.settings import Settings
from fgdeploy.gallery import add_photos, open_or_create
from fgdeploy.hasher import load
from fgdeploy.parity_run import choose_candidate, compare_engines, open_by_name
from fgdeploy.synthetic import write_moths

MARKER = ".fgdeploy-demo"
BACKBONE = "deit_tiny_patch16_224"
BITS = 64

Notify = Callable[[str], None]
ProgressMaker = Callable[[str], Callable[[int, int], None]]


@dataclass
class Report:
    """What happened: (step, seconds, result) and (model, mAP, R@1, G MACs, ms) rows."""

    chance: float
    remark: str
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    scores: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return dataclasses.asdict(self)


def run_demo(
    folder: Path,
    species: int,
    images: int,
    checkpoint: Path | None,
    weights: str,
    seed: int,
    notify: Notify,
    progress: ProgressMaker,
) -> Report:
    """Run the demo in `folder`, which is emptied if an earlier demo made it.

    Raises DataError if the folder holds anything else, and what the steps raise.
    """
    if not (2 <= species <= 200 and images >= 2):
        raise UsageError(
            f"expected 2 to 200 species and 2 or more images, got {species} and {images}"
        )
    _prepare(folder)
    source = checkpoint.name if checkpoint else weights
    remark = f"{source} weights and a label-free hash head; nothing is trained" + (
        ", so it is the way through that counts here" if source == "random" else ""
    )
    report = Report(chance=1 / species, remark=remark)

    start = time.monotonic()
    table = write_moths(
        folder / "photos", species, images, seed=seed, progress=progress("drawing moths")
    )
    listed = photos.read(table)
    _step(report, notify, "draw", start, f"{len(listed)} photos of {species} sub-species")

    origin = (checkpoint, weights)
    dense = _export(folder / "dense.fgd", (), report, notify, progress, table, origin, seed)
    pruned = _export(folder / "eet.fgd", None, report, notify, progress, table, origin, seed)
    _search(folder, pruned, listed, report, notify, progress)
    for name, bundle in (("dense", dense), ("EET, pruned", pruned)):
        _evaluate(name, bundle, listed, report, notify, progress)
    _parity(pruned, listed, report, notify, progress)
    return report


def _prepare(folder: Path) -> None:
    if folder.exists():
        if not (folder / MARKER).is_file():
            raise DataError(f"{folder} was not made by the demo; choose another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def _step(report: Report, notify: Notify, name: str, start: float, result: str) -> None:
    seconds = f"{time.monotonic() - start:.1f}"
    report.steps.append((name, seconds, result))
    notify(f"{name}: {result} ({seconds} s)")


def _export(
    target: Path,
    stages: tuple[()] | None,
    report: Report,
    notify: Notify,
    progress: ProgressMaker,
    table: Path,
    origin: tuple[Path | None, str],
    seed: int,
) -> Bundle:
    start = time.monotonic()
    settings = Settings(
        backbone=BACKBONE,
        checkpoint=origin[0],
        weights=origin[1],
        head="itq",
        bits=BITS,
        stages=stages,
        fit_data=table,
        fit_images=256,
        seed=seed,
    )
    done = export_bundle(settings, target, progress=progress("fitting the hash head"))
    size = (target / "model.onnx").stat().st_size / 1e6
    proof = f"max |hash difference| to PyTorch {done.parity.max_hash_diff:.0e}"
    _step(report, notify, f"export {target.name}", start, f"{size:.0f} MB, {proof}")
    return done.bundle


def _search(
    folder: Path,
    bundle: Bundle,
    listed: list[photos.Photo],
    report: Report,
    notify: Notify,
    progress: ProgressMaker,
) -> None:
    start = time.monotonic()
    asking = photos.spread(photos.of_split(listed, "test"), 4)
    with load(bundle.path) as hasher:
        index, _ = open_or_create(folder / "gallery.fgi", hasher)
        with index:
            added = add_photos(
                index, hasher, photos.of_split(listed, "train"), True, progress("indexing")
            ).added
            _step(report, notify, "index", start, f"{added} codes of {hasher.bits} bits")
            start = time.monotonic()
            answers = index.search(hasher.encode([photo.path for photo in asking]), 8)
        pairs = [(photo.path, hits) for photo, hits in zip(asking, answers, strict=True)]
        write_contact_sheet(folder / "search.html", pairs, hasher.bits)
    _step(report, notify, "search", start, f"{len(pairs)} queries, see {folder / 'search.html'}")


def _evaluate(
    name: str,
    bundle: Bundle,
    listed: list[photos.Photo],
    report: Report,
    notify: Notify,
    progress: ProgressMaker,
) -> None:
    start = time.monotonic()
    with load(bundle.path) as hasher:
        scores = evaluate_photos(hasher, listed, progress=progress(f"evaluating {name}")).scores
    seconds = time.monotonic() - start
    report.scores.append(
        (
            name,
            f"{scores.map:.3f}",
            f"{scores.recall[1]:.3f}",
            f"{bundle.manifest.macs['exported'] / 1e9:.2f}",
            f"{1e3 * seconds / len(listed):.1f}",
        )
    )
    _step(report, notify, f"evaluate {name}", start, f"{scores.queries} queries")


def _parity(
    bundle: Bundle,
    listed: list[photos.Photo],
    report: Report,
    notify: Notify,
    progress: ProgressMaker,
) -> None:
    start = time.monotonic()
    try:
        name = choose_candidate("onnxruntime")
    except EngineError as error:
        _step(report, notify, "parity", start, f"not run: {error}")
        return
    with (
        open_by_name(bundle, "onnxruntime") as left,
        open_by_name(bundle, name) as right,
    ):
        chosen = photos.spread(listed, 64)
        result, _ = compare_engines(bundle, left, right, chosen, True, progress("comparing"))
    words = (
        f"{name} gives {result.bit_agreement:.2%} of onnxruntime's bits on {result.photos} photos"
    )
    _step(report, notify, "parity", start, words)
