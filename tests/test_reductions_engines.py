"""Every token reduction through every engine: exported, held to PyTorch, parsed, built, calibrated.

A few run always, on four narrow blocks; the whole grid of reductions, keep rates, sizes and
parts of CLCA is `slow`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fgdeploy.bundle import Bundle
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import calibrate
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines import BuildSettings, Engine, open_engine
from fgdeploy.engines.trt_build import compile_engine
from fgdeploy.export import verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle, rebuild
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.photos import read
from fgdeploy.proof.parity import Limits, compare, further
from tests.checks import thorough

Frames = npt.NDArray[np.uint8]
BACKENDS = ("onnxruntime", "openvino")
SHORT, NARROW = "short_patch16_224", "narrow_patch16_224"
RATES = ("0.1", "0.25", "0.5", "0.7", "0.9")
ALL_OF_CLCA = ("cla=true", "cache=true", "clr=1")
PARTS = (
    ("cla=true", "cache=false", "clr=1"),
    ("cla=true", "cache=true", "clr=0"),
    ("cla=false", "cache=false", "clr=0"),
)


@pytest.fixture(scope="module", autouse=True)
def backbones() -> Iterator[None]:
    """Let timm know two backbones of width 64: an export costs what its blocks cost."""
    from timm.models import _registry
    from timm.models.vision_transformer import test_vit as small

    with pytest.MonkeyPatch.context() as patch:
        for name, depth in ((SHORT, 4), (NARROW, 12)):
            patch.setitem(_registry._model_entrypoints, name, functools.partial(small, depth=depth))
        yield


@dataclass(frozen=True)
class Case:
    """One export: a method with options on a backbone at a size."""

    method: str
    options: tuple[str, ...] = ()
    backbone: str = SHORT
    size: int = 64

    def __str__(self) -> str:
        return "-".join((self.method, *self.options, str(self.size)))


def clca(name: str, rate: str = "0.5", parts: tuple[str, ...] = (), **where: Any) -> Case:
    """Return CLCA on a reduction."""
    return Case("clca", (f"reduction={name}", f"keep_rate={rate}", *parts), **where)


USUAL = [
    Case("eet", ("stages=2:8,4:4,5:2",), "test_vit"),
    *(clca(name, parts=("blocks=2,3",)) for name in REDUCTIONS),
]
# Where nothing is chosen: no reduction, and stages that keep all rows that arrive.
STILL = [clca("none"), Case("evit", ("keep_rate=0.99", "blocks=2,3"))]


@dataclass
class Exports:
    """Bundles by case, each exported once."""

    folder: Path
    made: dict[Case, Bundle] = field(default_factory=dict)

    def of(self, case: Case) -> Bundle:
        """Return the case's bundle. Raises ExportError where ONNX Runtime is not PyTorch."""
        if case not in self.made:
            settings = ExportSettings(
                method=case.method,
                options=dict(option.split("=", 1) for option in case.options),
                backbone=case.backbone,
                image_size=case.size,
                weights="random",
                head="lsh",
                bits=32,
            )
            target = self.folder / f"{len(self.made)}.fgd"
            self.made[case] = export_bundle(settings, target).bundle
        return self.made[case]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    torch.set_num_threads(1)
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 2, 12, size=96)


def tied(size: int) -> Frames:
    """Return frames (10, S, S, 3) with equal patches: uniform, letterboxed, halved, repeated."""
    chooser = np.random.default_rng(3)

    def noise(side: int) -> Frames:
        return chooser.integers(0, 256, (side, side, 3), dtype=np.uint8)

    frames = [np.full((size, size, 3), level, np.uint8) for level in (0, 64, 128, 255)]
    for rows, columns in ((4, 1), (1, 4), (2, 1), (1, 2)):
        frame = noise(size)
        frame[: size // rows if rows > 1 else None, : size // columns if columns > 1 else None] = 96
        frames.append(frame)
    frames.append(np.tile(noise(16), (size // 16, size // 16, 1)))
    pair = np.concatenate([noise(16), noise(16)], axis=1)
    frames.append(np.tile(np.concatenate([pair, pair[:, ::-1]]), (size // 32, size // 32, 1)))
    return np.stack(frames)


def hold_to_pytorch(bundle: Bundle, reference: Engine, frames: Frames) -> None:
    """Hold both engines to PyTorch's published forward: all codes equal, all outputs near."""
    expected = reference.run(frames)
    for backend in BACKENDS:
        pytest.importorskip(backend)
        with open_engine(bundle, backend) as engine:
            found = engine.run(frames)
            alone = engine.run(frames[:1])
        others = further(expected.arrays(), found.arrays())
        parity = compare(expected.hash, expected.code, found.hash, found.code, others=others)
        assert parity.breaches(Limits(max_hash_diff=1e-4, max_output_error=1e-4)) == [], backend
        assert (found.code == expected.code).all(), backend
        assert (alone.code == found.code[:1]).all(), backend


def build_for_tensorrt(bundle: Bundle, size: int, folder: Path, *keys: str) -> None:
    """Parse and compile graphs with TensorRT-RTX, which takes no GPU."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    settings = BuildSettings(batches=(1, 4), compute_capabilities=("8.6",))
    for key in keys:
        target = folder / key
        compile_engine(trt, bundle.graph(key), (size, size, 3), target, settings)
        assert target.stat().st_size > 10_000


def calibrated(bundle: Bundle, photos: Path) -> Bundle:
    """Return the bundle with INT8 and FP16 graphs; how good random weights are in it is open."""
    listed = [photo for photo in read(photos) if photo.split == "train"]
    loose = Limits(min_bit_agreement=0.5)
    return calibrate(bundle, listed, CalibrationSettings(images=8), loose).bundle


def hold_precisions(bundle: Bundle, size: int) -> None:
    """Run INT8 and FP16 where this machine has them: near fp32, whatever was calibrated."""
    frames = verify.frames_for(size, [])
    with open_engine(bundle, "onnxruntime") as engine:
        expected = engine.run(frames)
    for backend, precision, least in (
        ("onnxruntime", "int8", 0.8),
        ("onnxruntime", "fp16", 0.95),
        ("openvino", "int8", 0.8),
    ):
        try:
            engine = open_engine(bundle, backend, precision)
        except Exception as error:
            assert "INT8 is wrong on this CPU" in str(error)
            continue
        with engine:
            found = engine.run(frames)
        parity = compare(expected.hash, expected.code, found.hash, found.code)
        assert parity.bit_agreement >= least, (backend, precision)


@pytest.mark.parametrize("case", [*USUAL, *STILL], ids=str)
def test_engines_agree_with_pytorch(exports: Exports, case: Case) -> None:
    bundle = exports.of(case)
    frames = np.concatenate([verify.frames_for(case.size, [], seed=1), tied(case.size)])
    hold_to_pytorch(bundle, rebuild(bundle, None), frames)
    rows = [run.tokens for run in bundle.manifest.blocks]
    assert (min(rows) < rows[0]) is (case in USUAL)


@pytest.mark.parametrize("case", USUAL, ids=str)
def test_tensorrt_parses_and_builds(exports: Exports, case: Case, tmp_path: Path) -> None:
    build_for_tensorrt(exports.of(case), case.size, tmp_path, "fp32")


def test_a_calibrated_one_runs_in_every_precision(
    exports: Exports, photos: Path, tmp_path: Path
) -> None:
    case = clca("dpcknn", parts=("blocks=2,3",))
    bundle = calibrated(exports.of(case), photos)
    hold_precisions(bundle, case.size)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp16", "int8-fp16")


@pytest.mark.slow
@thorough
@pytest.mark.parametrize("name", REDUCTIONS)
def test_all_reductions_run_in_every_precision(
    exports: Exports, photos: Path, tmp_path: Path, name: str
) -> None:
    case = clca(name, parts=("blocks=2,3",))
    bundle = calibrated(exports.of(case), photos)
    hold_precisions(bundle, case.size)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp16", "int8-fp16")


def _grid() -> list[Case]:
    """Return reductions x rates x sizes, alone and in CLCA; its parts at one rate and size."""
    cases = []
    for size in (224, 448):
        where = {"backbone": NARROW, "size": size}
        for name, rate in itertools.product(REDUCTIONS, RATES):
            cases.append(Case(name, (f"keep_rate={rate}",), **where))
            cases.append(clca(name, rate, ALL_OF_CLCA, **where))
        # At a rate of 1 all reductions are one network.
        cases.append(clca("evit", "1.0", ALL_OF_CLCA, **where))
        cases.append(Case("evit", ("keep_rate=1.0",), **where))
    where = {"backbone": NARROW, "size": 224}
    return cases + [clca(name, "0.5", parts, **where) for name in REDUCTIONS for parts in PARTS]


@pytest.mark.slow
@thorough
@pytest.mark.parametrize("case", _grid(), ids=str)
def test_the_whole_grid(case: Case, tmp_path: Path) -> None:
    bundle = Exports(tmp_path).of(case)
    frames = np.concatenate([verify.frames_for(case.size, [], seed=1)[:4], tied(case.size)])
    hold_to_pytorch(bundle, rebuild(bundle, None), frames)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp32")
