"""Building an engine: which backends, which one is kept, and what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, MissingDependency, ParityError, UsageError
from fgdeploy.engines import BuildSettings, Engine, find, open_engine
from fgdeploy.engines.onnxruntime import OnnxRuntimeEngine
from fgdeploy.engines.openvino import OpenVinoEngine
from fgdeploy.proof import bench, building
from fgdeploy.proof.bench import Latency, Speed
from fgdeploy.proof.building import build_proven, candidates
from tests.checks import refused
from tests.fgdeploy.proof.conftest import CPUS, FRAMES, Make, Timing


def folders(bundle: Bundle) -> list[str]:
    return [built.folder.name.partition("-int8")[0] for built in find(bundle)]


# --- which one is kept


@pytest.mark.usefixtures("no_bf16")
@pytest.mark.parametrize("best", CPUS)
def test_the_fastest_stays_and_the_other_goes(make: Make, timing: Timing, best: str) -> None:
    names_timed = timing({f"{best}:int8": 4.0})
    bundle = make()
    done = build_proven(bundle, "int8")
    assert done.name == f"{best}:int8"
    assert folders(bundle) == [best]
    assert names_timed == ["onnxruntime:int8", "openvino:int8", "onnxruntime:fp32", "openvino:fp32"]
    assert [speed.name for speed in done.speeds] == names_timed
    took = {name: 4.0 if name == best else 10.0 for name in CPUS}
    assert done.reason == (
        f"the fastest here: onnxruntime:int8 {took['onnxruntime']:.1f} ms, "
        f"openvino:int8 {took['openvino']:.1f} ms at batch 1"
    )
    assert (
        done.verdict == "int8 is 2.5x as fast as fp32 at batch 1; 2.5x as fast as fp32 at batch 8"
    )
    (built,) = find(bundle)
    assert built == done.built and built.record is not None
    assert built.record.speed == {
        "1": {"p50_ms": 4.0, "p95_ms": 20.0, "images_per_s": 250.0},
        "8": {"p50_ms": 32.0, "p95_ms": 160.0, "images_per_s": 250.0},
        "peak_mib": 64.0,
    }
    with open_engine(bundle) as engine:
        assert (engine.backend, engine.precision) == (best, "int8")
        assert engine.reason == (
            "fastest of 1 built for this machine: 4.0 ms; held to 96 % of bits: 98 % of bits, "
            "widened for 40 photos (limits are set for 1,024)"
        )
        assert done.default == (f"{best}:int8", engine.reason)


def test_the_fastest_over_all_batch_sizes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"onnxruntime": (1.0, 100.0), "openvino": (2.0, 20.0)}

    def compare(bundle: Path, names: Sequence[str], *_: Any, **__: Any) -> list[Speed]:
        return [
            Speed(name, (Latency(1, one, one), Latency(8, many, many)), 1.0)
            for name in names
            for one, many in [took[name.partition(":")[0]]]
        ]

    monkeypatch.setattr(bench, "compare", compare)
    assert build_proven(make(), "int8").name == "openvino:int8"


@pytest.mark.usefixtures("no_bf16")
def test_int8_that_is_not_worth_it(make: Make, timing: Timing) -> None:
    timing({"onnxruntime:int8": 9.8})  # 2 % are no difference
    done = build_proven(make(), "int8", "onnxruntime", BuildSettings(batches=(1, 4)))
    assert done.verdict == (
        "int8 is NOT worth it at batch 1: fp32 takes 10.0 ms, int8 9.8 ms; "
        "NOT worth it at batch 4: fp32 takes 40.0 ms, int8 39.2 ms"
    )
    why = "fp32: INT8 built here is not faster by 5 %: 9.8 against 10.0 ms"
    assert done.default == ("onnxruntime:fp32", why)
    with open_engine(done_bundle := open_bundle(done.built.folder.parents[1])) as engine:
        assert (engine.describe(), engine.reason) == ("onnxruntime fp32 (from model.onnx)", why)
    with open_engine(done_bundle, "onnxruntime:int8") as engine:  # by name it runs
        assert engine.describe() == "onnxruntime int8 (compiled here)"


@pytest.mark.usefixtures("no_bf16")
def test_fp32_of_another_backend_competes(make: Make, timing: Timing) -> None:
    timing({"openvino:int8": 5.0, "openvino:fp32": 9.0, "onnxruntime:fp32": 4.0})
    bundle = make()
    done = build_proven(bundle, "int8", "openvino", BuildSettings(batches=(1,)))
    assert done.verdict == (
        "int8 is NOT worth it at batch 1: fp32 takes 4.0 ms (onnxruntime), int8 5.0 ms"
    )
    why = "fp32: INT8 built here is slower: 5.0 against 4.0 ms"
    assert done.default == ("onnxruntime:fp32", why)
    with open_engine(bundle, "openvino") as engine:  # which is faster than OpenVINO's own fp32
        assert engine.describe() == "openvino int8 (compiled here)"


@pytest.mark.usefixtures("no_bf16")
def test_builds_one_after_the_other(make: Make, timing: Timing) -> None:
    """The machine was twice as slow when fp32 was timed: that says nothing of INT8."""
    timing({"onnxruntime:int8": 5.0, "onnxruntime:fp32": 10.0})
    bundle = make()
    build_proven(bundle, "int8", "onnxruntime")
    timing({"openvino:fp32": 4.0, "onnxruntime:fp32": 5.0})
    done = build_proven(bundle, "fp32", "openvino")
    assert done.default is not None and done.default[0] == "onnxruntime:int8"
    timing({"onnxruntime:int8": 30.0, "onnxruntime:fp32": 10.0, "openvino:fp32": 8.0})
    done = build_proven(bundle, "int8", "onnxruntime")  # the machine has another driver now
    assert done.default is not None and done.default[0] == "openvino:fp32"
    with open_engine(bundle) as engine:
        assert engine.describe() == "openvino fp32 (compiled here)"
        assert "INT8 built here is slower: 30.0 against 8.0 ms" in engine.reason


def test_the_fastest_rival_counts(make: Make, timing: Timing) -> None:
    bundle = make()
    try:
        open_engine(bundle, "openvino:bf16").close()
    except EngineError as error:
        pytest.skip(str(error))
    timing({"openvino:int8": 4.0, "openvino:bf16": 5.0, "openvino:fp32": 9.0})
    done = build_proven(bundle, "int8", "openvino")
    assert done.verdict is not None
    assert done.verdict.startswith("int8 is 2.2x as fast as fp32 at batch 1")
    timing({"openvino:int8": 4.0, "openvino:bf16": 3.0, "openvino:fp32": 9.0})
    done = build_proven(bundle, "int8", "openvino")
    assert done.verdict is not None
    assert done.verdict.endswith("openvino:bf16 is faster still: fgdeploy build-engine --bf16")
    assert done.default is not None and done.default[0] == "openvino:int8"  # BF16 is not proven yet


def test_nothing_to_compare_with(own_bundle: Path, timing: Timing) -> None:
    names_timed = timing({})
    done = build_proven(open_bundle(own_bundle), "fp32", "onnxruntime")
    assert names_timed == ["onnxruntime:fp32"]
    assert done.verdict == "there was nothing to compare with"
    assert done.proof is None


@pytest.mark.usefixtures("no_bf16")
def test_one_that_misses_its_limits_is_left_out(
    make: Make, timing: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    names_timed = timing({"onnxruntime:int8": 1.0})
    bundle = make()
    run = OnnxRuntimeEngine._run

    def wrong(self: OnnxRuntimeEngine, frames: Any) -> Any:
        outputs = run(self, frames)
        return dataclasses.replace(outputs, code=~outputs.code & np.uint8([255, 240]))

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", wrong)
    done = build_proven(bundle, "int8")
    assert done.name == "openvino:int8"
    assert names_timed == ["openvino:int8", "openvino:fp32", "onnxruntime:fp32"]
    assert done.refused == {
        "onnxruntime:int8": "bit agreement is 0, limit >= 0.96; bit agreement with the calibrated "
        "INT8 is 0, limit >= 0.98"
    }
    untimed = build_proven(bundle, "int8", timed=False)
    assert (untimed.name, list(untimed.refused)) == ("openvino:int8", ["onnxruntime:int8"])
    with open_engine(bundle) as engine:
        assert engine.backend == "openvino"


@pytest.mark.parametrize("fault", ["NaN", "an error"])
def test_one_that_gives_no_numbers_is_never_chosen(
    make: Make, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OnnxRuntimeEngine._run

    def wrong(self: OnnxRuntimeEngine, frames: Any) -> Any:
        outputs = run(self, frames)
        if fault == "an error" and len(frames) > 1:
            raise RuntimeError("out of memory")
        return dataclasses.replace(outputs, hash=outputs.hash * np.float32("nan"))

    bundle = make()
    words = {"NaN": r"gave NaN or infinite hashes", "an error": r"failed on 8 frames: out of mem"}
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeEngine, "_run", wrong)
        with refused(ParityError, rf"does not keep to fp32: onnxruntime:int8: .*{words[fault]}"):
            build_proven(bundle, "int8", "onnxruntime", timed=False)
        done = build_proven(bundle, "int8", timed=False)
    assert done.name == "openvino:int8"
    failed = {built.record.backend: built.record.failed for built in find(bundle) if built.record}
    assert failed == {"onnxruntime": True, "openvino": False}
    with open_engine(bundle) as engine:
        assert engine.backend == "openvino"


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("[Backend] : 6\nno such kernel")


@pytest.mark.usefixtures("no_bf16")
def test_one_that_does_not_build_is_left_out(
    make: Make, timing: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing({})
    monkeypatch.setattr(OnnxRuntimeEngine, "compile", broken)
    bundle = make()
    done = build_proven(bundle, "int8")
    assert done.name == "openvino:int8"
    (words,) = done.refused.values()
    assert list(done.refused) == ["onnxruntime"]
    assert words.startswith("onnxruntime cannot compile model.int8.onnx: [Backend] : 6 no such ker")
    assert folders(bundle) == ["openvino"]


def test_none_that_builds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeEngine, "compile", broken)
    monkeypatch.setattr(OpenVinoEngine, "compile", broken)
    bundle = make()
    with refused(EngineError, r"^onnxruntime: .*no such kernel.*; openvino: .*no such kernel"):
        build_proven(bundle, "int8")
    with refused(EngineError, r"^onnxruntime cannot compile"):
        build_proven(bundle, "int8", "onnxruntime")
    assert find(bundle) == []


@pytest.mark.usefixtures("clipped")
def test_openvino_is_left_out_where_its_int8_clips(make: Make, timing: Timing) -> None:
    names_timed = timing({"openvino:int8": 1.0})
    bundle = make()
    done = build_proven(bundle, "int8")
    assert done.name == "onnxruntime:int8" and done.built.record is not None
    assert "openvino:int8" not in names_timed
    assert list(done.refused) == ["openvino"]
    assert done.refused["openvino"].startswith("OpenVINO's INT8 is wrong on this CPU (")
    assert folders(bundle) == ["onnxruntime"]
    with refused(EngineError, r"^OpenVINO's INT8 is wrong on this CPU .* take onnxruntime's INT8"):
        build_proven(bundle, "int8", "openvino")


def test_without_timing_the_first_is_taken(make: Make) -> None:
    bundle = make()
    done = build_proven(bundle, "int8", "auto", timed=False)
    assert (done.name, done.reason) == (
        "onnxruntime:int8",
        "the first that can run here; not timed",
    )
    assert folders(bundle) == CPUS
    with open_engine(bundle) as engine:
        assert engine.backend == "onnxruntime"


def test_a_setting_that_no_candidate_can_have(make: Make) -> None:
    settings = BuildSettings(compute_capabilities=("8.6",))
    with refused(UsageError, r"^onnxruntime compiles for this machine's own device only;.*rtx$"):
        build_proven(make(), "int8", settings=settings)


def test_engines_for_elsewhere_are_not_judged(make: Make, timing: Timing) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    names_timed = timing({})
    settings = BuildSettings(compute_capabilities=("8.6",))
    done = build_proven(make(turned=12), "int8", "tensorrt-rtx", settings)
    assert (done.proof, done.verdict, done.speeds, names_timed) == (None, None, (), [])
    assert done.built.folder.name == "tensorrt-rtx-int8-sm86"


def test_frames_fit_the_largest_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled engine may take few frames at a time, as TensorRT's do."""
    sizes: list[int] = []
    run = Engine.run

    def counted(self: Engine, frames: Any) -> Any:
        sizes.append(len(frames))
        return run(self, frames)

    bundle = make()
    monkeypatch.setattr(OnnxRuntimeEngine, "max_batch", 3)
    monkeypatch.setattr(Engine, "run", counted)
    done = build_proven(bundle, "int8", "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.parity.photos == FRAMES
    assert max(sizes) == 3 and sum(sizes) == FRAMES + 1  # one when it was tried


# --- candidates


def test_candidates_on_a_cpu() -> None:
    assert candidates("int8") == CPUS
    assert candidates("int8", "auto") == CPUS
    assert candidates("bf16") == ["openvino"]
    assert candidates("fp32", "openvino") == ["openvino"]


@pytest.mark.usefixtures("clipped")
def test_candidates_where_openvinos_int8_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    assert candidates("int8") == CPUS  # the build says why it leaves one out
    assert candidates("bf16") == candidates("bf16", "openvino") == ["openvino"]
    with refused(EngineError, r"^OpenVINO's INT8 is wrong on this CPU"):
        candidates("int8", "openvino")
    monkeypatch.setattr(building, "available", lambda: ["openvino"])
    with refused(EngineError, r"^OpenVINO's INT8 is wrong on this CPU"):
        candidates("int8")


def test_a_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        building, "available", lambda: ["onnxruntime", "onnxruntime-cuda", "tensorrt-rtx"]
    )
    monkeypatch.setattr(building, "engine_type", lambda name: OnnxRuntimeEngine)
    assert candidates("int8") == ["onnxruntime-cuda"]


def test_candidates_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(UsageError, r"no backend 'abacus'; choose auto, onnxruntime"):
        candidates("int8", "abacus")
    monkeypatch.setattr(building, "available", lambda: ["onnxruntime"])
    with refused(UsageError, r"no backend that is installed here has the precision bf16; see: fg"):
        candidates("bf16")
    monkeypatch.setattr("fgdeploy.engines.backends.installed", lambda name: False)
    with refused(MissingDependency, r'fgdeploy\[tensorrt\]"$'):
        candidates("int8", "tensorrt")


def test_a_gpu_backend_without_a_gpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    monkeypatch.setattr(machine, "gpus", lambda: [])
    with refused(EngineError, r"no NVIDIA GPU on this machine; name the GPUs"):
        build_proven(make(), "int8", "tensorrt-rtx")
