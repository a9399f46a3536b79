"""Power cuts, played on a disk that keeps only what was synced; needs strace."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "benchmarks" / "faults" / "power.py"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def _cut(*options: str) -> str:
    command = [sys.executable, str(SCRIPT), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1]


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    last = _cut("--cuts", "100", "--folder", str(tmp_path))
    assert last.startswith("| all | 100 |") and last.endswith("| 0 | 0 | 0 |")


def test_such_a_disk_does_lose_what_is_not_synced(tmp_path: Path) -> None:
    last = _cut("--cuts", "50", "--folder", str(tmp_path), "--synchronous", "OFF")
    assert int(last.split(": ")[1].split()[0]) > 10
