"""`fgdeploy push` and `pull` as a user types them; `hf://` where a command hashes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails
from tests.fgdeploy.hub.conftest import hub as hub
from tests.fgdeploy.hub.hub_stand_in import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ADDRESS = "hf://birds/eet"


def test_push_pull_and_hash(hub: StandIn, run: Run, bundle: Path, moths: Path) -> None:
    pushed = run("push", bundle, ADDRESS)
    assert pushed.exit_code == 0, pushed.output
    commit = hub.repositories["birds/eet"].head
    assert f"next, elsewhere: fgdeploy pull {ADDRESS}@{commit}" in pushed.stderr
    assert "model.onnx" in pushed.stdout
    found = json.loads(run("pull", ADDRESS, "-o", "new.fgd", "--json").stdout)
    assert found["path"] == "new.fgd" and "model.onnx" in found["files"]
    shutil.rmtree("new.fgd")
    for name, one in (("near", bundle), ("far", ADDRESS)):
        assert run("hash", moths, "-b", one, "-o", f"{name}.npz").exit_code == 0
    near, far = (np.load(f"{name}.npz")["codes"] for name in ("near", "far"))
    np.testing.assert_array_equal(near, far)


def test_mistakes(hub: StandIn, run: Run, bundle: Path, moths: Path) -> None:
    fails(run("pull", "eet.fgd"), 2, "eet.fgd is no address of a hub; expected hf://OWNER/NAME")
    fails(run("push", bundle, "hf://birds"), 2, "is no address of a hub")
    fails(run("pull", ""), 2, "an empty name is no address of a hub")
    fails(run("pull", "hf://birds/none"), 1, "hf://birds/none: no such repository, or it is pri")
    fails(run("pull", ADDRESS, "-o", "new"), 2, "-o new: a bundle's name ends in .fgd")
    fails(run("hash", moths, "-b", "hf://birds/none"), 1, "no such repository")
    fails(run("inspect", ADDRESS), 1, "lies on a hub; fetch it first: fgdeploy pull hf://birds/eet")
    fails(run("push", "none.fgd", ADDRESS), 1, "none.fgd does not exist")
    assert "birds/eet" not in hub.repositories
