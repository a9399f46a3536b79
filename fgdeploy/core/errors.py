"""All the errors that fgdeploy raises on purpose.

FgdeployError                 base; the CLI prints it as one line and exits with ``exit_code``
├── UsageError                an option or argument that can never be right (exit 2)
├── MissingDependency         a package is not installed; carries the pip command
├── ImageError                a photo that cannot be read
├── DataError                 a folder, CSV or code file that is not what was promised
├── CheckpointError           a checkpoint that does not fit or cannot be trusted
├── TrainingError             a training that cannot go on
├── TuningError               no schedule that keeps to the latency and quality asked for
├── StageError                pruning stages that the backbone cannot follow (exit 2)
├── ExportError               a graph that could not be written or proven equal
├── BundleError               a bundle that is damaged, foreign or unsafe
├── EngineError               an engine that cannot run, or input that it cannot take
├── IndexStoreError           a gallery index that is damaged, foreign or in use
├── RemoteError               a gallery's server that is out of reach or holds other things
└── ParityError               two engines that differ by more than the limits allow

A message says what failed, what was expected and what was got, and what to do next, in one line.
"""

from __future__ import annotations

from fgdeploy.core.text import one_line


class FgdeployError(Exception):
    """Base of every error that fgdeploy raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # What a user or a file gave may be quoted in it, of any length and with any character.
        return one_line(super().__str__())


class UsageError(FgdeployError):
    """An option or argument whose value can never be right."""

    exit_code = 2


class MissingDependency(FgdeployError):
    """A package that this step needs is not installed."""

    def __init__(self, package: str, extra: str, need: str) -> None:
        self.package = package
        self.extra = extra
        self._need = need
        super().__init__(
            f"{need} needs the package {package}, which is not installed; "
            f'run: pip install "fgdeploy[{extra}]"'
        )

    def __reduce__(self) -> tuple[type[MissingDependency], tuple[str, str, str]]:
        return type(self), (self.package, self.extra, self._need)  # for other processes


class ImageError(FgdeployError):
    """A photo that cannot be read or is not a photo."""


class DataError(FgdeployError):
    """A folder, CSV or code file that is not what was promised."""


class CheckpointError(FgdeployError):
    """A checkpoint that does not fit the model or cannot be trusted."""


class TrainingError(FgdeployError):
    """A training that cannot go on, such as one whose loss is no number any more."""


class StageError(FgdeployError):
    """Pruning stages that the backbone cannot follow."""

    exit_code = 2


class TuningError(FgdeployError):
    """No schedule keeps to the latency and quality asked for on this device."""


class ExportError(FgdeployError):
    """A graph that could not be written, or not be proven equal to PyTorch."""


class BundleError(FgdeployError):
    """A bundle that is damaged, foreign or unsafe to open."""


class EngineError(FgdeployError):
    """An engine that cannot run here, or input that it cannot take."""


class IndexStoreError(FgdeployError):
    """A gallery index that is damaged, of another model, or in use."""


class RemoteError(FgdeployError):
    """A gallery's server that cannot be reached, refuses, or holds what it should not."""


class ParityError(FgdeployError):
    """Two engines that differ by more than the limits allow."""
