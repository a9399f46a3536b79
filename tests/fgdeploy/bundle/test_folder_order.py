from __future__ import annotations

from pathlib import Path

from fgdeploy.bundle import open_bundle, seal
from fgdeploy.core.errors import BundleError
from tests.checks import refused


def test_of_several_faults_the_first_that_is_listed_is_told(own_bundle: Path) -> None:
    """Files are verified side by side, and a missing one is found before a sum is known."""
    for name in ("a.bin", "b.bin", "c.bin"):
        (own_bundle / name).write_bytes(bytes(1 << 22))
    seal(own_bundle, open_bundle(own_bundle).manifest)
    (own_bundle / "a.bin").write_bytes(bytes((1 << 22) - 1) + b"x")
    (own_bundle / "b.bin").unlink()
    (own_bundle / "model.onnx").write_bytes(b"")
    for _ in range(5):
        with refused(BundleError, r"a\.bin: its sha256 is not the one in"):
            open_bundle(own_bundle)
