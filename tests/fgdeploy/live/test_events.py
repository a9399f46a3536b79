"""Log lines that programs can read."""

from __future__ import annotations

import json
import logging

import pytest

from fgdeploy.live.events import LOG, JsonLines, log_to_stderr, tell


def test_an_event_is_a_line_of_pairs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fgdeploy.live"):
        tell("reconnects", source="rtsp://a b", attempt=3, wait_s=1.23456)
    assert caplog.messages == ['reconnects source="rtsp://a b" attempt=3 wait_s=1.235']


def test_a_record_as_json_holds_the_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fgdeploy.live"):
        tell("stopped", logging.ERROR, why="a\nb")
    entry = json.loads(JsonLines().format(caplog.records[0]))
    assert (entry["event"], entry["level"], entry["why"]) == ("stopped", "error", "a\nb")
    assert entry["time"].endswith("+00:00")


def test_other_records_keep_their_message() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "%d apples", (3,), None)
    assert json.loads(JsonLines().format(record))["message"] == "3 apples"


def test_stderr_hears_events_only_within_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    before = LOG.handlers[:], LOG.level, LOG.propagate
    with log_to_stderr(as_json=True, level=logging.WARNING):
        tell("quiet")
        tell("loud", logging.WARNING, name="a b")
    tell("late", logging.ERROR)
    (line,) = capsys.readouterr().err.splitlines()
    assert (json.loads(line)["event"], json.loads(line)["name"]) == ("loud", "a b")
    with log_to_stderr():
        tell("text", name="a b")
    assert capsys.readouterr().err == 'text name="a b"\n'
    assert (LOG.handlers[:], LOG.level, LOG.propagate) == before
