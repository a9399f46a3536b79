"""A few frames with their fp32 hashes inside a bundle: parity on a device that has no photos."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import BundleError

FILE = "checks.npz"
_MOST_FRAMES, _MOST_BYTES = 64, 16 << 20


def most_frames(image_size: int) -> int:
    """Return how many frames of a size a bundle carries: at most 64, and 16 MiB of pixels."""
    return max(1, min(_MOST_FRAMES, _MOST_BYTES // (3 * image_size**2)))


@dataclass(frozen=True)
class Checks:
    """frames: uint8 (N, S, S, 3); hashes: float32 (N, bits) and codes: uint8 (N, bytes) of fp32.

    int8: codes that the calibrated INT8 graph gives where its products are exact; None in a bundle
    that was calibrated before they were kept.
    """

    frames: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]
    int8: npt.NDArray[np.uint8] | None = None

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        buffer = io.BytesIO()
        more: dict[str, Any] = {} if self.int8 is None else {"int8_codes": self.int8}
        np.savez_compressed(
            buffer, frames=self.frames, hashes=self.hashes, codes=self.codes, **more
        )
        return buffer.getvalue()


def read(bundle: Bundle) -> Checks | None:
    """Return the checks of a bundle, None if it has none. Raises BundleError if they do not fit."""
    if FILE not in bundle.manifest.files:
        return None
    manifest = bundle.manifest
    try:
        with open(bundle.path / FILE, "rb") as stream, np.load(stream, allow_pickle=False) as held:
            found = Checks(
                held["frames"], held["hashes"], held["codes"], held.get("int8_codes", None)
            )
    except Exception as error:  # a damaged zip or array header raises anything, zlib.error too
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"{bundle.path / FILE} cannot be read ({reason}); run: fgdeploy calibrate --again"
        ) from None
    count, size = found.codes.shape[0] if found.codes.ndim else 0, manifest.image_size
    arrays: list[npt.NDArray[Any]] = [found.frames, found.hashes, found.codes]
    wanted = [
        ("uint8", (count, size, size, 3)),
        ("float32", (count, manifest.bits)),
        ("uint8", (count, manifest.code_bytes)),
    ]
    if found.int8 is not None:
        arrays.append(found.int8)
        wanted.append(wanted[-1])
    got = [(array.dtype.name, array.shape) for array in arrays]
    if got != wanted or count == 0:
        raise BundleError(
            f"{bundle.path / FILE} holds {', '.join(f'{kind} {shape}' for kind, shape in got)}, "
            "which is not of this model; run: fgdeploy calibrate --again"
        )
    return found
