"""fgdeploy: fine-grained image-retrieval ViTs from PyTorch to a camera.

hasher = fgdeploy.load("eet.fgd")
codes = hasher.encode(["a.jpg", "b.jpg"])     # uint8 (2, bytes)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["FgdeployError", "Hasher", "Index", "__version__", "load"]

if TYPE_CHECKING:
    from fgdeploy.errors import FgdeployError
    from fgdeploy.hasher import Hasher, load
    from fgdeploy.retrieval import Index

# Resolved at first use, so that `fgdeploy --help` need not import NumPy.
_HOMES = {
    "FgdeployError": "fgdeploy.errors",
    "Hasher": "fgdeploy.hasher",
    "Index": "fgdeploy.retrieval",
    "load": "fgdeploy.hasher",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fgdeploy' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
