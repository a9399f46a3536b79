"""Bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fgdeploy.cli import log_lines, show
from fgdeploy.cli.bars import bars


@pytest.fixture(autouse=True)
def manners() -> Iterator[None]:
    """Let each test begin and end with the default manner."""
    show.forget_manner()
    yield
    show.forget_manner()


def test_a_log_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_FIRST_S", 0.0)  # so that no time need pass
    with bars() as shown:
        shown.say("training")
        update = shown.make("reading")
        update(1, 2)
        update(2, 2)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "training"
    assert second.startswith("reading: 1 of 2 (50%), ")
    assert third == "reading: 2 of 2, took 1 s"


def test_quiet_has_neither(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "_FIRST_S", 0.0)
    show.choose_manner(quiet=True)
    with bars() as shown:
        shown.say("training")
        shown.make("reading")(1, 2)
    assert capsys.readouterr().err == ""
