"""EET and the dense ViT on a GPU: timm, ONNX Runtime as it was run before, and the engine.

    python benchmarks/gpu.py                   # 90 seconds with one GPU; exports two bundles
    python benchmarks/gpu.py --scan 10000000   # the Hamming scan instead, half a minute
    python benchmarks/gpu.py --cpu --backbone test_vit --size 64 --batches 1 2 --seconds 0.05

Each contender has a process of its own; they take turns, round by round. Frames start on the host
and codes end there, for timm too. Medians in ms, and the ratios to reach. `--cpu` only shows that
it runs: contenders that need a GPU are left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[Any], object]
# name -> how it runs, the network, whether it needs a GPU
CONTENDERS = {
    "timm eager": ("timm", "dense", False),
    "timm CUDA graph": ("timm_graph", "dense", True),
    "EET as before": ("plain", "eet", False),
    "EET engine": ("engine", "eet", False),
    "dense engine": ("engine", "dense", False),
    "EET engine, Attention of opset 23": ("attention", "eet", False),
}
# (contender, against, batch, ratio to reach)
TARGETS = [
    *(
        ("EET engine", "EET as before", batch, least)
        for batch, least in ((1, 4), (8, 4), (64, 3.5))
    ),
    *(("EET engine", "timm eager", batch, least) for batch, least in ((1, 3), (8, 3), (64, 1.4))),
    ("EET engine", "dense engine", 64, 1.5),
]


def export(folder: Path, backbone: str, size: int) -> None:
    """Write the bundles of EET and of the dense network with random weights."""
    from fgdeploy.export.export_settings import ExportSettings
    from fgdeploy.export.exporter import export_bundle

    for name, options in (("eet", {}), ("dense", {"stages": "none"})):
        if name == "eet" and size != 224:
            options = {"stages": "2:8,4:4,5:2"}
        settings = ExportSettings(
            method="eet", options=options, backbone=backbone, image_size=size, weights="random",
            head="lsh", bits=64,
        )  # fmt: skip
        export_bundle(settings, folder / f"{name}.fgd")


def make(how: str, path: Path, backbone: str, size: int, batches: list[int], cpu: bool) -> Call:
    """Return what runs uint8 frames (B, S, S, 3) from the host, and waits for codes or features."""
    if how.startswith("timm"):
        return _timm(backbone, size, cpu, graph=how == "timm_graph")
    import onnx
    import onnxruntime

    from fgdeploy.bundle import open_bundle
    from fgdeploy.engines.onnxruntime import session_options

    bundle = open_bundle(path)
    if how == "engine" and not cpu:
        from fgdeploy.engines.base import EngineSource
        from fgdeploy.engines.ort_cuda import OnnxRuntimeCudaEngine

        source = EngineSource(bundle.graph("fp32"), "fp16", batches=tuple(batches))
        return OnnxRuntimeCudaEngine(bundle.manifest, source).run
    model = onnx.load(bundle.graph("fp32"))
    if how == "plain":
        from fgdeploy.calibration.half import to_half

        data = to_half(model).SerializeToString()
        provider = "CPUExecutionProvider" if cpu else "CUDAExecutionProvider"
        if not cpu:
            onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(data, session_options(), providers=[provider])
        return lambda frames: session.run(None, {"frames": frames})
    from fgdeploy.engines import ort_half, ort_session

    made = ort_half.make(model, half=not cpu).model
    if how == "attention":
        standard_attention(made)
    data = made.SerializeToString()
    if cpu:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        return lambda frames: session.run(None, {"frames": frames})
    session = ort_session.start(data, session_options(), captures=True)
    bound = {batch: ort_session.Bound(session, batch, (size, size, 3)) for batch in batches}
    return lambda frames: bound[len(frames)].run(frames)


def standard_attention(model: Any) -> None:
    """Write attention as ONNX's own operator (opset 23) instead of ONNX Runtime's."""
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention":
            heads = next(item for item in node.attribute if item.name == "num_heads")
            node.op_type, node.domain, heads.name = "Attention", "", "q_num_heads"
            node.attribute.add().CopyFrom(heads)
            node.attribute[-1].name = "kv_num_heads"
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = 23


def _timm(backbone: str, size: int, cpu: bool, graph: bool) -> Call:
    import timm
    import torch

    torch.set_grad_enabled(False)
    device, kind = ("cpu", torch.float32) if cpu else ("cuda", torch.float16)
    # Set for its size where it has another, as the bundles are.
    model = timm.create_model(backbone, num_classes=0, img_size=size).eval().to(device, kind)

    def forward(frames: Any) -> Any:
        return model(frames.permute(0, 3, 1, 2).to(kind))

    if not graph:
        return lambda frames: forward(torch.from_numpy(frames).to(device)).cpu()
    held: dict[int, tuple[Any, Any, Any]] = {}

    def replay(frames: Any) -> Any:
        if len(frames) not in held:
            given = torch.from_numpy(frames).to(device)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    forward(given)
            torch.cuda.current_stream().wait_stream(side)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                output = forward(given)
            held[len(frames)] = (captured, given, output)
        captured, given, output = held[len(frames)]
        given.copy_(torch.from_numpy(frames))
        captured.replay()
        return output.cpu()

    return replay


def serve(pipe: Any, arguments: tuple[Any, ...], size: int) -> None:
    """Answer (batch, seconds) with the median ms of a call; None ends it. Errors are answered."""
    try:
        call = make(*arguments)
        pipe.send(None)
        while (asked := pipe.recv()) is not None:
            batch, seconds = asked
            frames = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
            for _ in range(3):
                call(frames)
            times, end = [], time.perf_counter() + seconds
            while not times or time.perf_counter() < end:
                began = time.perf_counter()
                call(frames)
                times.append(1e3 * (time.perf_counter() - began))
            pipe.send(statistics.median(times))
    except Exception as error:
        pipe.send(" ".join(str(error).split())[:200])


def measure(given: argparse.Namespace, folder: Path) -> dict[tuple[str, int], float]:
    """Return the median ms by contender and batch."""
    context, workers = multiprocessing.get_context("spawn"), {}
    found: dict[tuple[str, int], list[float]] = {}
    for name, (how, network, gpu) in CONTENDERS.items():
        if gpu and given.cpu:
            continue
        ours, theirs = context.Pipe()
        path = folder / f"{network}.fgd"
        arguments = (how, path, given.backbone, given.size, given.batches, given.cpu)
        process = context.Process(target=serve, args=(theirs, arguments, given.size), daemon=True)
        process.start()
        workers[name] = ours
        if (failed := ours.recv()) is not None:
            print(f"{name}: {failed}")
            del workers[name]
    for batch in given.batches:
        for _ in range(given.rounds):
            for name, pipe in list(workers.items()):
                pipe.send((batch, given.seconds))
                answer = pipe.recv()
                if isinstance(answer, str):
                    print(f"{name} at batch {batch}: {answer}")
                    del workers[name]
                else:
                    found.setdefault((name, batch), []).append(answer)
    for pipe in workers.values():
        pipe.send(None)
    return {key: statistics.median(times) for key, times in found.items()}


def scan(rows: int, cpu: bool) -> None:
    """Print the Hamming scan of random 64-bit codes: on the GPU by FAISS, and compiled."""
    from fgdeploy.core import machine
    from fgdeploy.retrieval.scan import gpu_scan
    from fgdeploy.retrieval.scan.search import search_codes

    if cpu:  # FAISS on the CPU in its place, to see that it runs
        import faiss

        gpu_scan._empty_index = faiss.IndexBinaryFlat
    codes = np.random.default_rng(0).integers(0, 256, (rows, 8), dtype=np.uint8)
    held = gpu_scan.GpuCodes(codes)
    gpus = machine.gpus()
    print(f"{rows:,} codes of 64 bits, k = 10, {gpus[0].name if gpus else 'no GPU'}")
    print("| queries | FAISS, ms | compiled, ms |")
    print("|---|---|---|")
    for count in (1, 64, 1024):
        queries = np.random.default_rng(count).integers(0, 256, (count, 8), dtype=np.uint8)
        ways = (
            lambda queries=queries: held.nearest(queries, 10),
            lambda queries=queries: search_codes(queries, codes, 10, kernel="numba"),
        )
        one, other = (way() for way in ways)
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
        times: list[list[float]] = [[], []]
        for _ in range(5):  # in turns
            for way, taken in zip(ways, times, strict=True):
                began = time.perf_counter()
                way()
                taken.append(1000 * (time.perf_counter() - began))
        print(f"| {count} | " + " | ".join(f"{statistics.median(t):.3f}" for t in times) + " |")


def main() -> None:
    """Print the table and which targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender in a round")
    parser.add_argument("--cpu", action="store_true", help="without a GPU, to see that it runs")
    parser.add_argument("--scan", type=int, help="time the Hamming scan of so many codes, only")
    given = parser.parse_args()
    if given.scan:
        scan(given.scan, given.cpu)
        return
    from fgdeploy.core import machine

    gpus = machine.gpus()
    with tempfile.TemporaryDirectory() as name:
        export(Path(name), given.backbone, given.size)
        found = measure(given, Path(name))
    print(f"{given.backbone} at {given.size} pixels, FP16, {gpus[0].name if gpus else 'no GPU'}")
    print("| ms | " + " | ".join(f"batch {batch}" for batch in given.batches) + " |")
    print("|---|" + "---|" * len(given.batches))
    for name in CONTENDERS:
        cells = [f"{found[name, b]:.3f}" if (name, b) in found else "-" for b in given.batches]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name, other, batch, least in TARGETS:
        if (name, batch) in found and (other, batch) in found:
            ratio = found[other, batch] / found[name, batch]
            verdict = "met" if ratio >= least else "missed"
            print(f"{name} against {other}, batch {batch}: {ratio:.2f}x of {least}x, {verdict}")


if __name__ == "__main__":
    main()
