"""fgdeploy: fine-grained image-retrieval ViTs from PyTorch to a camera.

hasher = fgdeploy.load("eet.fgd")
codes = hasher.encode(["a.jpg", "b.jpg"])     # uint8 (2, bytes)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fgdeploy.core import privacy

__version__ = "0.1.0"
__all__ = [
    "Camera",
    "FgdeployError",
    "Guess",
    "Hasher",
    "Index",
    "Photo",
    "__version__",
    "build_engine",
    "calibrate",
    "errors",
    "explain",
    "load",
    "open_bundle",
    "photos",
    "retrieval",
]

if TYPE_CHECKING:
    from fgdeploy import errors, photos, retrieval
    from fgdeploy.bundle import open_bundle
    from fgdeploy.camera.camera import Camera
    from fgdeploy.classifying import Guess
    from fgdeploy.core.errors import FgdeployError
    from fgdeploy.explaining import explain
    from fgdeploy.hasher import Hasher, load
    from fgdeploy.photos import Photo
    from fgdeploy.proof.preparing import build_engine, calibrate
    from fgdeploy.retrieval import Index

privacy.turn_off()  # before any package that would report is imported

# Resolved at first use, so that `fgdeploy --help` need not import NumPy.
_HOMES = {
    "Camera": "fgdeploy.camera.camera",
    "FgdeployError": "fgdeploy.core.errors",
    "Guess": "fgdeploy.classifying",
    "Hasher": "fgdeploy.hasher",
    "Index": "fgdeploy.retrieval",
    "Photo": "fgdeploy.photos",
    "build_engine": "fgdeploy.proof.preparing",
    "explain": "fgdeploy.explaining",
    "calibrate": "fgdeploy.proof.preparing",
    "load": "fgdeploy.hasher",
    "open_bundle": "fgdeploy.bundle",
}
_MODULES = ("errors", "photos", "retrieval")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fgdeploy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fgdeploy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
