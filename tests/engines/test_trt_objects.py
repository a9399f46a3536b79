"""TensorRT objects are gone when a build is done or has failed, without a collection."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BuildSettings
from fgdeploy.engines.trt_build import compile_engine
from fgdeploy.engines.trt_objects import freed_in_time

SETTINGS = BuildSettings(compute_capabilities=("8.9",))


class Watched:
    """TensorRT-RTX, which keeps weak references to what it makes; no collection meanwhile."""

    __name__ = "tensorrt_rtx"

    def __init__(self, package: Any) -> None:
        self.package = package
        self.made: list[weakref.ref[Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.package, name)

    def Builder(self, logger: Any) -> Any:
        return self._keep(self.package.Builder(logger), logger)

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return self._keep(self.package.OnnxParser(network, logger), network)

    def _keep(self, *objects: Any) -> Any:
        self.made.extend(map(weakref.ref, objects))
        return objects[0]

    def left(self) -> list[Any]:
        """Return what lives on of the four kinds of objects made."""
        assert len(self.made) == 4
        return [one() for one in self.made if one() is not None]


@pytest.fixture
def watched() -> Iterator[Watched]:
    package = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    gc.disable()  # whatever is gone below was freed by its last reference
    yield Watched(package)
    gc.enable()


def test_after_a_build(watched: Watched, own_bundle: Path, tmp_path: Path) -> None:
    graph = open_bundle(own_bundle).graph()
    compile_engine(watched, graph, (32, 32, 3), tmp_path / "engine.plan", SETTINGS)
    assert watched.left() == []


@pytest.mark.parametrize(("op", "target"), [("Loop", "8.9"), (None, "7.5")])
def test_after_a_failure_that_somebody_keeps(
    op: str | None, target: str, watched: Watched, own_bundle: Path, tmp_path: Path
) -> None:
    if op is not None:
        model = onnx.load(own_bundle / "model.onnx")
        model.graph.node[0].op_type = op
        onnx.save(model, own_bundle / "model.onnx")
    settings = BuildSettings(compute_capabilities=(target,))
    with pytest.raises(EngineError, match="cannot") as caught:
        compile_engine(
            watched, own_bundle / "model.onnx", (32, 32, 3), tmp_path / "engine.plan", settings
        )
    assert caught.value.__traceback__ is not None
    assert watched.left() == []


def test_no_collection_while_a_builder_is_made(tmp_path: Path) -> None:
    class Package:
        class ILogger:
            pass

        @staticmethod
        def Builder(logger: Any) -> Any:
            raise ValueError(f"collecting: {gc.isenabled()}")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="collecting: False"):
        compile_engine(Package, tmp_path, (32, 32, 3), tmp_path / "engine.plan", SETTINGS)
    assert gc.isenabled()


def test_errors_behind_an_error() -> None:
    class Thing:
        pass

    made: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        made.append(weakref.ref(thing))
        raise ValueError(f"{type(thing)} failed")

    def work() -> None:
        try:
            fail()
        except ValueError:
            raise EngineError("it failed; try another") from None

    with pytest.raises(EngineError), freed_in_time():
        work()
    assert made[0]() is None


def test_no_collection_from_any_thread() -> None:
    assert gc.isenabled()
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with freed_in_time():
            inside.set()
            assert done.wait(60)

    worker = threading.Thread(target=other)
    worker.start()
    assert inside.wait(60)
    with contextlib.suppress(ValueError), freed_in_time():
        assert not gc.isenabled()
        raise ValueError
    assert not gc.isenabled()
    done.set()
    worker.join()
    assert gc.isenabled()


def test_a_program_without_collections_stays_so() -> None:
    gc.disable()
    try:
        with freed_in_time():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
