"""OpenVINO, imported without its telemetry, and its entry, with the CPU plugin loaded harmlessly.

The plugin (2024.6 to 2026.4.1, on Linux) gives the thread that loads it a signal stack of its own,
and takes it away when it is freed, but puts the earlier one back only if it is freed by the same
thread, newest first. Otherwise that thread is left with a signal stack that is no memory any more,
and its next handled signal (Ctrl-C, or a child that ends) kills the process. So it is loaded in a
thread that ends at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core import privacy

with privacy.no_openvino_telemetry():
    import openvino
    from openvino import opset13

__all__ = ["imported", "make", "openvino", "opset13"]

# Whether it imports from a tensor: releases before 2025.3 know bytes alone.
_TENSORS = "openvino.Tensor" in str(openvino.Core.import_model.__doc__)


def make() -> Any:
    """Return a new openvino.Core whose CPU plugin is loaded."""
    with ThreadPoolExecutor(1, thread_name_prefix="openvino") as loader:
        return loader.submit(_loaded).result()


def imported(core: Any, blob: npt.NDArray[np.uint8], settings: Mapping[str, Any]) -> Any:
    """Return the CompiledModel that a blob holds; the blob must outlive it and its requests.

    The plugin leaves the weights where they lie in the blob, rather than copying them.
    """
    if not _TENSORS:
        return core.import_model(blob.tobytes(), "CPU", settings)
    return core.import_model(openvino.Tensor(blob, shared_memory=True), "CPU", settings)


def _loaded() -> Any:
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # any property loads the plugin
    return core
