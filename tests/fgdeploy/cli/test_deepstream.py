from __future__ import annotations

import json
from pathlib import Path

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_a_folder_is_written_and_told(run: Run, bundle: Path) -> None:
    told = json.loads(run("deepstream", bundle, "--batch", "2", "--json").stdout)
    assert told["path"] == "deepstream" and told["batch"] == 2
    assert set(told["files"]) == {path.name for path in Path("deepstream").iterdir()}
    again = run("deepstream", bundle, "--overwrite")
    assert "config_infer.txt" in again.stdout and "untested on hardware" in again.stderr
    fails(run("deepstream", bundle), 1, "deepstream is there already; pass --overwrite")
