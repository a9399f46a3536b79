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
    demo = _Demo(folder, Report(1 / species, remark), notify, progress)
    demo.draw(species, images, seed)
    settings = Settings(
        backbone=BACKBONE,
        checkpoint=checkpoint,
        weights=weights,
        head="itq",
        bits=BITS,
        fit_data=folder / "photos" / "split.csv",
        fit_images=256,
        seed=seed,
    )
    dense = demo.export("dense.fgd", dataclasses.replace(settings, stages=()))
    pruned = demo.export("eet.fgd", settings)
    demo.search(pruned)
    demo.evaluate("dense", dense)
    demo.evaluate("EET, pruned", pruned)
    demo.parity(pruned)
    return demo.report


def _prepare(folder: Path) -> None:
    if folder.exists():
        if not (folder / MARKER).is_file():
            raise DataError(f"{folder} was not made by the demo; choose another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


class _Demo:
    """The steps of one run; each adds its row to the report."""

    def __init__(
        self, folder: Path, report: Report, notify: Notify, progress: ProgressMaker
    ) -> None:
        self.folder = folder
        self.report = report
        self._notify = notify
        self._progress = progress
        self._photos: list[photos.Photo] = []

    def _done(self, name: str, start: float, result: str) -> None:
        seconds = f"{time.monotonic() - start:.1f}"
        self.report.steps.append((name, seconds, result))
        self._notify(f"{name}: {result} ({seconds} s)")

    def draw(self, species: int, images: int, seed: int) -> None:
        """Draw the photos."""
        start, progress = time.monotonic(), self._progress("drawing moths")
        table = write_moths(self.folder / "photos", species, images, seed=seed, progress=progress)
        self._photos = photos.read(table)
        self._done("draw", start, f"{len(self._photos)} photos of {species} sub-species")

    def export(self, name: str, settings: Settings) -> Bundle:
        """Export one bundle."""
        start, target = time.monotonic(), self.folder / name
        done = export_bundle(settings, target, progress=self._progress("fitting the hash head"))
        size = done.bundle.graph().stat().st_size / 1e6
        proof = f"max |hash difference| to PyTorch {done.parity.max_hash_diff:.0e}"
        self._done(f"export {name}", start, f"{size:.0f} MB, {proof}")
        return done.bundle

    def search(self, bundle: Bundle) -> None:
        """Index the training photos and ask with four of the others."""
        start = time.monotonic()
        asking = photos.spread(photos.of_split(self._photos, "test"), 4)
        gallery = photos.of_split(self._photos, "train")
        with load(bundle.path) as hasher:
            index, _ = open_or_create(self.folder / "gallery.fgi", hasher)
            with index:
                progress = self._progress("indexing")
                added = add_photos(index, hasher, gallery, True, progress).added
                self._done("index", start, f"{added} codes of {hasher.bits} bits")
                start = time.monotonic()
                answers = index.search(hasher.encode([photo.path for photo in asking]), 8)
            pairs = [(photo.path, hits) for photo, hits in zip(asking, answers, strict=True)]
            sheet = self.folder / "search.html"
            write_contact_sheet(sheet, pairs, hasher.bits)
        self._done("search", start, f"{len(pairs)} queries, see {sheet}")

    def evaluate(self, name: str, bundle: Bundle) -> None:
        """Score one bundle and time it, decoding included."""
        start, progress = time.monotonic(), self._progress(f"evaluating {name}")
        with load(bundle.path) as hasher:
            scores = evaluate_photos(hasher, self._photos, progress=progress).scores
        milliseconds = 1e3 * (time.monotonic() - start) / len(self._photos)
        self.report.scores.append(
            (
                name,
                f"{scores.map:.3f}",
                f"{scores.recall[1]:.3f}",
                f"{bundle.manifest.macs['exported'] / 1e9:.2f}",
                f"{milliseconds:.1f}",
            )
        )
        self._done(f"evaluate {name}", start, f"{scores.queries} queries")

    def parity(self, bundle: Bundle) -> None:
        """Hold a second engine against ONNX Runtime, where there is one."""
        start = time.monotonic()
        try:
            name = choose_candidate("onnxruntime")
        except EngineError as error:
            self._done("parity", start, f"not run: {error}")
            return
        with (
            open_by_name(bundle, "onnxruntime") as left,
            open_by_name(bundle, name) as right,
        ):
            chosen, progress = photos.spread(self._photos, 64), self._progress("comparing")
            result, _ = compare_engines(bundle, left, right, chosen, True, progress)
        agreement = f"{name} gives {result.bit_agreement:.2%} of onnxruntime's bits"
        self._done("parity", start, f"{agreement} on {result.photos} photos")
