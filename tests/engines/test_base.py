from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.bundle import Manifest, open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import Engine, Outputs
from tests.checks import refused


class Recorder(Engine):
    """An engine that keeps what it was given."""

    backend = "recorder"
    precision = "fp32"

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.given: list[npt.NDArray[np.uint8]] = []

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.given.append(frames)
        count = len(frames)
        return Outputs(
            np.zeros((count, 2), np.uint8),
            np.zeros((count, 12), np.float32),
            np.zeros((count, 8), np.float32),
        )


@pytest.fixture
def engine(toy_bundle: Path) -> Recorder:
    return Recorder(open_bundle(toy_bundle).manifest)


def frames(count: int = 2) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_frames_reach_the_engine(engine: Recorder) -> None:
    assert engine.run(frames(3)).code.shape == (3, 2)
    np.testing.assert_array_equal(engine.given[0], frames(3))


def test_the_engine_gets_contiguous_frames(engine: Recorder) -> None:
    views = [frames(4)[::2], frames()[:, ::-1], frames().transpose(0, 2, 1, 3)]
    for view in views:
        assert not view.flags.c_contiguous
        engine.run(view)
        assert engine.given[-1].flags.c_contiguous
        np.testing.assert_array_equal(engine.given[-1], view)


@pytest.mark.parametrize(
    "wrong",
    [
        frames().astype(np.float32),
        frames().astype(np.int8),
        frames().astype(np.uint16),
        frames()[0],
        frames()[None],
        frames().transpose(0, 3, 1, 2),
        frames()[:, :31],
        frames()[:, :, :31],
        frames()[..., :1],
        np.zeros((2, 32, 32, 4), np.uint8),
        np.zeros((0, 31, 32, 3), np.uint8),
        np.zeros(0, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_wrong_frames_are_refused(engine: Recorder, wrong: npt.NDArray[Any]) -> None:
    with refused(
        EngineError,
        rf"expected frames uint8 \(B, 32, 32, 3\), got {wrong.dtype} \(.*; make them with Prepro",
    ):
        engine.run(wrong)
    assert engine.given == []


def test_no_frames_are_refused(engine: Recorder) -> None:
    with refused(EngineError, r"expected at least one frame, got none"):
        engine.run(frames(0))
    assert engine.given == []


def test_closed_engine_refuses(engine: Recorder) -> None:
    with engine as opened:
        assert opened is engine
        opened.run(frames())
    with refused(EngineError, r"the recorder engine is closed; open a new one$"):
        engine.run(frames())
    assert len(engine.given) == 1


def test_closing_twice_does_no_harm(engine: Recorder) -> None:
    engine.close()
    engine.close()


def test_engine_closes_after_an_error(engine: Recorder) -> None:
    with pytest.raises(RuntimeError, match="stop"), engine:
        raise RuntimeError("stop")
    with refused(EngineError, r"is closed; open a new one$"):
        engine.run(frames())


def test_an_engine_must_say_how_it_runs(toy_bundle: Path) -> None:
    with pytest.raises(TypeError, match="abstract"):
        Engine(open_bundle(toy_bundle).manifest)  # type: ignore[abstract]


def test_outputs_are_copies() -> None:
    buffers: dict[str, npt.NDArray[Any]] = {
        "code": np.ones((1, 2), np.uint8),
        "hash": np.ones((1, 12), np.float32),
    }
    outputs = Outputs.from_arrays(buffers)
    for buffer in buffers.values():
        buffer[:] = 0
    assert outputs.code.all() and outputs.hash.all()
    assert outputs.embedding is None and outputs.logits is None


def test_outputs_take_all_that_the_contract_has() -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "logits": np.full((1, 5), 4, np.float32),
        "embedding": np.full((1, 8), 3, np.float32),
        "hash": np.full((1, 12), 2, np.float32),
        "code": np.full((1, 2), 1, np.uint8),
    }
    outputs = Outputs.from_arrays(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(outputs, name), array)


@pytest.mark.parametrize("names", [["code"], ["hash", "feature"], []])
def test_outputs_of_another_graph_are_refused(names: list[str]) -> None:
    with refused(EngineError, rf"expected the outputs code and hash, got {', '.join(names)}"):
        Outputs.from_arrays({name: np.zeros((1, 2), np.float32) for name in names})


def test_what_a_method_adds_comes_there_and_back() -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "code": np.full((3, 2), 1, np.uint8),
        "hash": np.full((3, 12), 2, np.float32),
        "box": np.arange(12, dtype=np.float32).reshape(3, 4),
        "rank": np.arange(3, dtype=np.int64),
    }
    outputs = Outputs.from_arrays(arrays)
    assert outputs.embedding is None and outputs.logits is None
    assert list(outputs.extras) == ["box", "rank"]
    assert outputs.extras["box"] is not arrays["box"]
    assert list(outputs.arrays()) == list(arrays)
    parts = [
        Outputs.from_arrays({name: value[i:j] for name, value in arrays.items()})
        for i, j in ((0, 1), (1, 3))
    ]
    for found in (outputs, Outputs.concatenate(parts), Outputs.from_arrays(outputs.arrays())):
        for name, value in found.arrays().items():
            np.testing.assert_array_equal(value, arrays[name])
            assert value.dtype == arrays[name].dtype


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"feature": np.zeros((2, 4), np.float32)}, r"embedding \(2, 8\), feature \(2, 4\)"),
        ({"logits": np.zeros((2, 5), np.float32)}, r"embedding \(2, 8\), logits \(2, 5\)"),
        ({"embedding": None}, r"hash \(2, 12\)"),
        ({"embedding": np.zeros((2, 9), np.float32)}, r"embedding \(2, 9\)"),
        ({"embedding": np.zeros((3, 8), np.float32)}, r"embedding \(3, 8\)"),
    ],
    ids=["undeclared", "undeclared logits", "missing", "wider", "longer"],
)
def test_outputs_are_those_that_the_manifest_declares(
    engine: Recorder,
    given: dict[str, Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = engine.run(frames()).arrays()
    kept = {name: value for name, value in {**whole, **given}.items() if value is not None}
    monkeypatch.setattr(engine, "_run", lambda frames: Outputs.from_arrays(kept))
    declared = r"code \(2, 2\), hash \(2, 12\), embedding \(2, 8\)"
    words = rf"^recorder: expected the outputs {declared}, got code.*{found}; export the"
    with refused(EngineError, words):
        engine.run(frames())


def test_a_manifest_that_declares_nothing_takes_any_further_output(engine: Recorder) -> None:
    """As those of schema 1 that did not say it."""
    engine.manifest = dataclasses.replace(engine.manifest, outputs={})
    assert engine.run(frames()).embedding is not None


def test_failure_of_the_backend_is_an_engine_error(
    engine: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frames: npt.NDArray[np.uint8]) -> Outputs:
        raise RuntimeError("[Backend] : 6\nout of memory")

    monkeypatch.setattr(engine, "_run", fail)
    with refused(EngineError, r"recorder.*out of memory"):
        engine.run(frames())


# --- many frames


def test_any_number_of_frames_is_run_in_batches(engine: Recorder) -> None:
    told: list[tuple[int, int]] = []
    whole = engine.run_all(frames(19), progress=lambda done, total: told.append((done, total)))
    assert [len(given) for given in engine.given] == [8, 8, 3]
    np.testing.assert_array_equal(np.concatenate(engine.given), frames(19))
    assert whole.code.shape == (19, 2) and whole.hash.shape == (19, 12)
    assert told == [(8, 19), (16, 19), (19, 19)]


@pytest.mark.parametrize(("batch", "most", "sizes"), [(4, None, [4, 1]), (4, 2, [2, 2, 1])])
def test_batches_are_no_larger_than_the_engine_takes(
    engine: Recorder, batch: int, most: int | None, sizes: list[int]
) -> None:
    engine.max_batch = most
    engine.run_all(frames(5), batch)
    assert [len(given) for given in engine.given] == sizes


def test_no_frames_at_all(engine: Recorder) -> None:
    with refused(EngineError, "at least one frame, got none"):
        engine.run_all(frames(0))


def test_outputs_of_several_runs_are_joined() -> None:
    code, hashes = np.arange(6, dtype=np.uint8).reshape(3, 2), np.ones((3, 12), np.float32)
    logits = np.arange(12, dtype=np.float32).reshape(3, 4)
    parts = [Outputs(code[i:j], hashes[i:j], None, logits[i:j]) for i, j in ((0, 1), (1, 3))]
    whole = Outputs.concatenate(parts)
    np.testing.assert_array_equal(whole.code, code)
    assert whole.hash.shape == (3, 12) and whole.embedding is None
    assert whole.logits is not None
    np.testing.assert_array_equal(whole.logits, logits)
