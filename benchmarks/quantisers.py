"""Who makes the best INT8 and FP16 graph of a hashing ViT: fgdeploy or the quantisers around.

    .venv/bin/python benchmarks/quantisers.py DATA/split.csv NAME.fgd [--nncf-python PATH]
        [--modelopt-python PATH] [--only WORD] [--folder FOLDER]

Every contender gets the same fp32 graph and the same photos of the train split, and makes a graph
in a process of its own, by the interpreter given for it. Its codes of the whole test split are
compared with those of the fp32 graph, both in ONNX Runtime on the CPU with all graph optimisations
on. What is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

THREADS = len(os.sched_getaffinity(0))
BATCH, LIMIT_S = 16, 1200
Make = Callable[[Path, Path], None]

# Package -> what to import, how to get it. Other interpreters than ours have no fgdeploy.
PACKAGES = {
    "fgdeploy": ("fgdeploy.calibration.int8_plan", "pip install fgdeploy[onnx]"),
    "onnxruntime": ("onnxruntime.quantization", "pip install onnxruntime onnx"),
    "nncf": ("nncf", "pip install nncf onnx onnxruntime openvino"),
    "modelopt": ("modelopt.onnx.quantization", 'pip install "nvidia-modelopt[onnx]"'),
}


def _layers(work: Path) -> Any:
    return json.loads((work / "layers.json").read_text())


def _calibration(work: Path, size: int) -> Iterator[dict[str, Any]]:
    frames = np.load(work / "cal.npy")
    return ({"frames": frames[i : i + size]} for i in range(0, len(frames), size))


def _ours(work: Path, target: Path, **settings: Any) -> None:
    from fgdeploy.calibration import int8_plan, qdq
    from fgdeploy.calibration.calibration_settings import CalibrationSettings

    batches = (feed["frames"] for feed in _calibration(work, BATCH))
    made = int8_plan.make(onnx.load(work / "model.onnx"), batches, CalibrationSettings(**settings))
    onnx.save(qdq.write(made), target)
    onnx.save(qdq.write(made, unsigned_activations=True), _for_onnxruntime(target))


def _for_onnxruntime(graph: Path) -> Path:
    """Return where the twin with unsigned activations lies, which fgdeploy gives ONNX Runtime."""
    return graph.with_suffix(".u8.onnx")


def _onnxruntime(method: str, work: Path, target: Path, same_layers: bool = True) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = list(_calibration(work, BATCH))

        def __len__(self) -> int:
            return len(self.feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.part = iter(self.feeds[start_index:end_index])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.part, None)

    kinds = ["MatMul", "Conv"]
    symmetric = ("ActivationSymmetric", "WeightSymmetric", "CalibTensorRangeSymmetric")
    extra: dict[str, Any] = dict.fromkeys(symmetric, True) | {"QuantizeBias": False}
    extra["CalibStridedMinMax"] = 1  # or histograms wait until every tensor is in memory
    if same_layers:
        extra["OpTypesToExcludeOutputQuantization"] = kinds
    q.quantize_static(
        work / "model.onnx",
        target,
        Reader(),
        op_types_to_quantize=kinds,
        nodes_to_quantize=_layers(work) if same_layers else None,
        per_channel=True,
        calibrate_method=q.CalibrationMethod[method],
        extra_options=extra,
    )


def _nncf(preset: str, work: Path, target: Path, same_layers: bool = True, **more: Any) -> None:
    import nncf  # type: ignore[import-not-found]

    model, layers = onnx.load(work / "model.onnx"), set(_layers(work))
    others = [node.name for node in model.graph.node if node.name not in layers]
    feeds = list(_calibration(work, 1))
    quantised = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        ignored_scope=nncf.IgnoredScope(names=others) if same_layers else None,
        preset=nncf.QuantizationPreset[preset],
        **{"model_type": nncf.ModelType.TRANSFORMER} | more,
    )
    onnx.save(quantised, target)


def _modelopt(work: Path, target: Path, same_layers: bool = True, **settings: Any) -> None:
    from modelopt.onnx import quantization  # type: ignore[import-not-found]

    if same_layers:
        settings["nodes_to_quantize"] = [f"^{name}$" for name in _layers(work)]
    quantization.quantize(
        # A copy, as it writes beside the graph that it reads.
        str(shutil.copy(work / "model.onnx", target.with_suffix(".fp32.onnx"))),
        quantize_mode="int8",
        calibration_data={"frames": np.load(work / "cal.npy")},
        calibration_eps=["cpu"],
        output_path=str(target),
        **settings,
    )


def _copy(work: Path, target: Path) -> None:
    shutil.copy(work / "model.onnx", target)


def _our_half(work: Path, target: Path) -> None:
    from fgdeploy.calibration.half import to_half

    onnx.save(to_half(onnx.load(work / "model.onnx")), target)


def _their_half(blocked: tuple[str, ...], work: Path, target: Path) -> None:
    from onnxruntime.transformers import float16

    model, block = onnx.load(work / "model.onnx"), [*float16.DEFAULT_OP_BLOCK_LIST, *blocked]
    half = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=block)
    onnx.save(half, target)


_PLAIN: dict[str, Any] = {"balance": False, "compensate": False}
_WHOLE: dict[str, Any] = {"same_layers": False}
_MAX: dict[str, Any] = {"calibration_method": "max", "high_precision_dtype": "fp32"}
_ENTROPY: dict[str, Any] = _MAX | {"calibration_method": "entropy"}
_BF16 = "fp32, computed in bf16 by OpenVINO"

# Package -> its graphs. "all": the layers that it takes itself; else those that fgdeploy takes.
CONTENDERS: dict[str, dict[str, Make]] = {
    "fgdeploy": {
        "fp32": _copy,
        _BF16: _copy,
        "fgdeploy, minmax alone": partial(_ours, range="minmax", **_PLAIN),
        "fgdeploy, percentile alone": partial(_ours, range="percentile", **_PLAIN),
        "fgdeploy, entropy alone": partial(_ours, range="entropy", **_PLAIN),
        "fgdeploy, mse alone": partial(_ours, **_PLAIN),
        "fgdeploy, mse + balance": partial(_ours, compensate=False),
        "fgdeploy, mse + compensate": partial(_ours, balance=False),
        "fgdeploy, mse + balance + compensate": _ours,
        "FP16, fgdeploy": _our_half,
    },
    "onnxruntime": {
        "ORT static, MinMax, all": partial(_onnxruntime, "MinMax", **_WHOLE),
        "ORT static, MinMax": partial(_onnxruntime, "MinMax"),
        "ORT static, Percentile": partial(_onnxruntime, "Percentile"),
        "ORT static, Entropy": partial(_onnxruntime, "Entropy"),
        "FP16, ORT's converter": partial(_their_half, ()),
        "FP16, ORT's converter but for norms": partial(_their_half, ("LayerNormalization",)),
    },
    "nncf": {
        "NNCF, PERFORMANCE, all, no type": partial(_nncf, "PERFORMANCE", model_type=None, **_WHOLE),
        "NNCF, PERFORMANCE, all": partial(_nncf, "PERFORMANCE", **_WHOLE),
        "NNCF, MIXED, all": partial(_nncf, "MIXED", **_WHOLE),
        "NNCF, PERFORMANCE": partial(_nncf, "PERFORMANCE"),
        "NNCF, MIXED": partial(_nncf, "MIXED"),
        "NNCF, MIXED, slow bias": partial(_nncf, "MIXED", fast_bias_correction=False),
    },
    "modelopt": {
        "Model Optimizer, entropy, all, rest FP16": partial(_modelopt, **_WHOLE),
        "Model Optimizer, max, all": partial(_modelopt, **_WHOLE, **_MAX),
        "Model Optimizer, entropy, all": partial(_modelopt, **_WHOLE, **_ENTROPY),
        "Model Optimizer, max": partial(_modelopt, **_MAX),
        "Model Optimizer, entropy": partial(_modelopt, **_ENTROPY),
    },
}
JUDGES = {_BF16: "openvino-bf16"}  # ONNX Runtime for all others


def _run_onnxruntime(graph: Path) -> Callable[[Any], Any]:
    import onnxruntime

    from fgdeploy.engines.onnxruntime import session_options

    options = session_options(THREADS)  # exact on CPUs without VNNI as well
    twin = _for_onnxruntime(graph)
    session = onnxruntime.InferenceSession(
        twin if twin.exists() else graph, options, providers=["CPUExecutionProvider"]
    )
    return lambda frames: session.run(["hash"], {"frames": frames})[0]


def _run_openvino(graph: Path, hint: str) -> Callable[[Any], Any]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
    return lambda frames: compiled({"frames": frames})["hash"]


RUNS: dict[str, Callable[[Path], Callable[[Any], Any]]] = {
    "onnxruntime": _run_onnxruntime,
    "openvino": partial(_run_openvino, hint="f32"),
    "openvino-bf16": partial(_run_openvino, hint="bf16"),
}


def _make(package: str, label: str, work: str, target: str) -> float:
    """Return the seconds that it took, imports not counted."""
    importlib.import_module(PACKAGES[package][0])
    start = time.perf_counter()
    CONTENDERS[package][label](Path(work), Path(target))
    return time.perf_counter() - start


def _hashes(engine: str, graph: str, frames_file: str) -> None:
    """Keep the hashes of all frames beside the graph."""
    run, frames = RUNS[engine](Path(graph)), np.load(frames_file, mmap_mode="r")
    parts = [run(np.array(frames[i : i + BATCH])) for i in range(0, len(frames), BATCH)]
    np.save(Path(graph).with_suffix(f".{engine}.npy"), np.concatenate(parts))


def _compiles(graph: str, frames_file: str) -> None:
    """Parse and compile a graph with TensorRT-RTX, for a GPU that need not be here."""
    import tensorrt_rtx

    from fgdeploy.engines.build_settings import BuildSettings
    from fgdeploy.engines.trt_build import compile_engine

    frame = np.load(frames_file, mmap_mode="r").shape[1:]
    settings = BuildSettings(batches=(1, 8, 32), compute_capabilities=("8.6",))
    with tempfile.TemporaryDirectory() as folder:
        compile_engine(tensorrt_rtx, Path(graph), frame, Path(folder) / "engine.rtx", settings)


STEPS: dict[str, Callable[..., Any]] = {"make": _make, "hashes": _hashes, "compiles": _compiles}


def _step(python: str, step: str, *arguments: object) -> Any:
    """Run a step in a process of its own. Raises RuntimeError with the last line it said."""
    command = [python, __file__, "--step", step, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {LIMIT_S} s") from None
    if done.returncode:
        # What a killed process said last is not why it ended.
        said = "" if done.returncode < 0 else done.stderr.strip()
        raise RuntimeError((said or f"ended with {done.returncode}").splitlines()[-1][:300])
    return json.loads(done.stdout.splitlines()[-1])


def _int8(graph: Path) -> str:
    """Count the products with INT8 on both sides: with a weight + of two activations."""
    model = onnx.load(graph).graph
    makers = {name: node for node in model.node for name in node.output}

    def behind(name: str, moves: tuple[str, ...]) -> str:
        while name in makers and makers[name].op_type in moves:
            name = makers[name].input[0]
        return name

    moves, counts = ("Transpose", "Reshape", "Cast"), [0, 0]
    for node in model.node:
        sides = [makers.get(behind(name, moves)) for name in node.input[:2]]
        kinds = {side.op_type if side else None for side in sides}
        if node.op_type in ("MatMul", "Conv", "Gemm") and kinds == {"DequantizeLinear"}:
            source = behind(node.input[1], (*moves, "DequantizeLinear", "QuantizeLinear"))
            counts[source in makers] += 1
    return f"{counts[0]} + {counts[1]}"


def _prepare(options: argparse.Namespace, work: Path) -> None:
    """Write the fp32 graph, its layers, and frames; frames that are there already are kept."""
    from fgdeploy.bundle import open_bundle
    from fgdeploy.calibration import linears
    from fgdeploy.calibration.sample import draw
    from fgdeploy.photos import of_split, read

    bundle, photos = open_bundle(options.bundle), read(options.listing)
    shutil.copy(bundle.graph("fp32"), work / "model.onnx")
    layers = linears.find(onnx.load(work / "model.onnx"))
    (work / "layers.json").write_text(json.dumps([layer.node for layer in layers]))
    test = of_split(photos, "test")
    sets = {"cal": draw(photos, options.images).calibration, "test": test}
    np.save(work / "labels.npy", np.array([photo.label for photo in test]))
    for name, chosen in sets.items():
        if not (work / f"{name}.npy").exists():
            frames = np.stack([bundle.manifest.preprocess.frame(photo.path) for photo in chosen])
            np.save(work / f"{name}.npy", frames)


def _codes(work: Path, graph: Path, engine: str) -> tuple[Any, float]:
    """Return the bits (N, bits) and their symmetric mAP in percent."""
    from fgdeploy.evaluation.metrics import mean_average_precision

    codes, labels = np.load(graph.with_suffix(f".{engine}.npy")) > 0, np.load(work / "labels.npy")
    packed = np.packbits(codes, axis=1)
    return codes, 100 * mean_average_precision(packed, labels, packed, labels, same_set=True)


def _row(package: str, label: str, python: str, work: Path, notes: list[str]) -> str:
    number = [name for group in CONTENDERS.values() for name in group].index(label)
    graph, judge = work / f"{number:02d}.onnx", JUDGES.get(label, "onnxruntime")
    for old in work.glob(f"{graph.stem}.*"):
        old.unlink()
    try:
        seconds = _step(python, "make", package, label, work, graph)
    except RuntimeError as error:
        notes.append(f"{label}: made no graph: {error}")
        return f"| {label} |{' - |' * 8}"
    steps = {judge: ["hashes", judge], "openvino": ["hashes", "openvino"], "TensorRT": ["compiles"]}
    done = set()
    for name, step in steps.items():
        try:
            _step(sys.executable, *step, graph, work / "test.npy")
            done.add(name)
        except RuntimeError as error:
            notes.append(f"{label}: refused by {name}: {error}")
    cells = ["refused", "", "", "refused"]
    exact, exact_map = _codes(work, work / "fp32.onnx", "onnxruntime")
    if judge in done:
        codes, score = _codes(work, graph, judge)
        cells[0] = f"{100 * (codes == exact).mean():.2f}"
        cells[1:3] = f"{100 * (codes == exact).all(1).mean():.1f}", f"{score - exact_map:+.2f}"
    if "openvino" in done:
        cells[3] = f"{100 * (_codes(work, graph, 'openvino')[0] == exact).mean():.2f}"
    cells.append("yes" if "TensorRT" in done else "refused")
    size = graph.stat().st_size / 1e6
    return f"| {label} | {_int8(graph)} | {' | '.join(cells)} | {size:.1f} | {seconds:.0f} |"


def _compare(options: argparse.Namespace, work: Path) -> None:
    pythons = {"nncf": options.nncf_python, "modelopt": options.modelopt_python}
    _prepare(options, work)
    exact = Path(shutil.copy(work / "model.onnx", work / "fp32.onnx"))
    _step(sys.executable, "hashes", "onnxruntime", exact, work / "test.npy")
    codes, score = _codes(work, exact, "onnxruntime")
    print(
        f"{options.bundle.name}: {codes.shape[1]} bits, {len(codes):,} test photos, "
        f"{len(np.load(work / 'cal.npy', mmap_mode='r'))} to calibrate with, mAP of fp32 "
        f"{score:.2f}\n\n"
        "| graph | INT8 layers + attention | bits equal, % | same codes, % | mAP, points | "
        f"bits in OpenVINO, % | TensorRT-RTX | MB | s, rough |\n|{'---|' * 9}",
        flush=True,
    )
    notes: list[str] = []
    for package, group in CONTENDERS.items():
        python = pythons.get(package, sys.executable)
        module, how = PACKAGES[package]
        probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        missing = subprocess.run([python, "-c", probe], capture_output=True).returncode
        for label in (label for label in group if options.only in label):
            if missing:
                notes.append(f"{label}: skipped, as {package} is not installed; {how}")
            else:
                print(_row(package, label, python, work, notes), flush=True)
    print("", *(f"- {note}" for note in notes), sep="\n")


def main() -> None:
    """Make and judge every contender's graph and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("listing", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--nncf-python", default=sys.executable)
    parser.add_argument("--modelopt-python", default=sys.executable)
    parser.add_argument("--images", type=int, default=256, help="photos to calibrate with")
    parser.add_argument("--only", default="", help="graphs that have this in their name")
    parser.add_argument("--folder", type=Path, help="keep frames and graphs here, to go on with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        (folder := options.folder or Path(name)).mkdir(parents=True, exist_ok=True)
        _compare(options, folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print("\n" + json.dumps(STEPS[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
