"""The target codes of the training images: what their hashes were trained towards.

The published EET protocol ranks these, not the model's own codes, so they travel with the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core import atomic
from fgdeploy.core.codes import MAX_BITS, MIN_BITS, UInt8Array, code_bytes
from fgdeploy.core.errors import DataError

if TYPE_CHECKING:
    from fgdeploy.bundle import Bundle

# In a training run and in a bundle
TARGETS_FILE = "targets.npz"

_AGAIN = "copy it again, or make it with: fgdeploy train"


@dataclass(frozen=True, eq=False)
class Targets:
    """The target codes of n training images of C classes.

    classes: (C,) strings, each once; labels: (n,) integers, indices into classes; codes: uint8
    (n, ceil(bits/8)), packed as all codes are. Raises DataError for anything else.
    """

    classes: npt.NDArray[np.str_]
    labels: npt.NDArray[np.integer]
    codes: UInt8Array
    bits: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise DataError(
                f"target codes: expected {MIN_BITS} to {MAX_BITS} bits, got {self.bits}; {_AGAIN}"
            )
        if self.classes.dtype.kind != "U" or self.classes.ndim != 1 or not len(self.classes):
            raise DataError(
                "target classes: expected a row of strings, got "
                f"{self.classes.dtype} {self.classes.shape}; {_AGAIN}"
            )
        if len(np.unique(self.classes)) != len(self.classes):
            raise DataError(f"target classes: expected every name once, got one twice; {_AGAIN}")
        if self.labels.dtype.kind not in "iu" or self.labels.ndim != 1 or not len(self.labels):
            raise DataError(
                "target labels: expected a row of integers, got "
                f"{self.labels.dtype} {self.labels.shape}; {_AGAIN}"
            )
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= len(self.classes):
            raise DataError(
                f"target labels: expected 0 to {len(self.classes) - 1}, one for each class, got "
                f"{lowest} to {highest}; {_AGAIN}"
            )
        expected = (len(self.labels), code_bytes(self.bits))
        if self.codes.dtype != np.uint8 or self.codes.shape != expected:
            raise DataError(
                f"target codes: expected uint8 {expected} for {self.bits} bits, got "
                f"{self.codes.dtype} {self.codes.shape}; {_AGAIN}"
            )
        padding = np.uint8((1 << (-self.bits % 8)) - 1)
        if np.any(self.codes[:, -1] & padding):
            raise DataError(
                f"target codes: expected zeros after bit {self.bits}, got others; {_AGAIN}"
            )

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """Return the class name of every training image, (n,)."""
        return np.asarray(self.classes[self.labels])

    def save(self, path: Path) -> None:
        """Write an .npz file without pickled objects, atomically."""
        with atomic.new_file(path) as stream:
            np.savez(
                stream,
                classes=self.classes,
                labels=self.labels,
                codes=self.codes,
                bits=np.int64(self.bits),
            )

    @classmethod
    def load(cls, path: Path) -> Targets:
        """Read a file that `save` wrote; never unpickles. Raises DataError."""
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as data:
                held = {name: data[name] for name in ("classes", "labels", "codes", "bits")}
            held["classes"].tolist()  # raises here if the file holds what is no Unicode
        except FileNotFoundError:
            raise DataError(f"no target codes at {path}; make them with: fgdeploy train") from None
        except Exception as error:  # a damaged zip or array header raises anything, zlib.error too
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} holds no target codes ({reason}); {_AGAIN}") from error
        return _made_from(path, held)


def _made_from(path: Path, held: dict[str, npt.NDArray[Any]]) -> Targets:
    bits = held["bits"]
    if bits.shape != () or bits.dtype.kind not in "iu":
        raise DataError(
            f"{path}: expected bits as one integer, got {bits.dtype} {bits.shape}; {_AGAIN}"
        )
    try:
        return Targets(held["classes"], held["labels"], held["codes"], int(bits))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def targets_of(bundle: Bundle) -> Targets | None:
    """Return the target codes that a bundle carries, or None. Raises DataError if they are damaged.

    The code length must be the model's.
    """
    if TARGETS_FILE not in bundle.manifest.files:
        return None
    path = bundle.path / TARGETS_FILE
    targets = Targets.load(path)
    if targets.bits != bundle.manifest.bits:
        raise DataError(
            f"{path}: expected codes of {bundle.manifest.bits} bits as the model's, got "
            f"{targets.bits}; export the bundle again"
        )
    return targets
