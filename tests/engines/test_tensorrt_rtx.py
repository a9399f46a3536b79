"""TensorRT's own parser and builder take our graphs: no GPU is needed to compile for one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from fgdeploy.bundle import Bundle, open_bundle, seal
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.engines import BuildSettings, build, find, open_engine, ort_layers
from fgdeploy.engines.trt_build import compile_engine
from tests.checks import refused

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
AHEAD = BuildSettings(batches=(1, 8, 32), compute_capabilities=("8.9", "8.6"))


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return open_bundle(own_bundle)


def test_compiled_for_elsewhere(bundle: Bundle) -> None:
    told: list[str] = []
    built = build(bundle, "tensorrt-rtx", "fp32", AHEAD, told.append)
    entry = built.record
    assert told == ["compiled for GPUs elsewhere, so it could not be tried here"]
    assert built.folder.name == "tensorrt-rtx-fp32-sm86-sm89"
    assert entry is not None and find(bundle) == [built]
    assert entry.device == {
        "kind": "cuda",
        "name": None,
        "compute_capabilities": ["8.6", "8.9"],
    }
    assert entry.backend_version == trt.__version__
    assert entry.flags["profile"] == [1, 8, 32]
    assert entry.bytes > 1000


def test_all_targets_and_a_workspace(bundle: Bundle) -> None:
    targets = ("8.0", "8.6", "8.9", "12.0", "12.1")
    settings = BuildSettings(compute_capabilities=targets, workspace_mib=64)
    entry = build(bundle, "tensorrt-rtx", "fp32", settings).record
    assert entry is not None and entry.flags["workspace_mib"] == 64


def test_what_a_gpu_cannot_compute(bundle: Bundle) -> None:
    with refused(EngineError, r"cannot compile the graph: .*(Turing|FP32).*another precision"):
        build(bundle, "tensorrt-rtx", "fp32", BuildSettings(compute_capabilities=("7.5",)))
    assert not (bundle.path / "engines").exists()


def test_without_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [])
    with refused(EngineError, r"no NVIDIA GPU on this machine; name the GPUs.*--compute-cap"):
        build(bundle, "tensorrt-rtx", "fp32")
    assert not (bundle.path / "engines").exists()
    build(bundle, "tensorrt-rtx", "fp32", AHEAD)
    with refused(EngineError, r"sm86-sm89: this machine has no NVIDIA GPU; rebuild"):
        open_engine(bundle, "tensorrt-rtx")
    with open_engine(bundle) as engine:  # meant for another machine, it is no misfit of this one
        assert engine.describe() == "onnxruntime fp32 (from model.onnx)"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (BuildSettings(compute_capabilities=("8.6",), timing_cache=Path("t")), "--timing-cache"),
        (BuildSettings(compute_capabilities=("8.6",), hardware_compatible=True), "list of GPUs"),
    ],
)
def test_what_rtx_has_not(bundle: Bundle, settings: BuildSettings, words: str) -> None:
    with refused(UsageError, words):
        build(bundle, "tensorrt-rtx", "fp32", settings)
    assert find(bundle) == []


def test_a_graph_that_the_parser_refuses(own_bundle: Path) -> None:
    manifest = open_bundle(own_bundle).manifest
    model = onnx.load(own_bundle / "model.onnx")
    model.graph.node[0].op_type = "Loop"
    (own_bundle / "model.onnx").write_bytes(model.SerializeToString())
    seal(own_bundle, manifest)
    with refused(EngineError, r"tensorrt_rtx cannot read model\.onnx: .*; export again"):
        build(open_bundle(own_bundle), "tensorrt-rtx", "fp32", AHEAD)
    assert not (own_bundle / "engines").exists()


def test_an_opset_that_is_too_new(own_bundle: Path) -> None:
    manifest = open_bundle(own_bundle).manifest
    for opset in (21, 8):
        seal(own_bundle, dataclasses.replace(manifest, graph={"opset": opset}))
        with refused(EngineError, rf"reads ONNX opsets 9 to 20, this graph has {opset}; export"):
            build(open_bundle(own_bundle), "tensorrt-rtx", "fp32", AHEAD)


class Older:
    """The package as it was before 10.13: a builder that writes to no stream."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._builder = trt.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            if name == "build_serialized_network_to_stream":
                raise AttributeError(name)
            return getattr(self._builder, name)


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_an_older_package_with_a_timing_cache(bundle: Bundle, tmp_path: Path) -> None:
    older: Any = Older()
    older.__name__ = "tensorrt"
    settings = dataclasses.replace(AHEAD, timing_cache=tmp_path / "timing.cache")
    said = []
    for name in ("one", "two"):
        target = tmp_path / name
        compiled = compile_engine(older, bundle.graph(), (32, 32, 3), target, settings)
        said.append(compiled.flags["timing_cache"])
        assert target.stat().st_size > 1000
    assert said == ["new", "used"]
    assert (tmp_path / "timing.cache").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "one",
        "timing.cache",
        "two",
    ]


# Attentions of a ViT of six blocks, which TensorRT-RTX runs in one kernel each in FP16; GLSim's
# looks twice, and has one more block.
ATTENTION = {"eet": 6, "glsim": 13}


def methods() -> list[str]:
    """Return the names of all methods; none where torch is not installed, which skips."""
    try:
        from fgdeploy.models.methods.registry import METHODS
    except ModuleNotFoundError:
        return []
    return list(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("method", methods())
def test_a_real_export(
    method: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every method on a small ViT, calibrated, compiles in every precision."""
    from fgdeploy.calibration.calibration_settings import CalibrationSettings
    from fgdeploy.calibration.calibrator import calibrate
    from fgdeploy.demo.moths import write_moths
    from fgdeploy.export.export_settings import ExportSettings
    from fgdeploy.export.exporter import export_bundle
    from fgdeploy.photos import read
    from fgdeploy.proof.parity import Limits

    settings = ExportSettings(
        method=method,
        backbone="test_vit",
        weights="random",
        image_size=64,
        options={"stages": "2:8,4:4,5:2"} if method == "eet" else {},
        bits=12,
        head="lsh",
    )
    exported = export_bundle(settings, tmp_path / "small.fgd").bundle
    photos = read(write_moths(tmp_path / "moths", 2, 16, size=64))
    loose = Limits(min_bit_agreement=0.5)  # all layers in INT8, whatever it costs
    bundle = calibrate(exported, photos, CalibrationSettings(images=8), loose).bundle
    ahead, graphs = dataclasses.replace(AHEAD, compute_capabilities=("8.9",)), {}
    full = ort_layers.read(bundle.graph("fp32"))
    for precision in ("fp32", "fp16", "int8"):
        entry = build(bundle, "tensorrt-rtx", precision, ahead).record
        assert entry is not None and entry.bytes > 10_000 and entry.layers is not None
        graphs[precision] = entry.graph
        products, fused = entry.layers["products"], entry.layers["fused"]
        asked = ort_layers.read(bundle.graph(entry.graph))
        assert products.get("float32", 0) <= asked.products["float32"]
        assert fused["layer_norm"] == full.fused["layer_norm"]
        if method in ATTENTION and precision != "fp32":
            assert fused["attention"] == ATTENTION[method]
            assert {**products, **asked.products} == products  # INT8 is the rest
            assert sum(products.values()) == sum(full.products.values())
        record_property(f"{method}_{precision}_bytes", entry.bytes)
    assert graphs == {"fp32": "fp32", "fp16": "fp16", "int8": "int8-fp16"}
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration["in_float"] == []
