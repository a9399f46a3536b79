"""Pretrained weights without a network: an answer at once, and the client as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone import hub
from tests.checks import refused


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hub._PROXIES:
        monkeypatch.delenv(name, raising=False)


def test_offline_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with refused(CheckpointError, r"network.*--checkpoint FILE.*--weights random"):
        hub.pretrained("deit_tiny_patch16_224", 224)


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_the_client_is_told_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: bool, reachable: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before)
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: reachable)
    with pytest.raises(RuntimeError), hub._offline_if_unreachable():
        assert (before or not reachable) == constants.HF_HUB_OFFLINE
        raise RuntimeError("as a download that fails")
    assert before == constants.HF_HUB_OFFLINE


def test_only_a_proxy_can_tell_behind_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("socket.create_connection", refuse)
    assert not hub._reachable("https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    assert hub._reachable("https://hub.invalid")
