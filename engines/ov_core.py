"""OpenVINO, imported without its telemetry, and its entry, with the CPU plugin loaded harmlessly.

The plugin (2024.6 to 2026.4.1, on Linux) gives the thread that loads it a signal stack of its own,
and takes it away when it is freed, but puts the earlier one back only if it is freed by the same
thread, newest first. Otherwise that thread is left with a signal stack that is no memory any more,
and its next handled signal (Ctrl-C, or a child that ends) kills the process. So it is loaded in a
thread that ends at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fgdeploy.core import privacy

with privacy.no_openvino_telemetry():
    import openvino
    from openvino import opset13

__all__ = ["make", "openvino", "opset13"]


def make() -> Any:
    """Return a new openvino.Core whose CPU plugin is loaded."""
    with ThreadPoolExecutor(1, thread_name_prefix="openvino") as loader:
        return loader.submit(_loaded).result()


def _loaded() -> Any:
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # any property loads the plugin
    return core
