"""The toy bundle with a graph that passes for INT8, photos of noise, and clocks that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from fgdeploy.bundle import Bundle, checks, open_bundle
from fgdeploy.bundle.checks import Checks
from fgdeploy.engines import open_engine, openvino
from fgdeploy.engines.engine_layers import Layers
from fgdeploy.engines.openvino import OpenVinoEngine
from fgdeploy.photos import Photo
from fgdeploy.proof import bench
from fgdeploy.proof.bench import Latency, Speed

FRAMES = 40
CPUS = ["onnxruntime", "openvino"]


@pytest.fixture(scope="session")
def grey_photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Twelve photos of noise in two classes."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    listed = []
    for number in range(12):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(path)
        listed.append(Photo(path, "ab"[number % 2]))
    return listed


def as_int8(folder: Path, turned: int = 0) -> bytes:
    """Return the fp32 graph with the sign of some of its twelve bits turned, to pass as INT8."""
    model = onnx.load(folder / "model.onnx")
    for item in model.graph.initializer:
        if item.name == "project":
            signs = np.where(np.arange(12) < turned, -1, 1).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * signs, item.name))
    return bytes(model.SerializeToString())


def frames_of(bundle: Bundle, count: int = FRAMES) -> bytes:
    """Return random frames with what fp32 makes of them, as a bundle carries them."""
    frames = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    with open_engine(bundle, "onnxruntime:fp32") as engine:
        outputs = engine.run(frames)
    with open_engine(bundle, "onnxruntime:int8") as engine:
        int8 = engine.run(frames).code
    return Checks(frames, outputs.hash, outputs.code, int8).to_bytes()


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's INT8 graph has no INT8 product: OpenVINO has it right on every CPU, and it passes.

    That an engine without one is refused is tested with real graphs.
    """
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.0)
    monkeypatch.setattr(Layers, "check", lambda *_: None)


@pytest.fixture
def clipped(exact: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO's INT8 miss, as on a CPU without VNNI."""
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.144)


Make = Callable[..., Bundle]


@pytest.fixture
def make(own_bundle: Path) -> Make:
    """Give the toy bundle an INT8 graph with so many wrong bits of twelve, and check frames."""

    def call(turned: int = 0, frames: int = FRAMES) -> Bundle:
        bundle = open_bundle(own_bundle)
        bundle = bundle.with_files(
            {"model.int8.onnx": as_int8(own_bundle, turned)}, {"range": "mse"}
        )
        files = {checks.FILE: frames_of(bundle, frames)} if frames else {}
        return bundle.with_files(files, {"range": "mse"})

    return call


Timing = Callable[[dict[str, float]], list[str]]


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> Timing:
    """Let engines take a known time: milliseconds by name, 10 where none is given."""

    def fake(took: dict[str, float]) -> list[str]:
        names_timed: list[str] = []

        def compare(
            bundle: Path, names: Sequence[str], batches: Sequence[int], *_: Any, **__: Any
        ) -> list[Speed]:
            names_timed.extend(names)
            return [
                Speed(
                    name,
                    tuple(
                        Latency(batch, batch * took.get(name, 10.0), batch * 20.0)
                        for batch in batches
                    ),
                    64.0,
                )
                for name in names
            ]

        monkeypatch.setattr(bench, "compare", compare)
        return names_timed

    return fake


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make machines equal: on some, OpenVINO has BF16 to compare with."""
    monkeypatch.setattr(
        OpenVinoEngine,
        "graphs",
        {key: value for key, value in OpenVinoEngine.graphs.items() if key != "bf16"},
    )
