"""What an engine must do before it is given out, by engines that fail in every way."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fgdeploy
from fgdeploy.bundle import Bundle, checks, open_bundle
from fgdeploy.core.errors import BundleError, EngineError, UsageError
from fgdeploy.engines import Engine, Outputs, build, open_engine
from fgdeploy.engines.onnxruntime import OnnxRuntimeEngine
from fgdeploy.engines.openvino import OpenVinoEngine
from fgdeploy.proof.self_test import SelfTest
from tests.checks import ColourEngine, colour_bundle, refused
from tests.fgdeploy.proof.conftest import FRAMES, Make

SECONDS = 60.0  # nothing here takes so long, but for what hangs
FAILED = r"^openvino int8 \(compiled here\) failed its self-test: "
NEXT = (
    r"; rebuild with: fgdeploy build-engine --backend openvino --int8, or run the next with: "
    r"--fallback$"
)

Change = Callable[[Outputs], Outputs]
Break = Callable[[Change], None]


@pytest.fixture
def built(make: Make) -> Bundle:
    """A bundle with check frames, and engines of OpenVINO in INT8 and fp32, the first preferred."""
    bundle = make()
    int8 = build(bundle, "openvino", "int8")
    build(bundle, "openvino", "fp32")
    assert int8.record is not None
    speed = {"1": {"p50_ms": 3.0, "p95_ms": 9.0, "images_per_s": 1.0}}
    dataclasses.replace(int8.record, speed=speed).write(int8.folder)
    return bundle


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let INT8 engines of OpenVINO give other outputs."""

    def change(how: Change) -> None:
        run = OpenVinoEngine._run

        def wrong(self: OpenVinoEngine, frames: Any) -> Outputs:
            outputs = run(self, frames)
            return how(outputs) if self.precision == "int8" else outputs

        monkeypatch.setattr(OpenVinoEngine, "_run", wrong)

    return change


def constant(outputs: Outputs) -> Outputs:
    return dataclasses.replace(outputs, code=np.zeros_like(outputs.code))


def turned(outputs: Outputs) -> Outputs:
    return dataclasses.replace(outputs, code=outputs.code ^ np.uint8(0b1010_0000))


def not_a_number(outputs: Outputs) -> Outputs:
    outputs.hash[0, 3] = np.nan
    return outputs


def infinite_embedding(outputs: Outputs) -> Outputs:
    assert outputs.embedding is not None
    outputs.embedding[-1] = np.inf
    return outputs


def failing(outputs: Outputs) -> Outputs:
    raise RuntimeError("the driver is gone")


CASES = [
    (constant, r"1 different code of 40 of 40 check frames \(fp32 \d\d\), so it tells nothing ap"),
    (turned, r"66\.67% of bits of 40 of 40 check frames as fp32, expected at least 96\.00%; "),
    (not_a_number, r"\d of 40 of 40 check frames have NaN or infinity in their hash"),
    (infinite_embedding, r"\d of 40 of 40 check frames have NaN or infinity in their embedding"),
    (failing, r"openvino failed on 1 frames: the driver is gone; see: fgdeploy doctor"),
]


def test_a_good_engine_passes_and_says_on_what(built: Bundle) -> None:
    told: list[str] = []
    with fgdeploy.load(built.path, notify=told.append, self_test=SECONDS) as hasher:
        assert hasher.engine.describe() == "openvino int8 (compiled here)"
    (line,) = told
    assert line.startswith(
        f"self-test of openvino int8 (compiled here): {FRAMES} of {FRAMES} check frames in "
    )
    assert line.endswith(
        "34 different codes (fp32 34), 100.00% of bits as fp32 (at least 96.00%), "
        "100.00% of bits as the calibrated INT8 (at least 98.00%)"
    ), line


@pytest.mark.parametrize(("how", "words"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_one_is_refused(built: Bundle, broken: Break, how: Change, words: str) -> None:
    broken(how)
    with refused(EngineError, FAILED + words + r".*" + NEXT):
        fgdeploy.load(built.path, self_test=SECONDS)
    fgdeploy.load(built.path).close()  # nobody asked for a test


@pytest.mark.parametrize("how", [how for how, _ in CASES])
def test_the_next_best_runs_instead_where_that_is_allowed(
    built: Bundle, broken: Break, how: Change
) -> None:
    broken(how)
    told: list[str] = []
    with fgdeploy.load(built.path, fallback=True, notify=told.append, self_test=SECONDS) as hasher:
        assert hasher.engine.describe() == "openvino fp32 (compiled here)"
    assert told[0].startswith("self-test of openvino fp32 (compiled here): 40 of 40 check frames")
    assert told[1].startswith("openvino int8 (compiled here) failed its self-test: ")
    assert told[1].endswith("; running openvino fp32 (compiled here) instead")


def test_a_graph_runs_where_all_that_was_built_fails(
    built: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVinoEngine._run
    monkeypatch.setattr(OpenVinoEngine, "_run", lambda self, frames: constant(run(self, frames)))
    told: list[str] = []
    with fgdeploy.load(built.path, fallback=True, notify=told.append, self_test=SECONDS) as hasher:
        assert hasher.engine.describe() == "onnxruntime fp32 (from model.onnx)"
        assert hasher.engine.reason.startswith("no other engine fits: openvino int8 (compiled he")
    # One that is named gives way to another backend too, but only where that is allowed.
    with refused(EngineError, r"openvino fp32 \(compiled here\) failed its self-test: 1 diff"):
        fgdeploy.load(built.path, "openvino:fp32", self_test=SECONDS)
    with fgdeploy.load(built.path, "openvino:fp32", fallback=True, self_test=SECONDS) as hasher:
        assert hasher.engine.describe() == "onnxruntime fp32 (from model.onnx)"


def test_nothing_runs_where_all_fail(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (OpenVinoEngine, OnnxRuntimeEngine):
        run = kind._run
        monkeypatch.setattr(kind, "_run", lambda self, frames, run=run: constant(run(self, frames)))
    with refused(EngineError, r"^openvino int8 .*; openvino fp32 .* or export the bundle again$"):
        fgdeploy.load(built.path, fallback=True, self_test=SECONDS)


def test_int8_is_held_to_the_calibrated_codes(built: Bundle, broken: Break) -> None:
    """Within what fp32 allows for few frames, but not what the calibrated graph gives."""

    def slightly(outputs: Outputs) -> Outputs:
        code = outputs.code.copy()
        code[::4, 0] ^= np.uint8(1)  # 11 of 40 frames with one bit of twelve
        return dataclasses.replace(outputs, code=code)

    broken(slightly)
    words = r"97\.\d\d% of bits of 40 of 40 check frames as the calibrated INT8, .* least 98\.00%"
    with refused(EngineError, FAILED + words + r".*" + NEXT):
        fgdeploy.load(built.path, self_test=SECONDS)


def test_an_engine_that_is_opened_anew_is_tested_too(built: Bundle, broken: Break) -> None:
    with fgdeploy.load(built.path, self_test=SECONDS) as hasher:
        with hasher.reopened() as again, again.reopened() as third:
            assert third.engine.describe() == "openvino int8 (compiled here)"
        broken(constant)
        with refused(EngineError, FAILED + r"1 different code"):
            hasher.reopened()


# --- time


@pytest.fixture
def hanging(broken: Break) -> Iterator[threading.Event]:
    """Let the INT8 engine hang from its second run on, until the test has ended."""
    ended, runs = threading.Event(), [0]

    def hang(outputs: Outputs) -> Outputs:
        runs[0] += 1
        if runs[0] > 1:
            ended.wait(SECONDS)
        return outputs

    broken(hang)
    yield ended
    ended.set()


def test_one_that_hangs_is_left_behind(built: Bundle, hanging: threading.Event) -> None:
    words = r"no answer within 2 s, after 1 of 40 frames; it hangs, or is too slow for that time"
    with refused(EngineError, FAILED + words + NEXT):
        fgdeploy.load(built.path, self_test=2)
    assert not hanging.is_set()  # it hangs still


class Slow(ColourEngine):
    """Takes a second of a clock for each run."""

    now = 0.0

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.now += 1.0
        return super()._run(frames)


@pytest.mark.parametrize(("seconds", "ran"), [(1, 2), (16.1, 10), (17, 10), (25, 16)])
def test_a_slow_one_runs_fewer_frames(seconds: float, ran: int) -> None:
    """None begin when an eighth of the time is over, but two that always run."""
    colours = colour_bundle()
    engine = Slow(colours.manifest)
    found = SelfTest(colours, seconds, clock=lambda: engine.now).test(engine)
    assert (found.ran, found.frames, found.codes) == (ran, 16, ran)
    assert found.words().startswith(f"self-test of colour fp32: {ran} of 16 generated frames in ")
    assert found.words().endswith(" different codes, no fp32 to hold them to")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "10"])
def test_no_time(toy_bundle: Path, seconds: Any) -> None:
    with refused(UsageError, r"^self_test .*: expected the seconds that it may take, such as 10$"):
        fgdeploy.load(toy_bundle, self_test=seconds)


# --- bundles without check frames


def test_generated_frames_are_held_to_the_graph(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(own_bundle)
    build(bundle, "openvino", "fp32")
    told: list[str] = []
    fgdeploy.load(own_bundle, notify=told.append, self_test=SECONDS).close()
    assert "16 of 16 generated frames" in told[0]
    assert told[0].endswith("100.00% of bits as fp32 (at least 99.48%)"), told
    run = OpenVinoEngine._run
    monkeypatch.setattr(OpenVinoEngine, "_run", lambda self, frames: turned(run(self, frames)))
    with refused(EngineError, r"66\.67% of bits of 16 of 16 generated frames as fp32, expec"):
        fgdeploy.load(own_bundle, self_test=SECONDS)


def test_the_graph_itself_must_tell_frames_apart(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fgdeploy.load(own_bundle, notify=told.append, self_test=SECONDS).close()
    assert told[0].endswith(" different codes, no fp32 to hold them to"), told
    run = OnnxRuntimeEngine._run
    monkeypatch.setattr(OnnxRuntimeEngine, "_run", lambda self, frames: constant(run(self, frames)))
    with refused(
        EngineError,
        r"^onnxruntime fp32 \(from model.onnx\) failed its self-test: 1 different code of 16 of 16 "
        r"generated frames \(no fp32 to compare with\), so it tells nothing apart; see: fgdep",
    ):
        fgdeploy.load(own_bundle, self_test=SECONDS)


def test_a_reference_that_does_not_run_is_said(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(open_bundle(own_bundle), "openvino", "fp32")

    def no_run(self: Engine, frames: Any) -> Outputs:
        raise RuntimeError("no memory")

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", no_run)
    told: list[str] = []
    fgdeploy.load(own_bundle, notify=told.append, self_test=SECONDS).close()
    assert told[0].startswith("self-test not held to fp32, which does not run here: onnxruntime f")
    assert told[1].endswith("no fp32 to hold them to")


def test_damaged_check_frames_are_the_bundles_fault(built: Bundle) -> None:
    (built.path / checks.FILE).write_bytes(b"none")
    with refused(BundleError, r"checks\.npz"):
        fgdeploy.load(built.path, fallback=True, self_test=SECONDS)


# --- what fp32 itself does not tell apart


def alike(bundle: Bundle, count: int) -> Bundle:
    """Give the bundle check frames of which the first `count` are one."""
    held = checks.read(bundle)
    assert held is not None and held.int8 is not None
    rows = np.maximum(np.arange(FRAMES) - count + 1, 0)
    same = checks.Checks(held.frames[rows], held.hashes[rows], held.codes[rows], held.int8[rows])
    return bundle.with_files({checks.FILE: same.to_bytes()}, {"range": "mse"})


def test_a_model_that_tells_nothing_apart_is_refused(built: Bundle) -> None:
    bundle = alike(built, FRAMES)
    with refused(EngineError, r"1 different code of 40 of 40 check frames \(fp32 1\), so it"):
        fgdeploy.load(bundle.path, self_test=SECONDS)


def test_the_first_frames_may_be_alike(built: Bundle) -> None:
    """Where the time allows no more of them."""
    bundle = alike(built, 5)
    with open_engine(bundle, "openvino:int8") as engine:
        clock = iter(range(0, 10_000, 100))
        found = SelfTest(bundle, 100, clock=lambda: next(clock)).test(engine)
    assert (found.ran, found.codes, found.fp32_codes) == (2, 1, 1)
