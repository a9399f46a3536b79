from __future__ import annotations

from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.triton import ServingSettings
from tests.checks import refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backend": "pytorch"}, "no backend pytorch; choose one of onnxruntime, openvino, tens"),
        ({"backend": "openvino", "kind": "gpu"}, "openvino backend runs on cpu"),
        ({"backend": "tensorrt", "kind": "cpu"}, "tensorrt backend runs on gpu"),
        ({"name": "../up"}, "a model is named by letters"),
        ({"name": ".hidden"}, "a model is named by letters"),
        ({"name": "a/b"}, "a model is named by letters"),
        ({"max_batch": 0}, "--max-batch 0: expected 1 to 4096"),
        ({"max_batch": True}, "--max-batch True"),
        ({"instances": 0}, "--instances 0: expected 1 to 256"),
        ({"queue_delay_us": -1}, "--queue-delay-us -1: expected 0 to"),
        ({"version": 0}, "--version 0: expected 1 to"),
        ({"engine": "x"}, "names a TensorRT engine, and the backend is onnxruntime"),
    ],
)
def test_what_no_server_can_do(given: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        ServingSettings(**given)


def test_where_instances_run() -> None:
    assert ServingSettings().device == "cpu"
    assert ServingSettings(kind="gpu").device == "gpu"
    assert ServingSettings(backend="tensorrt").device == "gpu"
