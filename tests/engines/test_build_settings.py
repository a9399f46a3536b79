from __future__ import annotations

from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.engines import BuildSettings
from tests.checks import refused


@pytest.mark.parametrize(
    ("batches", "kept", "profile"),
    [
        ((1, 8), (1, 8), (1, 8, 8)),
        ((8, 1, 8), (1, 8), (1, 8, 8)),
        ((1, 8, 32), (1, 8, 32), (1, 8, 32)),
        ((4,), (4,), (1, 4, 4)),
        ((1, 2, 4, 8), (1, 2, 4, 8), (1, 4, 8)),
    ],
)
def test_batches(
    batches: tuple[int, ...], kept: tuple[int, ...], profile: tuple[int, int, int]
) -> None:
    settings = BuildSettings(batches=batches)
    assert settings.batches == kept
    assert settings.profile == profile


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batches": ()}, r"--batch : expected sizes from 1 to 4096"),
        ({"batches": (0, 8)}, r"--batch 0,8: expected"),
        ({"batches": (4097,)}, r"--batch 4097: expected"),
        ({"workspace_mib": 0}, r"--workspace-mib 0: expected 1 to"),
        ({"compute_capabilities": ("8.7",)}, r"8\.7, only 7\.5.*Jetson.*--backend tensorrt"),
        ({"compute_capabilities": ("8.6", "9.0")}, r"compute capability 9\.0"),
        ({"compute_capabilities": ("x",)}, r"compute capability x"),
        ({"dla": True}, r"DLA has no LayerNorm, no TopK"),
        ({"version_compatible": True}, r"loading would execute"),
        ({"threads": 0}, r"at least one thread.*got 0"),
    ],
)
def test_what_no_build_can_have(wrong: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        BuildSettings(**wrong)
