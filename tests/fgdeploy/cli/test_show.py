"""Answers as a table, CSV or JSON, and messages."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator

import pytest
import typer

from fgdeploy.cli import show


class Terminal(io.StringIO):
    """A stream that a terminal shows."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def manners() -> Iterator[None]:
    """Let each test begin and end with the default manner."""
    show.forget_manner()
    yield
    show.forget_manner()


ROWS = [(1, "owl", "/photos/of/2026/" + "x" * 60 + "/0001.jpg"), (12, 'ä, "b"', "short.jpg")]
HEADER = ("id", "label", "path")


def test_a_pipe_gets_rows_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show.rows(ROWS, HEADER)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(HEADER)
    assert lines[1].endswith(str(ROWS[0][2]))


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_a_terminal_gets_rows_that_fit_it(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    show.rows(ROWS, HEADER)
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[1].split()[-1].startswith("/pho")
    assert lines[1].endswith("0001.jpg"[-6:])
    assert ("…" in lines[1]) == (columns < 100)
    assert lines[2].endswith("short.jpg")


def test_rows_that_come_one_by_one_fit_a_terminal_page_by_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(show, "_PAGE", 2)
    show.stream(iter([*ROWS, ROWS[0]]), HEADER)
    lines = terminal.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["id", "1", "12", "id", "1"]
    assert max(map(len, lines)) <= 40


def test_rows_that_come_one_by_one_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show.stream(iter(ROWS), HEADER)
    assert capsys.readouterr().out == "".join("\t".join(map(str, row)) + "\n" for row in ROWS)


def test_columns_are_no_narrower_than_can_be_read() -> None:
    lines = show.table([("a" * 50, "b" * 50)] * 2, ("one", "two"), width=5).splitlines()
    assert lines[1] == "aa…aaaaa  bb…bbbbb"


def test_csv_is_rectangular_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    show.choose_manner(quiet=False, as_csv=True)
    show.line("a line that belongs to the table")
    show.rows([("items", "18,000"), ("size", "1,5")])
    show.rows(ROWS, HEADER, title="second")
    show.stream(iter(ROWS[:1]), HEADER)
    out, err = capsys.readouterr()
    assert list(csv.reader(io.StringIO(out))) == [
        ["name", "value"],
        ["items", "18000"],
        ["size", "1,5"],
        [],
        list(HEADER),
        *([str(cell) for cell in row] for row in ROWS),
        list(HEADER),
        [str(cell) for cell in ROWS[0]],
    ]
    assert err == "a line that belongs to the table\n"


def test_nothing_paints_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "a\x1b[2J\x9b1m\u202eb\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    show.line(odd)
    show.rows([(odd, 1)], title="t")
    show.emit_json({"path": odd, "ä": "日本 \udcff 🦉"})
    show.say(odd)
    text = terminal.getvalue()
    show.choose_manner(quiet=False, as_csv=True)
    show.rows([(odd, 1)])
    text += terminal.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text)
    given = next(line for line in text.splitlines() if line.startswith("{"))
    assert json.loads(given) == {"path": odd, "ä": "日本 \udcff 🦉"}


def test_a_file_of_csv_holds_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show.choose_manner(quiet=False, as_csv=True)
    show.rows([("a\n\x1bb.jpg", 1)], ("path", "n"))
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1] == ["a\n\x1bb.jpg", "1"]


def test_quiet_leaves_errors(capsys: pytest.CaptureFixture[str]) -> None:
    show.choose_manner(quiet=True)
    show.choose_manner(quiet=False)  # the command after `fgdeploy --quiet`
    show.say("next: this")
    show.progress("hashing")(1, 2)
    show.complain("error: that")
    with pytest.raises(typer.Exit) as end:
        show.report_skipped(["bad.jpg: no photo"])
    assert end.value.exit_code == show.SKIPPED
    assert capsys.readouterr().err.splitlines() == [
        "error: that",
        "skipped: bad.jpg: no photo",
        "1 photo skipped (--strict stops at the first)",
    ]


def test_messages_are_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    show.say("a\nb " + "x" * 160_000 + " end")
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and len(text) < 1100
    assert text.startswith("a b xxx") and text.endswith("xxx end\n")
