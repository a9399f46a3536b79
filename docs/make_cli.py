"""Write docs/cli.md from the commands themselves: `python docs/make_cli.py`.

Nothing here depends on the width of a terminal or on how Typer draws its help.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from fgdeploy.cli.app import app

PAGE = Path(__file__).resolve().parent / "cli.md"
_INTRODUCTION = """\
# Command line

This page is made from the commands by `python docs/make_cli.py`; a test compares the two.
`fgdeploy COMMAND --help` says the same in the terminal.

- What a command is about comes first: `fgdeploy inspect eet.fgd`. Where only one bundle, index or
  run lies in the working folder, it may be left out.
- Data goes to stdout, messages and progress go to stderr. The last message often says what is next.
  `--quiet`, before or after the command, leaves errors and the answer.
- Rows come as a table (narrowed to a terminal, never in a file or pipe), as `--csv` or as `--json`.
  Where a command shows several tables, an empty line stands between them in CSV.
- `fgdeploy --install-completion` lets the shell complete commands, bundles, methods and engines.
- A mistake is one line on stderr. `fgdeploy --debug COMMAND ...` shows the traceback as well.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error, a limit that was not kept, or an answer that could not be written |
| 2 | an option or argument that can never be right |
| 3 | done, but photos were skipped; they are named (`--strict` stops at the first instead) |
| 130, 143 | ended by Ctrl-C or SIGTERM; nothing half-written is left |
| 141 | the reader of the answer (`head`, a pager) has gone |
"""
_WORDS = {Path: "PATH", int: "N", float: "X", str: "TEXT"}


def render() -> str:
    """Return the whole page as Markdown."""
    root = typer.main.get_command(app)
    found = list(_commands(root, "fgdeploy"))
    parts = [_INTRODUCTION, "| command | |\n|---|---|"]
    for name, command in found[1:]:
        parts[-1] += f"\n| [`{name}`](#{name.replace(' ', '-')}) | {_escape(_first(command))} |"
    parts[-1] += "\n"
    parts += [section(name, command) for name, command in found]
    return "\n".join(parts)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (full name, command), each group before what is in it, hidden ones left out."""
    yield name, command
    for inner, one in getattr(command, "commands", {}).items():
        if not one.hidden:
            yield from _commands(one, f"{name} {inner}")


def _first(command: Any) -> str:
    return _paragraphs(command)[0]


def _paragraphs(command: Any) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    if not text:
        raise ValueError(f"the command {command.name} has no help")
    return [" ".join(part.split()) for part in text.split("\n\n")]


def section(name: str, command: Any) -> str:
    """Return the part of the page for one command. Raises ValueError where help is missing."""
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    usage = [name, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)]
    if hasattr(command, "commands"):
        usage.append("COMMAND ...")
    parts = [f"## {name}", *map(_escape, _paragraphs(command)), f"    {' '.join(usage)}"]
    rows = [(f"`{_metavar(one)}`", _explained(one)) for one in arguments]
    rows += [(_spelled(one, command), _explained(one)) for one in options]
    if rows:
        table = "| | |\n|---|---|\n" + "\n".join(f"| {left} | {right} |" for left, right in rows)
        parts.append(table)
    return "\n\n".join(parts) + "\n"


def _metavar(one: Any) -> str:
    return one.metavar or one.name.upper()


def _usage(one: Any) -> str:
    many = "..." if one.nargs == -1 else ""
    return (_metavar(one) if one.required else f"[{_metavar(one)}]") + many


def _spelled(one: Any, command: Any) -> str:
    """Return an option as it is typed: short and long names, and what stands for its value."""
    names = sorted(one.opts, key=len)
    if one.is_flag:
        return ", ".join(f"`{name}`" for name in [*names, *one.secondary_opts])
    value = one.metavar or _word(one, command)
    return ", ".join(f"`{name}`" for name in [*names[:-1], f"{names[-1]} {value}"])


def _word(one: Any, command: Any) -> str:
    hint = typing.get_type_hints(inspect.unwrap(command.callback))[one.name]
    kinds = [hint]
    while typing.get_origin(kinds[0]) in (typing.Union, types.UnionType, list, tuple):
        kinds = [kind for kind in typing.get_args(kinds[0]) if kind is not type(None)]
    return _WORDS.get(kinds[0], "VALUE")


def _explained(one: Any) -> str:
    """Return what a parameter is for, whether it must be given, and its default."""
    if not one.help:
        raise ValueError(f"the parameter {one.name} has no help")
    text = _escape(" ".join(one.help.split()))
    least, most = getattr(one, "min", None), getattr(one, "max", None)
    if least is not None and most is not None:
        head, said, default = text.partition(" [default: ")
        text = f"{head.rstrip('.')}, {least} to {most}.{said}{default}"
    if one.required:
        return f"{text} Must be given." if one.param_type_name == "option" else text
    if getattr(one, "multiple", False):
        text += " May be given several times."
    default = one.default
    if one.param_type_name == "option" and one.secondary_opts and default is not None:
        default = (one.opts if default else one.secondary_opts)[0]
    known = isinstance(default, (str, int, float, Path)) and default is not False and default != ""
    if not known or "default: " in text:
        return re.sub(r"\[default: (.*)\]", r"Default: \1.", text)
    return f"{text} Default: `{default}`."


def _escape(text: str) -> str:
    return re.sub(r"([*|<_])", r"\\\1", text)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
