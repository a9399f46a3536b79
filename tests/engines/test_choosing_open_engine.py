from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from fgdeploy import engines
from fgdeploy.bundle import Bundle, Output, open_bundle, seal
from fgdeploy.core import codes
from fgdeploy.core.errors import BundleError, EngineError, MissingDependency, UsageError
from fgdeploy.engines import BACKENDS, open_engine
from tests.checks import refused

CPU_BACKENDS = [name for name, entry in BACKENDS.items() if not entry.gpu]


@pytest.fixture
def bundle(toy_bundle: Path) -> Bundle:
    return open_bundle(toy_bundle)


def frames(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return frames (B, 32, 32, 3) of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.asarray(blocks.repeat(8, 1).repeat(8, 2))


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let these packages look as if they were not installed."""
    find = importlib.util.find_spec

    def pretend(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in packages else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", pretend)


def altered(folder: Path, change: Callable[[onnx.ModelProto], Any], **manifest: Any) -> Bundle:
    """Change the graph of a bundle and seal it again, as a faulty exporter would."""
    sealed = dataclasses.replace(open_bundle(folder).manifest, **manifest)
    model = onnx.load(folder / "model.onnx")
    change(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    seal(folder, sealed)
    return open_bundle(folder)


# --- running


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("count", [1, 2, 17])
def test_outputs_keep_the_contract(bundle: Bundle, backend: str, count: int) -> None:
    with open_engine(bundle, backend) as engine:
        outputs = engine.run(frames(count))
    assert (engine.backend, engine.precision) == (backend, "fp32")
    assert outputs.code.shape == (count, 2) and outputs.code.dtype == np.uint8
    assert outputs.hash.shape == (count, 12) and outputs.hash.dtype == np.float32
    assert outputs.embedding is not None and outputs.embedding.shape == (count, 8)
    assert outputs.logits is None
    np.testing.assert_array_equal(outputs.code, codes.pack(outputs.hash))


def test_backends_agree(bundle: Bundle) -> None:
    with open_engine(bundle, "onnxruntime") as one, open_engine(bundle, "openvino") as other:
        left, right = one.run(frames(32)), other.run(frames(32))
    assert left.embedding is not None and right.embedding is not None
    np.testing.assert_allclose(left.hash, right.hash, atol=1e-4)
    np.testing.assert_allclose(left.embedding, right.embedding, atol=1e-4)
    np.testing.assert_array_equal(left.code, right.code)
    assert len(np.unique(left.code, axis=0)) > 16


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_results_of_an_earlier_run_stay(bundle: Bundle, backend: str) -> None:
    with open_engine(bundle, backend) as engine:
        first = engine.run(frames(4, seed=1))
        kept = first.hash.copy()
        second = engine.run(frames(4, seed=2))
        again = engine.run(frames(4, seed=1))
    np.testing.assert_array_equal(first.hash, kept)
    np.testing.assert_array_equal(again.hash, kept)
    assert not np.array_equal(second.hash, kept)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_batch_gives_what_its_frames_give(bundle: Bundle, backend: str) -> None:
    with open_engine(bundle, backend) as engine:
        whole = engine.run(frames(6))
        parts = [engine.run(frames(6)[row : row + 1]) for row in range(6)]
    np.testing.assert_array_equal(whole.code, np.concatenate([part.code for part in parts]))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_codes(bundle: Bundle, backend: str, threads: int) -> None:
    with open_engine(bundle, backend) as free, open_engine(bundle, backend, "fp32", threads) as few:
        np.testing.assert_array_equal(free.run(frames(5)).code, few.run(frames(5)).code)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_closed_engine(bundle: Bundle, backend: str) -> None:
    engine = open_engine(bundle, backend)
    engine.close()
    engine.close()
    with refused(EngineError, rf"the {backend} engine is closed; open a new one$"):
        engine.run(frames(1))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_wrong_frames(bundle: Bundle, backend: str) -> None:
    with open_engine(bundle, backend) as engine:
        others: list[npt.NDArray[Any]] = [frames(1).astype(np.float32), frames(1)[:, :16]]
        for wrong in [*others, frames(1)[0]]:
            with refused(EngineError, r"expected frames uint8 \(B, 32, 32, 3\), got .*; make them"):
                engine.run(wrong)
        with refused(EngineError, r"expected at least one frame, got none"):
            engine.run(frames(1)[:0])
        assert engine.run(frames(1)).code.shape == (1, 2)


# --- choosing


def test_auto_takes_the_first(bundle: Bundle) -> None:
    with open_engine(bundle) as engine:
        assert engine.backend == next(iter(BACKENDS)) == engines.available()[0]


def test_auto_takes_what_is_installed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    assert engines.available() == ["openvino"]
    with open_engine(bundle) as engine:
        assert engine.backend == "openvino"


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_package_that_is_not_installed(
    bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, backend)
    assert backend not in engines.available()
    with refused(
        MissingDependency,
        rf"^the {backend} engine needs the package {backend}, which is not installed; "
        r'run: pip install "fgdeploy\[cpu\]"$',
    ):
        open_engine(bundle, backend)


def test_no_engine_at_all(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, *CPU_BACKENDS)
    assert engines.available() == []
    with refused(
        MissingDependency,
        r"^the onnxruntime engine needs .*, which is not installed; "
        r'run: pip install "fgdeploy\[cpu\]"$',
    ):
        open_engine(bundle)


@pytest.mark.parametrize("backend", ["tensorflow", "", "ONNXRUNTIME", "../openvino"])
def test_unknown_backend(bundle: Bundle, backend: str) -> None:
    with refused(UsageError, rf"no backend '{backend}'; choose auto, onnxruntime, openvino"):
        open_engine(bundle, backend)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads(bundle: Bundle, threads: int) -> None:
    with refused(UsageError, rf"expected at least one thread, and at most 1024, got {threads}"):
        open_engine(bundle, "auto", "fp32", threads)


def test_precision_that_the_bundle_has_not(bundle: Bundle) -> None:
    with refused(BundleError, r"toy\.fgd holds no int8 graph, only fp32"):
        open_engine(bundle, "auto", "int8")


# --- graphs that do not run


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_graph_that_cannot_be_loaded(own_bundle: Path, backend: str) -> None:
    broken = altered(own_bundle, lambda model: model.graph.node.pop())
    with refused(
        EngineError, rf"^{backend} cannot load .*own\.fgd/model\.onnx: .*; see: fgdeploy doctor$"
    ):
        open_engine(broken, backend)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_file_that_vanished(own_bundle: Path, backend: str) -> None:
    opened = open_bundle(own_bundle)
    (own_bundle / "model.onnx").unlink()
    with refused(EngineError, rf"^{backend} cannot load .*model\.onnx: .*; see: fgdeploy doctor$"):
        open_engine(opened, backend)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_package_that_is_installed_but_broken(
    bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, package: str | None = None) -> ModuleType:
        raise ImportError("libfoo.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    with refused(EngineError, rf"{backend} cannot .*libfoo\.so\.1.*; see: fgdeploy doctor$"):
        open_engine(bundle, backend)


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "photos"


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = "feature" if name == "embedding" else name
    model.graph.output[2].name = "feature"


def drop_hash(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("change", [fix_batch, rename_input, rename_output, drop_hash])
def test_graph_that_breaks_the_contract(
    own_bundle: Path,
    backend: str,
    change: Callable[[onnx.ModelProto], None],
) -> None:
    faulty = altered(own_bundle, change)
    with (
        refused(EngineError, rf"{backend}|model\.onnx|outputs"),
        open_engine(faulty, backend) as engine,
    ):
        engine.run(frames(3))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_graph_of_another_number_of_bits(own_bundle: Path, backend: str) -> None:
    shapes = {"code": Output("uint8", (5,)), "hash": Output("float32", (40,))}
    faulty = altered(own_bundle, lambda model: None, bits=40, outputs=shapes)
    with (
        refused(EngineError, r"expected .*(5|40).*got .*(2|12)"),
        open_engine(faulty, backend) as engine,
    ):
        engine.run(frames(3))
