"""Engines: what runs a bundle's graph on a machine. `open_engine` picks one, `build` compiles one.

Each backend module is named after its dependency and imported only when asked for.
"""

from __future__ import annotations

from fgdeploy.engines.backends import BACKENDS, Backend, available
from fgdeploy.engines.base import Engine, Outputs
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.choosing import open_engine
from fgdeploy.engines.compiling import build
from fgdeploy.engines.record import Built, Record, find

__all__ = [
    "BACKENDS",
    "Backend",
    "BuildSettings",
    "Built",
    "Engine",
    "Outputs",
    "Record",
    "available",
    "build",
    "find",
    "open_engine",
]
