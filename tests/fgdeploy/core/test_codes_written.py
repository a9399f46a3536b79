from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core import codes
from fgdeploy.core.codes import CodeFile


@pytest.mark.parametrize("count", [0, 1, 3])
def test_it_is_the_file_that_numpy_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(codes, "_PIECE", 2)
    saved = CodeFile(
        np.arange(6, dtype=np.uint8).reshape(3, 2)[:count],
        ["a", "b\u00fc/c", "d\N{BUTTERFLY}"][:count],
        ["", "", ""][:count],
        12,
        "toy-0",
    )
    saved.save(tmp_path / "codes.npz")
    whole = io.BytesIO()
    np.savez(
        whole,
        codes=saved.codes,
        paths=np.array(saved.paths, dtype=np.str_),
        labels=np.array(saved.labels, dtype=np.str_),
        bits=np.int64(saved.bits),
        fingerprint=np.str_(saved.fingerprint),
    )
    assert (tmp_path / "codes.npz").read_bytes() == whole.getvalue()
