"""The errors under their public name; the tree is drawn in `fgdeploy.core.errors`."""

from fgdeploy.core.errors import (
    BundleError,
    CheckpointError,
    DataError,
    EngineError,
    ExportError,
    FgdeployError,
    ImageError,
    IndexStoreError,
    MissingDependency,
    ParityError,
    RemoteError,
    StageError,
    TrainingError,
    TuningError,
    UsageError,
)

__all__ = [
    "BundleError",
    "CheckpointError",
    "DataError",
    "EngineError",
    "ExportError",
    "FgdeployError",
    "ImageError",
    "IndexStoreError",
    "MissingDependency",
    "ParityError",
    "RemoteError",
    "StageError",
    "TrainingError",
    "TuningError",
    "UsageError",
]
