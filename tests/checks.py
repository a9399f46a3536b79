"""What tests of several rooms share: errors, examples, an engine without a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from fgdeploy.bundle import Bundle, Manifest, Output
from fgdeploy.engines.base import Engine, Outputs
from fgdeploy.photos.images import Preprocess

COLOUR_SIZE, COLOUR_BITS = 8, 24


def examples(count: int) -> settings:
    """Return settings of a property: the first third of its examples, all with THOROUGH=1."""
    some = count if os.environ.get("THOROUGH") else -(-count // 3)
    return settings(derandomize=True, deadline=None, max_examples=some)


# For a whole grid, of which a part stands for all in the normal run.
thorough = pytest.mark.skipif(
    not os.environ.get("THOROUGH"), reason="the whole grid: THOROUGH=1, an hour or more"
)


@contextlib.contextmanager
def refused(kind: type[BaseException], words: str) -> Iterator[None]:
    """Expect exactly this kind of error, in one line that `words` (a pattern) is found in."""
    with pytest.raises(kind, match=words or None) as caught:
        yield
    assert caught.type is kind
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message, f"more than one line: {message!r}"


class ColourEngine(Engine):
    """The code of a photo is the colour of its first pixel: 24 bits, known beforehand.

    `error` is added to every hash, `flip` is xored into every code; `batches` keeps what was run.
    Logits, where the bundle has some, are the reds of the first pixels, one for each class; an
    embedding, where it has one, is the first pixel.
    """

    backend, precision = "colour", "fp32"

    def __init__(self, manifest: Manifest, error: float = 0.0, flip: int = 0) -> None:
        super().__init__(manifest)
        self.error, self.flip = error, flip
        self.batches: list[npt.NDArray[np.uint8]] = []

    @property
    def frames(self) -> int:
        """Return how many frames were run so far."""
        return sum(map(len, self.batches))

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        self.batches.append(frames)
        code = frames[:, 0, 0] ^ np.uint8(self.flip)
        hashes = np.unpackbits(code, axis=1).astype(np.float32) * 2 - 1 + self.error
        declared = self.manifest.outputs.get("logits")
        reds = frames[:, 0, : declared.shape[0], 0].astype(np.float32) if declared else None
        embedded = "embedding" in self.manifest.outputs
        first = frames[:, 0, 0].astype(np.float32) if embedded else None
        return Outputs(code, hashes, first, reds)


def colour_bundle(
    fingerprint: str = "ab" * 32,
    classes: int = 0,
    names: tuple[str, ...] = (),
    embedding: int = 0,
) -> Bundle:
    """Return a bundle that lies on no disk, for a ColourEngine.

    classes: how many it has logits for, 8 at most. embedding: the width that it declares.
    """
    size = COLOUR_SIZE
    shapes = {"code": Output("uint8", (3,)), "hash": Output("float32", (COLOUR_BITS,))}
    outputs = {**shapes, "logits": Output("float32", (classes,))} if classes else {}
    if embedding:
        outputs = {**shapes, **outputs, "embedding": Output("float32", (embedding,))}
    manifest = Manifest(
        method="colour",
        backbone="none",
        image_size=size,
        patch_size=size,
        grid=(1, 1),
        depth=1,
        width=1,
        prefix_tokens=1,
        bits=COLOUR_BITS,
        blocks=(),
        head={},
        preprocess=Preprocess(size, size, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        graph={},
        macs={},
        weights={},
        fingerprint=fingerprint,
        created_by="test",
        outputs=outputs,
        classes=names,
    )
    return Bundle(Path("none.fgd"), manifest)
