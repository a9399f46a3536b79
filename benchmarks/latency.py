"""Latency of one call: what people use today against fgdeploy's bundle, on this CPU.

    .venv/bin/python benchmarks/latency.py [--backbone deit_small_patch16_224] [--batch 1,8]

Contenders: timm in eager PyTorch; timm through a plain torch.onnx.export in ONNX Runtime; the
dense and the EET bundle in ONNX Runtime and OpenVINO, in fp32, bf16 and INT8 (calibrated on drawn
moths, compiled by build-engine). Each runs in a process of its own, in turn, several rounds; the
figure is the median over rounds of the medians of calls. Random weights: speed does not depend on
them. MiB is the peak of a process that runs both batch sizes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fgdeploy.core.timing import time_calls

THREADS = len(os.sched_getaffinity(0))


def _median_ms(call: Callable[[], object], seconds: float = 2.0) -> float:
    (times,) = time_calls(call, seconds=seconds, least=5)
    return statistics.median(times)


def _eager(backbone: str, batch: int, folder: Path) -> float:
    import timm
    import torch

    torch.set_num_threads(THREADS)
    model = timm.create_model(backbone, pretrained=False).eval()
    images = torch.rand(batch, 3, 224, 224)
    with torch.inference_mode():
        return _median_ms(lambda: model(images))


def _plain_onnx(backbone: str, batch: int, folder: Path) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        folder / "plain.onnx", options, providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).random((batch, 3, 224, 224), dtype=np.float32)
    return _median_ms(lambda: session.run(None, {"images": images}))


def _bundle(name: str, backend: str, precision: str = "fp32") -> Callable[[str, int, Path], float]:
    def measure(backbone: str, batch: int, folder: Path) -> float:
        from fgdeploy.bundle import open_bundle
        from fgdeploy.engines import open_engine

        frames = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
        with open_engine(open_bundle(folder / name), backend, precision, THREADS) as engine:
            return _median_ms(lambda: engine.run(frames))

    return measure


CONTENDERS: dict[str, Callable[[str, int, Path], float]] = {
    "timm, PyTorch eager": _eager,
    "timm, plain ONNX export, ONNX Runtime": _plain_onnx,
    "fgdeploy dense, ONNX Runtime": _bundle("dense.fgd", "onnxruntime"),
    "fgdeploy EET, ONNX Runtime": _bundle("eet.fgd", "onnxruntime"),
    "fgdeploy dense, OpenVINO": _bundle("dense.fgd", "openvino"),
    "fgdeploy EET, OpenVINO": _bundle("eet.fgd", "openvino"),
    "fgdeploy EET bf16, OpenVINO": _bundle("eet.fgd", "openvino", "bf16"),
    "fgdeploy EET INT8, ONNX Runtime": _bundle("eet.fgd", "onnxruntime", "int8"),
    "fgdeploy EET INT8, OpenVINO": _bundle("eet.fgd", "openvino", "int8"),
}


def _prepare(backbone: str, batches: str, folder: Path) -> None:
    code = (
        "import sys, timm, torch\n"
        f"model = timm.create_model({backbone!r}, pretrained=False).eval()\n"
        "torch.onnx.export(model, (torch.rand(2, 3, 224, 224),), sys.argv[1], dynamo=True,"
        " input_names=['images'], dynamic_shapes={'x': {0: torch.export.Dim('batch')}},"
        " external_data=False)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "plain.onnx")], check=True, capture_output=True
    )
    for name, stages in (("dense.fgd", ["--set", "stages=none"]), ("eet.fgd", [])):
        command = [sys.executable, "-m", "fgdeploy", "export", "--no-time", "--weights", "random"]
        command += ["--backbone", backbone, "--head", "lsh", *stages, "-o", str(folder / name)]
        subprocess.run(command, check=True, capture_output=True)
    from fgdeploy.demo.tour import draw

    photos = draw(folder / "photos", 8, 16, 0)
    for backend in ("onnxruntime", "openvino"):  # random weights: no limit on accuracy
        command = [sys.executable, "-m", "fgdeploy", "build-engine", "--int8", "--no-time"]
        command += ["-b", str(folder / "eet.fgd"), "--data", str(photos), "--backend", backend]
        command += ["--images", "32", "--min-bit-agreement", "0", "--batch", batches]
        subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Measure every contender in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        label, batch, folder = options.one
        milliseconds = CONTENDERS[label](options.backbone, int(batch), Path(folder))
        print(milliseconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    batches = [int(batch) for batch in options.batch.split(",")]
    results: dict[tuple[str, int], list[float]] = {}
    peaks = dict.fromkeys(CONTENDERS, 0.0)
    with tempfile.TemporaryDirectory() as name:
        _prepare(options.backbone, options.batch, Path(name))
        for _ in range(options.rounds):
            for batch in batches:
                for label in CONTENDERS:
                    command = [sys.executable, __file__, "--backbone", options.backbone]
                    command += ["--one", label, str(batch), name]
                    out = subprocess.run(command, check=True, capture_output=True, text=True)
                    milliseconds, peak = map(float, out.stdout.split())
                    results.setdefault((label, batch), []).append(milliseconds)
                    peaks[label] = max(peaks[label], peak)
    rivals = ("timm, PyTorch eager", "fgdeploy dense, ONNX Runtime")
    head = "".join(f" batch {batch}, ms | against eager | against dense ORT |" for batch in batches)
    print(f"| {options.backbone}, {THREADS} threads |{head} peak MiB |")
    print(f"|---|{'---|---|---|' * len(batches)}---|")
    for label in CONTENDERS:
        cells = ""
        for batch in batches:
            median = statistics.median(results[label, batch])
            ratios = [statistics.median(results[rival, batch]) / median for rival in rivals]
            cells += f" {median:.1f} | {ratios[0]:.2f}x | {ratios[1]:.2f}x |"
        print(f"| {label} |{cells} {peaks[label]:.0f} |")


if __name__ == "__main__":
    main()
