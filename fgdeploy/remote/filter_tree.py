"""From an index's filter to the tree of `filter_nodes`, or a refusal that names what cannot be.

Sources: sqlite.org/datatype3.html (affinity, sort order), lang_expr.html (operators, NULL).
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import cast

from fgdeploy.remote.filter_nodes import (
    ALL,
    NONE,
    Among,
    AnyText,
    Applied,
    Column,
    Compared,
    Like,
    Node,
    Term,
    all_of,
    any_of,
    missing,
    there,
)
from fgdeploy.remote.filter_parser import Constant, Named, Operation, Parser, Raw, Scalar, Untold
from fgdeploy.retrieval.store.schema import TABLES
from fgdeploy.retrieval.store.where import Params, matching_ids, plain, refused

_UNLIKE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_TURNED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MOST = 1_000_000  # bytes of a text that a filter works out


def parse(where: str, params: Params = (), server: str = "a server") -> Node:
    """Return what a filter of `Index.search` says. server: whose adapter asks.

    Raises UsageError for what the index itself refuses, in its words, and for what has no equal
    meaning on a server, such as strftime() of a column.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as sqlite:
        sqlite.executescript(TABLES)
        matching_ids(sqlite, where, params)
        if hasattr(sqlite, "setlimit"):  # from Python 3.11 on
            sqlite.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST)
        try:
            raw = Parser(where, _given(where, params)).read()
            return _Meaning(sqlite).holds(raw, True)
        except Untold as error:
            raise refused(where, f"{error} has no equal meaning on {server}") from None
        except RecursionError:
            raise refused(where, f"it is nested too deeply for {server}") from None
        except sqlite3.Error as error:
            raise refused(where, str(error)) from None


def _given(where: str, params: Params) -> Sequence[Scalar] | Mapping[str, Scalar]:
    """Return the values of the parameters. Raises Untold for text that no server keeps."""
    values = cast("Sequence[Scalar] | Mapping[str, Scalar]", plain(where, params))
    texts = values.values() if isinstance(values, Mapping) else values
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise Untold("a text with the character NUL")
    return values


class _Meaning:
    """What holds where. sqlite: works out what no column is in."""

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self._sqlite = sqlite
        sqlite.execute("CREATE TEMP TABLE asked (number INTEGER, text TEXT)")

    def holds(self, raw: Raw, wanted: bool) -> Node:
        """Return where an expression is true, or where it is false if that is wanted."""
        raw = self._folded(raw)
        match raw:
            case Constant():
                truth = self._asked("SELECT CASE WHEN ?1 THEN 1 WHEN NOT ?1 THEN 0 END", raw.value)
                return ALL if truth == wanted else NONE
            case Operation("NOT", (inner,)):
                return self.holds(inner, not wanted)
            case Operation("AND" | "OR", parts):
                join = all_of if (raw.name == "AND") == wanted else any_of
                return join(*(self.holds(part, wanted) for part in parts))
            case Operation("IS", (left, right)):
                return self._same(left, right, wanted)
            case Operation("IN", (left, *values)):
                return self._among(left, values, wanted)
            case Operation("LIKE" | "GLOB", (left, *pattern)):
                return self._like(raw.name, left, pattern, wanted)
            case Operation(name, (left, right)) if name in _UNLIKE:
                return self._compared(left, name if wanted else _UNLIKE[name], right)
        term = self._term(raw)
        if term.is_text:
            raise Untold("text as a condition")
        return Compared(term, "<>" if wanted else "=", 0)

    def _compared(self, left: Raw, operator: str, right: Raw) -> Node:
        left, right = self._folded(left), self._folded(right)
        if isinstance(left, Constant):
            left, operator, right = right, _TURNED[operator], left
        term = self._term(left)
        if isinstance(right, Constant):
            return self._against(term, operator, right.value)
        other = self._term(right)
        if term.is_text != other.is_text:
            raise Untold("a comparison of text with a number that is no constant")
        return Compared(term, operator, other)

    def _against(self, term: Term, operator: str, value: Scalar) -> Node:
        """Return a comparison with a constant. Numbers come before all texts."""
        value = self._converted(term, value)
        if value is None:
            return NONE
        if isinstance(value, str) != term.is_text:
            above = not term.is_text  # the constant, above each value of the term
            return there(term) if operator in _holds_where(above) else NONE
        if not isinstance(value, float):
            return Compared(term, operator, value)
        if not -(2.0**63) <= value < 2.0**63:
            return there(term) if operator in _holds_where(value > 0) else NONE
        if value.is_integer():
            return Compared(term, operator, int(value))
        if operator in ("=", "<>"):
            return there(term) if operator == "<>" else NONE
        if operator in ("<", "<="):
            return Compared(term, "<=", math.floor(value))
        return Compared(term, ">=", math.ceil(value))

    def _same(self, left: Raw, right: Raw, wanted: bool) -> Node:
        """Return where two sides are equal or both NULL, or not so."""
        left, right = self._folded(left), self._folded(right)
        if isinstance(right, Constant) and right.keyword in ("TRUE", "FALSE"):
            raise Untold(f"IS {right.keyword}")
        if isinstance(left, Constant):
            left, right = right, left
        term = self._term(left)
        if isinstance(right, Constant):
            if right.value is None:
                return missing(term) if wanted else there(term)
            if wanted:
                return self._against(term, "=", right.value)
            return any_of(missing(term), self._against(term, "<>", right.value))
        other = self._term(right)
        if wanted:
            both = all_of(missing(term), missing(other))
            return any_of(both, self._compared(left, "=", right))
        return any_of(
            all_of(missing(term), there(other)),
            all_of(there(term), missing(other)),
            self._compared(left, "<>", right),
        )

    def _among(self, left: Raw, listed: Sequence[Raw], wanted: bool) -> Node:
        if not listed:
            return NONE if wanted else ALL
        term = self._term(left)
        values = []
        for raw in listed:
            constant = self._folded(raw)
            if not isinstance(constant, Constant):
                raise Untold("a list of more than constants after IN")
            values.append(self._converted(term, constant.value))
        if not wanted and None in values:
            return NONE
        texts = tuple(value for value in values if isinstance(value, str))
        numbers = tuple(
            int(value)
            for value in values
            if isinstance(value, int) or (isinstance(value, float) and _is_whole(value))
        )
        if not (texts if term.is_text else numbers):
            return NONE if wanted else there(term)
        return Among(term, texts if term.is_text else numbers, not wanted)

    def _like(self, name: str, left: Raw, right: Sequence[Raw], wanted: bool) -> Node:
        term = self._term(left)
        if not term.is_text:
            raise Untold(f"{name} with a number")
        constants = [self._folded(raw) for raw in right]
        values = [constant.value for constant in constants if isinstance(constant, Constant)]
        if len(values) < len(constants):
            raise Untold(f"{name} with a pattern that is no constant")
        escape = " ESCAPE ?2" if len(values) > 1 else ""
        if self._asked(f"SELECT '' {name} ?1{escape}", *values) is None:  # checks the pattern too
            return NONE
        texts = [str(self._asked("SELECT CAST(? AS TEXT)", value)) for value in values]
        pattern = _globbed(texts[0]) if name == "GLOB" else _pattern(*texts)
        if pattern is None:
            return NONE if wanted else there(term)
        return Like(term, pattern, name == "LIKE", not wanted)

    def _term(self, raw: Raw) -> Term:
        match self._folded(raw):
            case Named(name):
                return Column(name)
            case Operation("%", (of, Constant(int(value)))) if value:
                if not (inner := self._term(of)).is_text:
                    return Applied("%", inner, (value,))
            case Operation(name, (of, *others), True) if (
                arguments := _arguments(name, others)
            ) is not None:
                if (inner := self._term(of)).is_text:
                    return Applied("coalesce" if name == "ifnull" else name, inner, arguments)
            case Constant():
                raise Untold("a constant in this place")
        name = raw.name if isinstance(raw, (Operation, Named)) else ""
        raise Untold(f"{name}()" if isinstance(raw, Operation) and raw.call else name)

    def _converted(self, term: Term, value: Scalar) -> Scalar:
        """Return a constant as a comparison with the term sees it: a column converts it."""
        if isinstance(term, Column) and value is not None:
            name = "text" if term.is_text else "number"
            self._sqlite.execute("DELETE FROM asked")
            self._sqlite.execute(f"INSERT INTO asked ({name}) VALUES (?)", (value,))
            return self._asked(f"SELECT {name} FROM asked")
        return self._asked("SELECT ?", value)  # a bool is a number, not a number is NULL

    def _folded(self, raw: Raw) -> Raw:
        """Return an operation on nothing but constants as the constant that it gives."""
        if not isinstance(raw, Operation):
            return raw
        operands = tuple(self._folded(operand) for operand in raw.operands)
        constants = [operand for operand in operands if isinstance(operand, Constant)]
        if len(constants) < len(operands) or raw.name in ("AND", "OR", "NOT"):
            return Operation(raw.name, operands, raw.call)
        values = [one.value for one in constants if not one.keyword]
        return Constant(self._asked(f"SELECT {_sql(raw, constants)}", *values))

    def _asked(self, query: str, *values: Scalar) -> Scalar:
        (found,) = self._sqlite.execute(query, values).fetchone()
        if found is not None and not isinstance(found, (int, float, str)):
            raise Untold("a blob")
        return found


def _holds_where(above: bool) -> tuple[str, ...]:
    """Return the operators that hold for a value and a constant above it, or below."""
    return ("<", "<=", "<>") if above else (">", ">=", "<>")


def _is_whole(value: float) -> bool:
    return value.is_integer() and -(2.0**63) <= value < 2.0**63


def _sql(raw: Operation, constants: Sequence[Constant]) -> str:
    marks = [one.keyword or "?" for one in constants]  # IS TRUE asks another thing than IS 1
    if raw.call:
        return f"{raw.name}({', '.join(marks)})"
    match raw.name, marks:
        case "IN", [left, *listed]:
            return f"{left} IN ({', '.join(listed)})"
        case "LIKE" | "GLOB", [left, pattern, escape]:
            return f"{left} {raw.name} {pattern} ESCAPE {escape}"
        case name, [left, right]:
            return f"({left} {name} {right})"
        case name, _:
            return f"({name} {marks[0]})"


def _arguments(name: str, others: Sequence[Raw]) -> tuple[int | str, ...] | None:
    """Return the arguments of a function after its first, None where it is not to be had."""
    values = tuple(one.value for one in others if isinstance(one, Constant))
    texts = tuple(value for value in values if isinstance(value, str))
    numbers = tuple(value for value in values if isinstance(value, int))
    if name in ("lower", "upper", "length") and not others:
        return ()
    if name in ("coalesce", "ifnull", "instr") and len(texts) == len(others) == 1:
        return texts
    if name == "substr" and len(numbers) == len(others) in (1, 2):
        return numbers if numbers[0] >= 1 and 0 <= min(numbers) <= max(numbers) <= _MOST else None
    return None


def _pattern(pattern: str, escape: str = "") -> tuple[str | AnyText, ...] | None:
    """Return the parts of a LIKE pattern, None where it ends in an escape and matches nothing."""
    parts: list[str | AnyText] = []
    letters = iter(pattern)
    for letter in letters:
        if letter == escape:
            if (following := next(letters, None)) is None:
                return None
            parts.append(following)
        else:
            parts.append(AnyText(letter == "%") if letter in "%_" else letter)
    return _together(parts)


def _globbed(pattern: str) -> tuple[str | AnyText, ...]:
    parts: list[str | AnyText] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "[":  # around one character, which stands for itself
            letter = pattern[at + 1 : at + 2]
            if letter in ("", "^") or pattern[at + 2 : at + 3] != "]":
                raise Untold("[...] in GLOB")
            parts.append(letter)
            at += 3
            continue
        parts.append(AnyText(letter == "*") if letter in "*?" else letter)
        at += 1
    return _together(parts)


def _together(parts: Sequence[str | AnyText]) -> tuple[str | AnyText, ...]:
    found: list[str | AnyText] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, str) and isinstance(last, str):
            found[-1] = last + part
        elif not (part == last == AnyText(run=True)):
            found.append(part)
    return tuple(found)
