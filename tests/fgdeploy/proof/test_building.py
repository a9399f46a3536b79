"""Building an engine: which backends, what judges it, which is kept, and what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from fgdeploy.bundle import Bundle, checks, open_bundle
from fgdeploy.bundle.checks import Checks
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, MissingDependency, ParityError, UsageError
from fgdeploy.engines import BuildSettings, Engine, find, open_engine, openvino
from fgdeploy.engines.onnxruntime import OnnxRuntimeEngine
from fgdeploy.engines.openvino import OpenVinoEngine
from fgdeploy.photos import Photo
from fgdeploy.proof import bench, building, proving
from fgdeploy.proof.bench import Latency, Speed
from fgdeploy.proof.building import build_engine, candidates, find_photos
from fgdeploy.proof.parity import Limits
from fgdeploy.proof.proving import LIMITS, SameCodes

Refuses = Callable[[type[BaseException], str], AbstractContextManager[None]]
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
    """The toy's INT8 graph has no INT8 product, so OpenVINO has it right on every CPU."""
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.0)


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
            {"model.int8.onnx": as_int8(own_bundle, turned)}, {"method": "mse"}
        )
        files = {checks.FILE: frames_of(bundle, frames)} if frames else {}
        return bundle.with_files(files, {"method": "mse"})

    return call


Timing = Callable[[dict[str, float]], list[str]]


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> Timing:
    """Let engines take a known time: milliseconds by name, 10 where none is given."""

    def fake(took: dict[str, float]) -> list[str]:
        asked: list[str] = []

        def compare(
            bundle: Path, names: Sequence[str], batches: Sequence[int], *_: Any, **__: Any
        ) -> list[Speed]:
            asked.extend(names)
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
        return asked

    return fake


@pytest.fixture
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make machines equal: on some, OpenVINO has BF16 to compare with."""
    monkeypatch.setattr(
        OpenVinoEngine,
        "graphs",
        {key: value for key, value in OpenVinoEngine.graphs.items() if key != "bf16"},
    )


def folders(bundle: Bundle) -> list[str]:
    return [built.folder.name.partition("-int8")[0] for built in find(bundle)]


# --- parity


def test_the_frames_in_the_bundle_judge(make: Make) -> None:
    bundle = make()
    told: list[str] = []
    done = build_engine(bundle, "int8", "onnxruntime", timed=False, notify=told.append)
    assert done.name == "onnxruntime:int8"
    assert done.proof is not None and done.proof.broken == []
    assert done.proof.parity.photos == FRAMES
    assert done.proof.parity.bit_agreement == 1
    assert done.proof.parity.map_drop is None
    assert (done.speeds, done.verdict, done.refused) == ((), None, {})
    assert done.reason == "the one asked for or the only one for this machine"
    assert told == ["compiling onnxruntime int8"]
    entry = done.built.record
    assert entry is not None and entry.parity is not None
    assert entry.parity["passed"] is True and entry.parity["photos"] == FRAMES
    assert find(bundle) == [done.built]
    with open_engine(bundle) as engine:
        assert engine.describe() == "onnxruntime int8 (compiled here)"


def test_photos_judge_where_there_are_some(make: Make, grey_photos: list[Photo]) -> None:
    done = build_engine(make(), "int8", "openvino", photos=grey_photos, timed=False)
    assert done.proof is not None
    assert done.proof.parity.photos == 12
    assert done.proof.parity.map_drop == 0
    assert done.proof.parity.top10_overlap == 1


def test_photos_that_cannot_be_read_leave_it_to_the_frames(make: Make, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("text")
    done = build_engine(
        make(), "int8", "onnxruntime", photos=[Photo(tmp_path / "a.jpg")], timed=False
    )
    assert done.proof is not None and done.proof.parity.photos == FRAMES


def test_nothing_to_judge_with_is_said(make: Make) -> None:
    bundle = make(turned=12, frames=0)
    told: list[str] = []
    done = build_engine(bundle, "int8", "onnxruntime", timed=False, notify=told.append)
    assert done.proof is None
    assert told[-1] == "parity was not measured: there are no photos; give some with --data"
    assert done.built.record is not None and done.built.record.parity is None


def test_an_engine_that_misses_its_limits(make: Make, refuses: Refuses) -> None:
    bundle = make(turned=6)
    with refuses(
        ParityError,
        r"does not keep to fp32: onnxruntime:int8: bit agreement is 0\.5\d*, limit >= 0\.96 "
        r"\(limits: 98 % of bits, widened for 40 photos \(limits are set for 1,024\)\); it stays "
        r"for parity --bisect but is never chosen by itself$",
    ):
        build_engine(bundle, "int8", "onnxruntime")
    (built,) = find(bundle)
    assert built.record is not None and built.record.failed
    assert built.record.speed is None
    with refuses(EngineError, r"it failed parity"):
        open_engine(bundle)
    with open_engine(bundle, fallback=True) as engine:
        assert engine.precision == "fp32"
    with open_engine(bundle, "onnxruntime:int8") as engine:  # for whoever wants to look at it
        assert "compiled here" in engine.describe()


def test_all_that_miss_are_named(make: Make, refuses: Refuses) -> None:
    bundle = make(turned=12)
    with refuses(ParityError, r"onnxruntime:int8: bit agreement.* \| openvino:int8: bit agr"):
        build_engine(bundle, "int8")
    assert all(built.record is not None and built.record.failed for built in find(bundle))


def test_limits_that_are_named_are_used_as_they_are(make: Make, refuses: Refuses) -> None:
    bundle, limits = make(turned=1), Limits(min_bit_agreement=0.92)
    with refuses(ParityError, r"bit agreement is 0\.91\d*, limit >= 0\.92"):
        build_engine(bundle, "int8", "onnxruntime", limits=limits, timed=False)
    limits = dataclasses.replace(limits, min_bit_agreement=0.91)
    done = build_engine(bundle, "int8", "onnxruntime", limits=limits, timed=False)
    assert done.proof is not None and done.proof.limits == limits


@pytest.mark.parametrize(("frames", "factor"), [(1, 2.0), (256, 2.0), (576, 4 / 3), (4096, 1.0)])
def test_few_photos_widen_the_limits(frames: int, factor: float) -> None:
    found, why = proving.widened(Limits(max_map_drop=0.5, min_bit_agreement=0.98), frames)
    assert found.max_map_drop == pytest.approx(0.5 * factor)
    assert found.min_bit_agreement == pytest.approx(1 - 0.02 * factor)
    if factor == 1:
        assert why == "as they are set, for 4,096 photos"
    else:
        assert why == (
            f"98 % of bits, 0.5 points of mAP, widened for {frames} photos (limits are set for "
            "1,024)"
        )
    assert proving.widened(Limits(min_top10=0.9), frames)[0] == Limits(min_top10=0.9)


def off_by(bits: int) -> Callable[[OpenVinoEngine, Any], Any]:
    """Return a run of OpenVINO that has some of a photo's twelve bits wrong."""
    run = OpenVinoEngine._run

    def wrong(self: OpenVinoEngine, frames: Any) -> Any:
        outputs = run(self, frames)
        outputs.code[::8, 0] ^= np.uint8((1 << bits) - 1)
        return outputs

    return wrong


def test_int8_is_held_to_the_calibrated_codes(make: Make) -> None:
    """One bit of twelve is not fp32's, and the engine has it as the calibrated graph has it."""
    done = build_engine(
        make(turned=1), "int8", "openvino", limits=Limits(min_bit_agreement=0.9), timed=False
    )
    assert done.proof is not None and done.proof.parity is not None
    assert done.proof.parity.bit_agreement == pytest.approx(11 / 12)
    assert done.proof.int8 == SameCodes(1.0, 1.0, 0.9)
    assert done.proof.why == "as asked for"
    assert done.built.record is not None and done.built.record.parity is not None
    assert done.built.record.parity["int8_bit_agreement"] == 1
    assert done.built.record.parity["limits"] == {"min_bit_agreement": 0.9}


@pytest.mark.parametrize("stored", [True, False])
def test_what_widened_limits_let_pass_the_calibrated_codes_do_not(
    make: Make, stored: bool, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    """3 of 96 bits: within the 96 % that 98 % become for 40 photos, but not within 98 %."""
    bundle = make()
    if not stored:  # a bundle that was calibrated before they were kept
        held = checks.read(bundle)
        assert held is not None
        older = dataclasses.replace(held, int8=None).to_bytes()
        bundle = bundle.with_files({checks.FILE: older}, {"method": "mse"})
    monkeypatch.setattr(OpenVinoEngine, "_run", off_by(3))
    with refuses(
        ParityError,
        r"openvino:int8: bit agreement with the calibrated INT8 is 0\.96875, limit >= 0\.98 \(",
    ):
        build_engine(bundle, "int8", "openvino", timed=False)
    (built,) = find(bundle)
    assert built.record is not None and built.record.failed


def test_photos_are_run_in_the_calibrated_graph(make: Make, grey_photos: list[Photo]) -> None:
    done = build_engine(make(turned=12), "int8", "onnxruntime", photos=grey_photos, timed=False,
        limits=Limits(max_map_drop=100))  # fmt: skip
    assert done.proof is not None and done.proof.parity is not None
    assert done.proof.parity.bit_agreement == 0
    assert done.proof.int8 == SameCodes(1.0, 1.0, 0.98)


def test_without_the_exact_codes_that_is_said(
    make: Make, grey_photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "available", lambda: ["openvino"])
    told: list[str] = []
    done = build_engine(
        make(), "int8", "openvino", photos=grey_photos, timed=False, notify=told.append
    )
    assert done.proof is not None and done.proof.int8 is None and done.proof.broken == []
    assert told[1].startswith("not held to the calibrated INT8 codes: the bundle does not carry")
    assert "onnxruntime, which gives them exactly, is not installed; run: pip install" in told[1]


def test_other_precisions_have_no_calibrated_codes(make: Make) -> None:
    done = build_engine(make(), "fp32", "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.int8 is None


def test_few_frames_let_pass_what_many_would_not(
    make: Make, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    bundle = make(turned=1)
    monkeypatch.setitem(LIMITS, "int8", Limits(min_bit_agreement=0.95))
    done = build_engine(bundle, "int8", "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.limits.min_bit_agreement == pytest.approx(0.9)
    monkeypatch.setattr(proving, "PHOTOS", FRAMES)
    with refuses(ParityError, "limit >= 0.95"):
        build_engine(bundle, "int8", "onnxruntime", timed=False)


def test_the_calibration_brings_the_limits_of_int8(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgdeploy.calibration import cache

    limits = {"min_bit_agreement": 0.7, "max_map_drop": 2.0}
    held = cache.Calibration("", {"limits": limits}, {}, {}, [], "", {})
    bundle = make()
    assert proving.limits_of(bundle, "int8") == LIMITS["int8"]
    monkeypatch.setattr(cache, "read", lambda bundle: held)
    assert proving.limits_of(bundle, "int8") == Limits(min_bit_agreement=0.7, max_map_drop=2.0)
    assert proving.limits_of(bundle, "fp32") == LIMITS["fp32"]


# --- which one is kept


@pytest.mark.usefixtures("no_bf16")
@pytest.mark.parametrize("best", CPUS)
def test_the_fastest_stays_and_the_other_goes(make: Make, timing: Timing, best: str) -> None:
    asked = timing({f"{best}:int8": 4.0})
    bundle = make()
    done = build_engine(bundle, "int8")
    assert done.name == f"{best}:int8"
    assert folders(bundle) == [best]
    assert asked == ["onnxruntime:int8", "openvino:int8", "onnxruntime:fp32", "openvino:fp32"]
    assert [speed.name for speed in done.speeds] == asked
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
        assert engine.reason == "fastest of 1 built for this machine: 4.0 ms"


def test_the_fastest_over_all_batch_sizes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"onnxruntime": (1.0, 100.0), "openvino": (2.0, 20.0)}

    def compare(bundle: Path, names: Sequence[str], *_: Any, **__: Any) -> list[Speed]:
        return [
            Speed(name, (Latency(1, one, one), Latency(8, many, many)), 1.0)
            for name in names
            for one, many in [took[name.partition(":")[0]]]
        ]

    monkeypatch.setattr(bench, "compare", compare)
    assert build_engine(make(), "int8").name == "openvino:int8"


@pytest.mark.usefixtures("no_bf16")
def test_int8_that_is_not_worth_it(make: Make, timing: Timing) -> None:
    timing({"onnxruntime:int8": 9.8})  # 2 % are no difference
    done = build_engine(make(), "int8", "onnxruntime", BuildSettings(batches=(1, 4)))
    assert done.verdict == (
        "int8 is NOT worth it at batch 1: fp32 takes 10.0 ms, int8 9.8 ms; "
        "NOT worth it at batch 4: fp32 takes 40.0 ms, int8 39.2 ms"
    )


def test_the_fastest_rival_counts(make: Make, timing: Timing) -> None:
    bundle = make()
    try:
        open_engine(bundle, "openvino:bf16").close()
    except EngineError as error:
        pytest.skip(str(error))
    timing({"openvino:int8": 4.0, "openvino:bf16": 5.0, "openvino:fp32": 9.0})
    done = build_engine(bundle, "int8", "openvino")
    assert done.verdict is not None
    assert done.verdict.startswith("int8 is 1.2x as fast as bf16 at batch 1")


def test_nothing_to_compare_with(own_bundle: Path, timing: Timing) -> None:
    asked = timing({})
    done = build_engine(open_bundle(own_bundle), "fp32", "onnxruntime")
    assert asked == ["onnxruntime:fp32"]
    assert done.verdict == "there was nothing in this backend to compare with"
    assert done.proof is None


@pytest.mark.usefixtures("no_bf16")
def test_one_that_misses_its_gate_is_left_out(
    make: Make, timing: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = timing({"onnxruntime:int8": 1.0})
    bundle = make()
    run = OnnxRuntimeEngine._run

    def wrong(self: OnnxRuntimeEngine, frames: Any) -> Any:
        outputs = run(self, frames)
        return dataclasses.replace(outputs, code=~outputs.code & np.uint8([255, 240]))

    monkeypatch.setattr(OnnxRuntimeEngine, "_run", wrong)
    done = build_engine(bundle, "int8")
    assert done.name == "openvino:int8"
    assert asked == ["openvino:int8", "openvino:fp32"]
    assert done.refused == {
        "onnxruntime:int8": "bit agreement is 0, limit >= 0.96; bit agreement with the calibrated "
        "INT8 is 0, limit >= 0.98"
    }
    untimed = build_engine(bundle, "int8", timed=False)
    assert (untimed.name, list(untimed.refused)) == ("openvino:int8", ["onnxruntime:int8"])
    with open_engine(bundle) as engine:
        assert engine.backend == "openvino"


@pytest.mark.parametrize("fault", ["NaN", "an error"])
def test_one_that_gives_no_numbers_is_never_chosen(
    make: Make, fault: str, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
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
        with refuses(ParityError, rf"does not keep to fp32: onnxruntime:int8: .*{words[fault]}"):
            build_engine(bundle, "int8", "onnxruntime", timed=False)
        done = build_engine(bundle, "int8", timed=False)
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
    done = build_engine(bundle, "int8")
    assert done.name == "openvino:int8"
    (words,) = done.refused.values()
    assert list(done.refused) == ["onnxruntime"]
    assert words.startswith("onnxruntime cannot compile model.int8.onnx: [Backend] : 6 no such ker")
    assert folders(bundle) == ["openvino"]


def test_none_that_builds(make: Make, monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setattr(OnnxRuntimeEngine, "compile", broken)
    monkeypatch.setattr(OpenVinoEngine, "compile", broken)
    bundle = make()
    with refuses(EngineError, r"^onnxruntime: .*no such kernel.*; openvino: .*no such kernel"):
        build_engine(bundle, "int8")
    with refuses(EngineError, r"^onnxruntime cannot compile"):
        build_engine(bundle, "int8", "onnxruntime")
    assert find(bundle) == []


@pytest.mark.usefixtures("clipped")
def test_openvino_is_left_out_where_its_int8_clips(
    make: Make, timing: Timing, refuses: Refuses
) -> None:
    asked = timing({"openvino:int8": 1.0})
    bundle = make()
    done = build_engine(bundle, "int8")
    assert done.name == "onnxruntime:int8" and done.built.record is not None
    assert "openvino:int8" not in asked
    assert list(done.refused) == ["openvino"]
    assert done.refused["openvino"].startswith("OpenVINO's INT8 is wrong on this CPU (")
    assert folders(bundle) == ["onnxruntime"]
    with refuses(EngineError, r"^OpenVINO's INT8 is wrong on this CPU .* take onnxruntime's INT8"):
        build_engine(bundle, "int8", "openvino")


def test_without_timing_the_first_is_taken(make: Make) -> None:
    bundle = make()
    done = build_engine(bundle, "int8", "auto", timed=False)
    assert (done.name, done.reason) == (
        "onnxruntime:int8",
        "the first that can run here; not timed",
    )
    assert folders(bundle) == CPUS
    with open_engine(bundle) as engine:
        assert engine.backend == "onnxruntime"


def test_a_setting_that_no_candidate_can_have(make: Make, refuses: Refuses) -> None:
    settings = BuildSettings(compute_capabilities=("8.6",))
    with refuses(UsageError, r"^onnxruntime compiles for this machine's own device only;.*rtx$"):
        build_engine(make(), "int8", settings=settings)


def test_engines_for_elsewhere_are_not_judged(make: Make, timing: Timing) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    asked = timing({})
    settings = BuildSettings(compute_capabilities=("8.6",))
    done = build_engine(make(turned=12), "int8", "tensorrt-rtx", settings)
    assert (done.proof, done.verdict, done.speeds, asked) == (None, None, (), [])
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
    done = build_engine(bundle, "int8", "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.parity.photos == FRAMES
    assert max(sizes) == 3 and sum(sizes) == FRAMES + 1  # one when it was tried


# --- candidates


def test_candidates_on_a_cpu() -> None:
    assert candidates("int8") == CPUS
    assert candidates("int8", "auto") == CPUS
    assert candidates("bf16") == ["openvino"]
    assert candidates("fp32", "openvino") == ["openvino"]


@pytest.mark.usefixtures("clipped")
def test_candidates_where_openvinos_int8_clips(
    monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    assert candidates("int8") == CPUS  # the build says why it leaves one out
    assert candidates("bf16") == candidates("bf16", "openvino") == ["openvino"]
    with refuses(EngineError, r"^OpenVINO's INT8 is wrong on this CPU"):
        candidates("int8", "openvino")
    monkeypatch.setattr(building, "available", lambda: ["openvino"])
    with refuses(EngineError, r"^OpenVINO's INT8 is wrong on this CPU"):
        candidates("int8")


def test_a_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        building, "available", lambda: ["onnxruntime", "onnxruntime-cuda", "tensorrt-rtx"]
    )
    monkeypatch.setattr(building, "engine_type", lambda name: OnnxRuntimeEngine)
    assert candidates("int8") == ["onnxruntime-cuda"]


def test_candidates_that_cannot_be(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    with refuses(UsageError, r"no backend 'abacus'; choose auto, onnxruntime"):
        candidates("int8", "abacus")
    monkeypatch.setattr(building, "available", lambda: ["onnxruntime"])
    with refuses(UsageError, r"no backend that is installed here has the precision bf16; see: fg"):
        candidates("bf16")
    monkeypatch.setattr("fgdeploy.engines.backends.installed", lambda name: False)
    with refuses(MissingDependency, r'fgdeploy\[tensorrt\]"$'):
        candidates("int8", "tensorrt")


def test_a_gpu_backend_without_a_gpu(
    make: Make, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    monkeypatch.setattr(machine, "gpus", lambda: [])
    with refuses(EngineError, r"no NVIDIA GPU on this machine; name the GPUs"):
        build_engine(make(), "int8", "tensorrt-rtx")


# --- photos that lie around


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_photos_to_find(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt")
    put(tmp_path / "readings.csv", "time,value\n1,2\n")
    put(tmp_path / "docs" / "a.md")
    put(tmp_path / "eet.fgd" / "a.jpg")
    put(tmp_path / "g.fgi" / "a.jpg")
    put(tmp_path / ".cache" / "a.jpg")
    put(tmp_path / "_build" / "a.jpg")
    put(tmp_path / "photos" / ".thumbs" / "a.jpg")
    put(tmp_path / "lying.jpg")
    (tmp_path / "folder.csv").mkdir()
    assert find_photos(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("list.csv", "path,class\n", "list.csv"),
        ("list.csv", "\ufeffPath, Class ,split\n", "list.csv"),
        ("list.csv", '"class","path"\r\n', "list.csv"),
        ("photos/gull/a.jpg", "", "photos"),
        ("photos/deep/er/a.PNG", "", "photos"),
        ("photos/split.csv", "path,class,split\n", "photos/split.csv"),
    ],
)
def test_the_only_photos(tmp_path: Path, name: str, text: str, found: str) -> None:
    put(tmp_path / name, text)
    put(tmp_path / "eet.fgd" / "manifest.json")
    assert find_photos(tmp_path) == tmp_path / found


def test_a_list_inside_a_folder_of_photos_comes_first(tmp_path: Path) -> None:
    put(tmp_path / "moths" / "a" / "0.jpg")
    table = put(tmp_path / "moths" / "split.csv", "path,class,split\n")
    assert find_photos(tmp_path) == table
    table.write_text("nonsense\n")
    assert find_photos(tmp_path) == tmp_path / "moths"


def test_several_are_too_many(tmp_path: Path, refuses: Refuses) -> None:
    put(tmp_path / "b.csv", "path,class\n")
    put(tmp_path / "a" / "0.jpg")
    with refuses(UsageError, r"^photos lie in b\.csv, a; name one with --data$"):
        find_photos(tmp_path)


def test_two_lists_with_the_same_name_can_be_told_apart(tmp_path: Path, refuses: Refuses) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / "split.csv", "path,class\n")
    with refuses(UsageError, r"^photos lie in one/split\.csv, two/split\.csv; name one"):
        find_photos(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00path\x00,class", b"\x00" * 50_000])
def test_a_csv_that_cannot_be_read_lists_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert find_photos(tmp_path) is None
