"""Nobody hears what nobody listens to."""

from __future__ import annotations

import pytest

from fgdeploy.core.progress import no_bars, no_progress, silent


def test_nothing_is_shown_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    no_progress(1, 2)
    no_bars("label")(2, 2)
    silent("a message")
    assert capsys.readouterr() == ("", "")
