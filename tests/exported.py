"""Exports of small networks, and what each must hold to in every engine and precision."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from fgdeploy.bundle import Bundle
from fgdeploy.calibration import half, pins
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import calibrate
from fgdeploy.engines import BuildSettings, Engine, open_engine
from fgdeploy.engines.trt_build import compile_engine
from fgdeploy.export import verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.photos import read
from fgdeploy.proof.parity import Limits, compare, further

Frames = npt.NDArray[np.uint8]
BACKENDS = ("onnxruntime", "openvino")
SHORT, NARROW = "short_patch16_224", "narrow_patch16_224"


def narrow_backbones() -> Iterator[None]:
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


def hold_what_decides(bundle: Bundle) -> set[str]:
    """Hold all that is pinned, and crops, to float32 in every graph; returns their modules.

    Ops that only move values may move lower ones. Nothing of it is rounded to INT8 on its way, and
    an FP16 graph is the fp32 graph, with weights of two looks once.
    """
    full = onnx.load(bundle.graph("fp32"))
    named = pins.of(full)
    deciding = {
        node.name
        for node in full.graph.node
        if named.keeps(node.name) or node.name.startswith(("crop/", "crop."))
    }
    assert half.to_half(full) == onnx.load(bundle.graph("fp16"))
    for key in ("fp16", "int8", "int8-u8", "int8-fp16"):
        graph = onnx.load(bundle.graph(key))
        kinds = _kinds(graph)
        held = {node.name: node for node in graph.graph.node if node.name in deciding}
        assert set(held) == deciding, key
        quantisers = [node for node in graph.graph.node if node.op_type in _ROUNDING]
        rounded = {name for node in quantisers for name in node.output}
        for node in held.values():
            touched = {*node.input, *node.output} - {""}
            assert not touched & rounded, (key, node.name)
            if node.op_type not in half._MOVES:
                assert not {kinds[name] for name in touched} & _LOW, (key, node.name)
    return {name.partition("/")[0] for name in deciding}


_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_LOW = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Return the type of each tensor, as a strict checker infers them."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {item.name: item.data_type for item in model.graph.initializer}
