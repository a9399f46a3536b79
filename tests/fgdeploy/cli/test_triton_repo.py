from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")


def test_a_repository_is_written_and_told(run: Run, bundle: Path) -> None:
    told = json.loads(run("triton-repo", bundle, "-o", "repo", "--name", "birds", "--json").stdout)
    assert told["path"] == "repo/birds" and told["graph"] == "fp32"
    for name, size in told["files"].items():
        assert Path("repo/birds", name).stat().st_size == size
    again = run("triton-repo", bundle, "-o", "repo", "--name", "birds", "--overwrite")
    assert "1/model.onnx" in again.stdout
    assert "next: tritonserver --model-repository=/" in again.stderr


def test_what_is_refused(run: Run, bundle: Path) -> None:
    fails(run("triton-repo", bundle, "--backend", "caffe"), 2, "no backend caffe; choose one of")
    fails(run("triton-repo", bundle, "--precision", "int4"), 1, "holds no int4 graph, only fp32")
    fails(run("triton-repo", bundle, "--backend", "tensorrt"), 1, "holds no TensorRT engine")
    assert not Path("repo").exists()
