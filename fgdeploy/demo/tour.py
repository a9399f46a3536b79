"""The whole way on drawn photos: draw, train, export, index, search, evaluate, parity."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy import photos
from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import DataError, EngineError, UsageError
from fgdeploy.core.progress import Bars, Notify, Progress
from fgdeploy.core.text import counted
from fgdeploy.core.timing import time_calls
from fgdeploy.demo import EPOCHS
from fgdeploy.demo.moths import write_moths
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.gallery import add_photos, open_or_create
from fgdeploy.gallery.contact_sheet import write_contact_sheet
from fgdeploy.hasher import Hasher, load
from fgdeploy.proof.comparing import choose_candidate, compare_engines, open_by_name
from fgdeploy.training.loop import Tick
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train

MARKER = ".fgdeploy-demo"
BACKBONE = "test_vit"  # timm's smallest plain ViT: 6 blocks, width 64
# Pretrained on other drawn moths, none of these species: see benchmarks/demo_backbone.py.
WEIGHTS = Path(__file__).parent / "backbone.safetensors"
IMAGE_SIZE = 128
BITS = 64
SPECIES, IMAGES = 24, 40
TIMED = 8  # photos per timed call


@dataclass
class DemoReport:
    """What happened: (step, seconds, result) and (model, runtime, mAP, R@1, G MACs, ms) rows.

    mAP and R@1: test photos, never trained on, are queries against the training photos' codes.
    ms: one photo's time in the engine, decoding left out, median over calls with 8 photos.
    """

    chance: float
    steps: list[tuple[str, str, str]] = field(default_factory=list)
    scores: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return dataclasses.asdict(self)


def draw(
    folder: Path,
    species: int = SPECIES,
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw the demo's photos and return their CSV; half of each sub-species is for training."""
    return write_moths(folder, species, images, IMAGE_SIZE, seed, progress)


def settings(table: Path, seed: int = 0, epochs: int = EPOCHS) -> TrainSettings:
    """Return how the demo trains: the default recipe on a small pretrained ViT.

    The moths fill their pictures and their marks lie at the rims, so nothing is cropped away.
    """
    return TrainSettings(
        data=table,
        backbone=BACKBONE,
        weights=str(WEIGHTS),
        image_size=IMAGE_SIZE,
        crop=1.0,
        least_area=0.8,
        bits=BITS,
        epochs=epochs,
        batch=24,
        lr=1e-3,
        eval_photos=0,  # the exported models are evaluated instead
        seed=seed,
    )


def run_demo(
    folder: Path,
    species: int,
    images: int,
    epochs: int,
    seed: int,
    notify: Notify,
    progress: Bars,
) -> DemoReport:
    """Run the demo in `folder`, which is emptied if an earlier demo made it.

    Raises DataError if the folder holds anything else, and what the steps raise.
    """
    if not (2 <= species <= 200 and images >= 4 and epochs >= 1):
        raise UsageError(
            "expected 2 to 200 species, 4 or more images and 1 or more epochs, got "
            f"{species}, {images} and {epochs}"
        )
    _prepare(folder)
    demo = _Demo(folder, DemoReport(1 / species), notify, progress)
    table = demo.draw(species, images, seed)
    plan = settings(table, seed, epochs)
    teacher = demo.train("teacher", dataclasses.replace(plan, without=frozenset({"ctp"})))
    student = demo.train("student", dataclasses.replace(plan, teacher=teacher))
    before = demo.export("before.fgd", _untrained(table, seed))
    dense = demo.export("dense.fgd", ExportSettings(checkpoint=teacher))
    pruned = demo.export("eet.fgd", ExportSettings(checkpoint=student))
    demo.search(pruned)
    demo.evaluate("before training, pruned", "onnxruntime", before, WEIGHTS)
    for runtime in ("pytorch", "onnxruntime"):
        demo.evaluate("dense teacher", runtime, dense, teacher)
        demo.evaluate("pruned student", runtime, pruned, student)
    demo.parity(pruned)
    return demo.report


def _untrained(table: Path, seed: int) -> ExportSettings:
    """Return how to export the network as it was before training, with a label-free head."""
    return ExportSettings(
        backbone=BACKBONE,
        checkpoint=WEIGHTS,
        image_size=IMAGE_SIZE,
        crop=1.0,
        head="itq",
        bits=BITS,
        fit_data=table,
        seed=seed,
    )


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
        self,
        folder: Path,
        report: DemoReport,
        notify: Notify,
        progress: Bars,
    ) -> None:
        self.folder = folder
        self.report = report
        self._notify = notify
        self._progress = progress
        self._photos: Sequence[photos.Photo] = ()

    def _done(self, name: str, start: float, result: str) -> None:
        seconds = f"{time.monotonic() - start:.1f}"
        self.report.steps.append((name, seconds, result))
        self._notify(f"{name}: {result} ({seconds} s)")

    def draw(self, species: int, images: int, seed: int) -> Path:
        """Draw the photos."""
        start = time.monotonic()
        progress = self._progress("drawing moths")
        table = draw(self.folder / "photos", species, images, seed, progress)
        self._photos = photos.read(table)
        self._done("draw", start, f"{counted(len(self._photos), 'photo')} of {species} sub-species")
        return table

    def train(self, name: str, plan: TrainSettings) -> Path:
        """Train one network and return its weights."""
        start, bar = time.monotonic(), self._progress(f"training the {name}")

        def tick(tick: Tick) -> None:
            done, total = (tick.epoch - 1) * tick.steps + tick.step, plan.epochs or EPOCHS
            bar(done, total * tick.steps)

        done = train(plan, self.folder / name, reporter=Reporter(tick=tick))
        shown = len(done.history) * len(photos.of_split(self._photos, "train"))
        self._done(
            f"train the {name}",
            start,
            f"{counted(len(done.history), 'epoch')}, {counted(shown, 'photo')} seen, loss "
            f"{done.history[0]['loss']:.2f} to {done.history[-1]['loss']:.2f}",
        )
        return done.weights

    def export(self, name: str, how: ExportSettings) -> Bundle:
        """Export one bundle."""
        start, progress = time.monotonic(), self._progress(f"fitting the head of {name}")
        done = export_bundle(how, self.folder / name, progress=progress)
        size = done.bundle.graph().stat().st_size / 1e6
        proof = f"max |hash difference| to PyTorch {done.parity.max_hash_diff:.0e}"
        self._done(f"export {name}", start, f"{size:.1f} MB, {proof}")
        return done.bundle

    def search(self, bundle: Bundle) -> None:
        """Index the training photos and search with four of the others."""
        start = time.monotonic()
        queries = photos.spread(photos.of_split(self._photos, "test"), 4)
        gallery = photos.of_split(self._photos, "train")
        with load(bundle.path) as hasher:
            index, _ = open_or_create(self.folder / "gallery.fgi", hasher)
            with index:
                progress = self._progress("indexing")
                added = add_photos(index, hasher, gallery, True, progress).added
                self._done("index", start, f"{counted(added, 'code')} of {hasher.bits} bits")
                start = time.monotonic()
                answers = index.search(hasher.encode([photo.path for photo in queries]), 8)
            pairs = [(photo.path, hits) for photo, hits in zip(queries, answers, strict=True)]
            sheet = self.folder / "search.html"
            write_contact_sheet(sheet, pairs, hasher.bits)
        self._done("search", start, f"{counted(len(pairs), 'query')}, see {sheet}")

    def evaluate(self, name: str, runtime: str, bundle: Bundle, weights: Path) -> None:
        """Score one bundle in one runtime, and time it."""
        start, progress = time.monotonic(), self._progress(f"evaluating {name}, {runtime}")
        with Hasher(bundle, open_by_name(bundle, runtime, weights)) as hasher:
            scores = evaluate_photos(hasher, self._photos, progress=progress).scores
            milliseconds = self._milliseconds(hasher)
        macs = bundle.manifest.macs["exported" if runtime != "pytorch" else "published"]
        self.report.scores.append(
            (
                name,
                runtime,
                f"{scores.map:.3f}",
                f"{scores.recall[1]:.3f}",
                f"{macs / 1e9:.4f}",
                f"{milliseconds:.2f}",
            )
        )
        self._done(f"evaluate {name}, {runtime}", start, f"{counted(scores.queries, 'query')}")

    def _milliseconds(self, hasher: Hasher) -> float:
        chosen = photos.spread(self._photos, TIMED)
        _, frames = photos.decode_all(chosen, hasher.manifest.preprocess, [], strict=True)
        (times,) = time_calls(lambda: hasher.engine.run(frames), seconds=0)
        return statistics.median(times) / len(frames)

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
            result = compare_engines(bundle, left, right, chosen, True, progress).parity
        agreement = f"{name} gives {result.bit_agreement:.2%} of onnxruntime's bits"
        self._done("parity", start, f"{agreement} on {counted(result.photos, 'photo')}")
