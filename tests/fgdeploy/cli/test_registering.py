"""What every command gets from the walk over all of them: numbers, --quiet, --csv, defaults."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from fgdeploy.cli import registering
from fgdeploy.cli.app import app
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
        return
    for name, one in inner.items():
        yield from _commands(one, (*words, name))


ROOT = typer.main.get_command(app)
COMMANDS = dict(_commands(ROOT))
NAMES = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
_NO_NUMBER = ["", "x", "+5", "-0", "1_000", "1e400", "nan", "-inf", "\u0665", "\uff15", " 5"]
_NO_WHOLE = [*_NO_NUMBER, "1.5", "1e3", "-1", str(2**63), "9" * 20, "9" * 5000, "-" + "9" * 5000]


def _numeric(command: Any) -> Iterator[tuple[str, str]]:
    """Yield the options that take a number, hidden ones too: (option, N or X)."""
    for one in command.params:
        if one.param_type_name == "option" and one.metavar in ("N", "X", "ID"):
            yield max(one.opts, key=len), "X" if one.metavar == "X" else "N"


@NAMES
def test_every_number_is_exact_and_bounded(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["x" for one in COMMANDS[words].params if one.param_type_name == "argument"]
    for option, kind in _numeric(COMMANDS[words]):
        for text in _NO_WHOLE if kind == "N" else _NO_NUMBER:
            given = [f"{option}={text}"] if option.startswith("--") else [option, text]
            with pytest.raises(SystemExit) as end:
                ROOT.main([*words, *places, *given], prog_name="fgdeploy")
            assert end.value.code == 2, given
            printed = capsys.readouterr()
            assert (printed.out, printed.err.count("\n")) == ("", 1), given
            assert re.match(rf"error: {option} .*expected a (whole|finite) number", printed.err)
            assert len(printed.err) < 1200


def test_there_are_numbers_to_try() -> None:
    found = {option for command in COMMANDS.values() for option, _ in _numeric(command)}
    assert {"-k", "--limit", "--id", "--batch", "--threads", "--seed", "--lr", "--bits"} <= found


def test_no_number_escapes_the_walk() -> None:
    """A parameter of a type int or float has the parser that this room gave it."""
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    for info in (info for group in groups if group for info in group.registered_commands):
        assert info.callback is not None
        for name, kind in info.callback.__annotations__.items():
            base, *extras = typing.get_args(kind) or [kind]
            if registering._base(base) in (int, float):
                assert extras[0].parser is not None, name


@NAMES
def test_commands_can_be_quiet_and_rows_can_be_csv(words: tuple[str, ...]) -> None:
    options = {name for one in COMMANDS[words].params for name in one.opts}
    assert {"-q", "--quiet"} <= options
    assert ("--csv" in options) == ("--json" in options) == (words not in _NO_ROWS)


# What says only what it did, in a message.
_NO_ROWS = [("index", name) for name in ("add", "embed", "remove", "compact")]
_NO_ROWS += [("index", "export"), ("index", "import"), ("index", "prune"), ("boxes",), ("explain",)]
_NO_ROWS += [("serve",), ("index", "push")]
_NO_ROWS += [("sign",), ("verify",)]


def test_one_form_of_an_answer(run: Run) -> None:
    fails(run("doctor", "--json", "--csv"), 2, "--json and --csv are two forms of one answer")


def test_quiet_stands_before_or_after_the_command(run: Run, bundle: Any, moths: Any) -> None:
    loud = run("hash", moths, "-b", bundle)
    assert "hashed 18 photos" in loud.stderr
    for words in (("-q", "hash"), ("hash", "--quiet"), ("--quiet", "hash", "-q")):
        assert run(*words, moths, "-b", bundle).output == "", words
    assert "hashed 18 photos" in run("hash", moths, "-b", bundle).stderr  # and not for ever
    fails(run("--quiet", "inspect", "none.fgd"), 1, "none.fgd")
    assert run("-q", "index", "list", "none.fgi").stderr.startswith("error: ")


# Options without which nothing of the kind is done: there is no value to show.
_NOTHING = re.compile(
    r"^(--set|--rename|--id|--code|--codes|--where|--report|--html|--labels|--split|--teacher|--without"
    r"|--checkpoint|--fit-data|--radius|--rerank|--workspace-mib|--timing-cache"
    r"|--compute-capability)$"
)


@NAMES
def test_help_shows_every_default_as_a_value(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help").stdout
    assert "Default:" not in text
    rows = [" ".join(row.split()) for row in re.split(r"\n  (?=-)", text)]
    for one in COMMANDS[words].params:
        option = max(one.opts, key=len)
        if one.param_type_name != "option" or one.is_flag or one.hidden or one.required:
            continue
        if _NOTHING.match(option):
            continue
        (shown,) = [row for row in rows if f" {option} " in f" {row[:30]}"]
        if one.default is not None and "[default: " not in (one.help or ""):
            assert f"[default: {one.default}" in shown, option
        else:
            assert "[default: " in shown, f"{option}: say in its help what happens without it"


def test_a_usage_error_is_one_line(run: Run) -> None:
    fails(run("hash"), 2, "^error: Missing argument .*; see: fgdeploy hash --help$")
    fails(run("hash", "x", "--nothing"), 2, "No such option: --nothing")
    fails(run("index", "nothing"), 2, "No such command 'nothing'; see: fgdeploy index --help$")
    fails(run("--nothing"), 2, "No such option: --nothing; see: fgdeploy --help$")
    fails(run("search", "--id"), 2, "requires an argument; see: fgdeploy search --help$")
    fails(run("hash", "x" * 100_000, "y"), 2, "unexpected extra argument")
