"""Token reductions on a GPU, in PyTorch: half precision, one CUDA graph a call.

    python benchmarks/reductions_gpu.py --backbone deit_small_patch16_224

What launches cost is taken out by the graphs, so this is what an engine could reach that fuses no
more than PyTorch does. All contenders in turn, round by round; medians, and the ratio to dense.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fgdeploy.models.assembly import NetworkSettings, choose
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.reductions import REDUCTIONS

Call = Callable[[], object]


def _network(method: str, options: dict[str, str], backbone: str, size: int) -> Network:
    settings = NetworkSettings(
        method=method, options=options, backbone=backbone, image_size=size, weights="random"
    )
    chosen = choose(settings)
    return Network(chosen.encoder(), NoHead(), chosen.options).deployed()


def _contenders(rates: list[str], backbone: str, size: int) -> dict[str, Network]:
    made = {"dense": _network("eet", {"stages": "none"}, backbone, size)}
    made["eet"] = _network("eet", {}, backbone, size)
    for rate in rates:
        for name in REDUCTIONS:
            made[f"{name} {rate}"] = _network(name, {"keep_rate": rate}, backbone, size)
        made[f"clca {rate}"] = _network("clca", {"keep_rate": rate}, backbone, size)
    return made


def _graphed(network: Network, batch: int, size: int, device: torch.device) -> Call:
    """Return a call that runs the network once on a batch that stays where it is."""
    frames = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)

    def run() -> object:
        return network(network.pixels(frames)).embedding

    if device.type != "cuda":
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _ms(call: Call, device: torch.device, seconds: float) -> float:
    """Return the median time of a call over about `seconds`."""
    times = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(
    batch: int, backbone: str, size: int, rates: list[str], rounds: int, seconds: float
) -> dict[str, float]:
    """Return the median ms of each contender at one batch size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.float16 if device.type == "cuda" else torch.float32
    calls = {}
    for name, network in _contenders(rates, backbone, size).items():
        try:
            calls[name] = _graphed(network.eval().to(device, kind), batch, size, device)
        except (RuntimeError, ValueError) as error:
            print(f"{name} at batch {batch}: {' '.join(str(error).split())[:200]}")
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_ms(call, device, seconds))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rates", nargs="+", default=["0.25", "0.5", "0.7"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each call in a round")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    tables = {
        batch: measure(batch, given.backbone, given.size, given.rates, given.rounds, given.seconds)
        for batch in given.batches
    }
    if given.out:
        entry = {"device": device, "torch": torch.__version__, "ms": tables}
        given.out.write_text(json.dumps(entry, indent=1), encoding="utf-8")
    print(f"{given.backbone} at {given.size} pixels, {device}, PyTorch {torch.__version__}")
    print("| | " + " | ".join(f"batch {batch}, ms | against dense" for batch in tables) + " |")
    print("|---" * (1 + 2 * len(tables)) + "|")
    for name in dict.fromkeys(name for table in tables.values() for name in table):
        cells = []
        for table in tables.values():
            ms = table.get(name)
            cells += ["", ""] if ms is None else [f"{ms:.3f}", f"{table['dense'] / ms:.2f}x"]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
