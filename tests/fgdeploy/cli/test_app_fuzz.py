"""The short form of benchmarks/faults/fuzz.py: damaged input of every kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "faults" / "fuzz.py"
BITS = 20  # as the script's own bundles


def _bundle(folder: Path, seed: int) -> Path:
    settings = ExportSettings(
        backbone="test_vit",
        weights="random",
        image_size=32,
        options={"stages": "2:3"},
        bits=BITS,
        head="lsh",
        seed=seed,
    )
    return export_bundle(settings, folder / f"{seed}.fgd").bundle.path


def test_damaged_input_is_refused_in_a_line_or_answered_rightly(tmp_path: Path) -> None:
    bundles = [str(_bundle(tmp_path, seed)) for seed in range(2)]
    command = [sys.executable, str(SCRIPT), "--tries", "70", "--seed", "7", "--share", "14"]
    command += ["--folder", str(tmp_path), "--bundles", *bundles]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    header, *rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("|")]
    total = dict(zip(header, rows[-1], strict=True))
    assert total["tries"] == "70" and total["processes"] == "3"
    assert int(total["accepted"]) > 10  # so that answers were looked at
    assert total["tracebacks"] == "0" and total["wrong answers"] == "0"
    assert total["files left"] == "0"
