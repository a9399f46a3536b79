"""What Ray costs: the same photos hashed with and without it, in turn, each in its own process.

    python benchmarks/spread/ray_hashing.py PHOTOS --bundle eet.fgd [--rounds 3] [--backend NAME]

Prints the seconds of hashing (starting Ray and opening engines are in the first answer's), of the
whole command, and peak memory of the command and of all its processes; then the plan for 1,000,000
photos, computed from the best round. The two files are compared byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core import machine

_MILLION = 1_000_000
_RECORD = 8 + 16 + 8  # bytes of a photo in a shard, 64-bit codes
_EACH_S = 0.5


@dataclass(frozen=True)
class Round:
    """photos; hashing, whole: seconds; mib: of all processes together at their peak (RSS)."""

    photos: int
    hashing: float
    whole: float
    mib: float


def hash_once(words: list[str], target: Path) -> Round:
    """Run `fgdeploy hash` once, and watch its memory."""
    command = [sys.executable, "-m", "fgdeploy", "hash", *words, "-o", str(target), "--json"]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        peaks = [0.0]
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
        watcher.start()
        out, _ = process.communicate(timeout=3600)
        ended.set()
        watcher.join()
    whole = time.perf_counter() - start
    facts = json.loads(out)
    return Round(facts["photos"], facts["seconds"], whole, max(peaks))


def _watch(root: int, peaks: list[float], ended: threading.Event) -> None:
    while not ended.wait(_EACH_S):
        peaks.append(_resident(root))


def _resident(root: int) -> float:
    """Return the MiB that a process and all below it hold."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                pages[int(entry.name)] = int((entry / "statm").read_text().split()[1])
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    held = {root}
    while more := {one for one, parent in parents.items() if parent in held} - held:
        held |= more
    return sum(pages.get(one, 0) for one in held) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    words = [given.photos, "-b", given.bundle, "--backend", given.backend]
    ways = {"without Ray": words, "with Ray": [*words, "--ray"]}
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for name, command in ways.items():
                rounds[name].append(hash_once(command, Path(folder) / f"{name}.npz"))
        files = [(Path(folder) / f"{name}.npz").read_bytes() for name in ways]
    print(
        f"{rounds['with Ray'][0].photos:,} photos, {machine.cores()} cores, {given.rounds} rounds"
    )
    print("| | ms a photo, best | median | whole command, s | MiB of all processes |")
    print("|---|---|---|---|---|")
    for name, found in rounds.items():
        each = sorted(1000 * one.hashing / one.photos for one in found)
        whole, mib = min(one.whole for one in found), max(one.mib for one in found)
        print(f"| {name} | {each[0]:.2f} | {each[len(each) // 2]:.2f} | {whole:.1f} | {mib:,.0f} |")
    best = {name: min(one.hashing / one.photos for one in found) for name, found in rounds.items()}
    print(f"overhead of Ray: {best['with Ray'] / best['without Ray'] - 1:+.1%}")
    print(f"files {'equal' if files[0] == files[1] else 'DIFFER'}")
    _plan(best["with Ray"])
    if files[0] != files[1]:
        raise SystemExit("the files differ")


def _plan(each: float) -> None:
    """Print what a million photos take, from the seconds a photo on this machine."""
    cores = machine.cores()
    print("computed for 1,000,000 photos, 64-bit codes, 200 shards of 5,000:")
    print("| workers of a core | hours | shards on the disk, MB |")
    print("|---|---|---|")
    for workers in (cores, 16, 64, 256):
        hours = _MILLION * each * cores / workers / 3600
        print(f"| {workers} | {hours:,.2f} | {_MILLION * _RECORD / 1e6:.0f} |")


if __name__ == "__main__":
    main()
