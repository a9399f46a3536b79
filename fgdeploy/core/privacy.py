"""What other packages report and keep elsewhere: turned off before they are imported.

ONNX Runtime (from 1.29) and OpenVINO each put an id of the machine into the home folder when they
are imported, and report their use over the network. What the user said himself stays as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

# Each as its package documents it.
_OFF = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# torch makes this folder in the temporary one when timm imports it, whether it compiles or not.
_TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"

_MISSING = object()


def turn_off() -> None:
    """Turn telemetry off by the variables that are not set; `import fgdeploy` does it."""
    for name, value in _OFF.items():
        os.environ.setdefault(name, value)
    if _TORCH_CACHE not in os.environ:
        atexit.register(_remove_if_empty, _TORCH_CACHE)


@contextlib.contextmanager
def no_openvino_telemetry() -> Iterator[None]:
    """Import OpenVINO as where the package that reports is not installed; it then does without.

    No variable turns that off. Who opted in (`opt_in_out --opt_in`) is left alone.
    """
    name = "openvino_telemetry"
    if _opted_in():
        yield
        return
    before = sys.modules.get(name, _MISSING)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not _MISSING:
            sys.modules[name] = before  # type: ignore[assignment]


@contextlib.contextmanager
def throwaway_folder(package: str, variable: str) -> Iterator[None]:
    """Let a package keep what it keeps in a folder that is gone afterwards.

    package: its name; nothing is done if it is imported already. variable: names the folder in the
    environment; one that is set stays.
    """
    if package in sys.modules or variable in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="fgdeploy-") as folder:
        os.environ[variable] = folder
        try:
            yield
        finally:
            del os.environ[variable]


def _opted_in() -> bool:
    try:
        with open(os.path.expanduser("~/intel/openvino_telemetry"), encoding="utf-8") as stream:
            return stream.readline().strip() == "1"
    except (OSError, ValueError):
        return False


def _remove_if_empty(variable: str) -> None:
    with contextlib.suppress(KeyError, OSError):
        os.rmdir(os.environ[variable])
