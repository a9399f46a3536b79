"""An index's filter as a tree of what it says: SQLite's grammar and precedence, nothing else.

Source: sqlite.org/lang_expr.html (operators and their precedence, variables). Only what SQLite
takes comes here; what this grammar leaves out (CASE, CAST, COLLATE, MATCH, REGEXP, blobs) raises
Untold, which names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgdeploy.retrieval.store.where import COLUMNS

Scalar = int | float | str | None

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\f\r]+)|'(?P<text>(?:[^']|'')*)'"""
    r"""|"(?P<quoted>(?:[^"]|"")*)"|`(?P<ticked>[^`]*)`|\[(?P<square>[^\]]*)\]"""
    r"""|(?P<hex>0[xX][0-9a-fA-F]+)|(?P<real>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)"""
    r"""|(?P<whole>\d+)|\?(?P<place>\d*)|[:@$](?P<named>\w+)"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<sign>->>|->|\|\||<<|>>|<=|>=|<>|==|!=|[-+*/%&|<>=~(),])"""
)
_ENDS = re.compile(r"\w")  # a number ends where no letter follows
_BINARY = (("&", "|", "<<", ">>"), ("+", "-"), ("*", "/", "%"), ("||", "->", "->>"))
_MOST_WHOLE = (1 << 63) - 1
_WORDS = ("CASE", "CAST", "EXISTS", "NOT")  # before a bracket, though no functions


class Untold(Exception):
    """What a filter says that this grammar, or a server, has no equal for: its name."""


@dataclass(frozen=True)
class Constant:
    """A literal or the value of a parameter. keyword: TRUE, FALSE and NULL, by their words."""

    value: Scalar
    keyword: str = ""


@dataclass(frozen=True)
class Named:
    """A column, in lower case."""

    name: str


@dataclass(frozen=True)
class Operation:
    """An operator or function with its operands. call: whether it is written as a function."""

    name: str
    operands: tuple[Raw, ...]
    call: bool = False


Raw = Constant | Named | Operation


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str

    def __eq__(self, other: object) -> bool:
        """Compare a keyword or sign with its text."""
        return self.kind in ("word", "sign") and self.text.upper() == other


class Parser:
    """Reads one expression, with the values of its parameters in their places."""

    def __init__(self, where: str, params: Sequence[Scalar] | Mapping[str, Scalar]) -> None:
        self._tokens, self._at, self._places = _tokens_of(where), 0, 0
        self._params = params

    def read(self) -> Raw:
        """Return the whole expression. Raises Untold."""
        found = self._either()
        if self._next.kind != "end":
            raise Untold(self._next.text)
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _took(self, *words: str) -> bool:
        """Go past these words if they come next."""
        if all(a == b for a, b in zip(self._tokens[self._at :], words, strict=False)):
            self._at += len(words)
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._took(word):
            raise Untold(self._next.text or f"an end without {word}")

    def _either(self) -> Raw:
        parts = [self._both()]
        while self._took("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Operation("OR", tuple(parts))

    def _both(self) -> Raw:
        parts = [self._negated()]
        while self._took("AND"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else Operation("AND", tuple(parts))

    def _negated(self) -> Raw:
        negations = 0
        while self._took("NOT"):
            negations += 1
        found = self._equality()
        for _ in range(negations):
            found = Operation("NOT", (found,))
        return found

    def _equality(self) -> Raw:
        left = self._ordered()
        while (found := self._compared(left)) is not None:
            left = found
        return left

    def _compared(self, left: Raw) -> Raw | None:
        """Return `left` with one operator of the rank of = behind it, None where none follows."""
        for sign, name in (("=", "="), ("==", "="), ("<>", "<>"), ("!=", "<>")):
            if self._took(sign):
                return Operation(name, (left, self._ordered()))
        for words in (("ISNULL",), ("NOTNULL",), ("NOT", "NULL")):
            if self._took(*words):
                null = Operation("IS", (left, Constant(None, "NULL")))
                return null if words == ("ISNULL",) else Operation("NOT", (null,))
        if self._took("IS"):
            negated = self._took("NOT")
            if self._took("DISTINCT", "FROM"):
                negated = not negated
            return _maybe_not(Operation("IS", (left, self._ordered())), negated)
        negated = self._took("NOT")
        if self._took("BETWEEN"):
            low = self._ordered()
            self._expect("AND")
            ends = Operation(">=", (left, low)), Operation("<=", (left, self._ordered()))
            return _maybe_not(Operation("AND", ends), negated)
        if self._took("IN"):
            return _maybe_not(Operation("IN", (left, *self._list())), negated)
        for name in ("LIKE", "GLOB"):
            if self._took(name):
                operands = [left, self._ordered()]
                if self._took("ESCAPE"):
                    operands.append(self._ordered())
                return _maybe_not(Operation(name, tuple(operands)), negated)
        if negated:
            raise Untold(f"NOT {self._next.text}")
        return None

    def _ordered(self) -> Raw:
        left = self._binary(0)
        while self._next.text in ("<", "<=", ">", ">=") and self._next.kind == "sign":
            left = Operation(self._take().text, (left, self._binary(0)))
        return left

    def _binary(self, rank: int) -> Raw:
        if rank == len(_BINARY):
            return self._signed()
        left = self._binary(rank + 1)
        while self._next.kind == "sign" and self._next.text in _BINARY[rank]:
            left = Operation(self._take().text, (left, self._binary(rank + 1)))
        return left

    def _signed(self) -> Raw:
        for sign in ("-", "+", "~"):
            if self._took(sign):
                if sign == "-" and self._next.text == str(_MOST_WHOLE + 1):
                    self._take()
                    return Constant(-_MOST_WHOLE - 1)  # whose amount alone would be no whole number
                return Operation(sign, (self._signed(),))
        return self._primary()

    def _list(self) -> tuple[Raw, ...]:
        self._expect("(")
        if self._took(")"):
            return ()
        found = [self._either()]
        while self._took(","):
            found.append(self._either())
        self._expect(")")
        return tuple(found)

    def _primary(self) -> Raw:
        token = self._take()
        match token.kind:
            case "text":
                return Constant(token.text.replace("''", "'"))
            case "whole" | "real" | "hex":
                return Constant(_number(token))
            case "place" | "named":
                return Constant(self._parameter(token))
            case "quoted" | "ticked" | "square":
                return Named(token.text.lower())
            case "word":
                return self._word(token)
        if token == "(":
            found = self._either()
            self._expect(")")
            return found
        raise Untold(token.text or "an expression that ends early")

    def _word(self, token: _Token) -> Raw:
        word = token.text.upper()
        if self._next == "(" and word not in _WORDS:
            return Operation(word.lower(), self._list(), call=True)
        if word in ("TRUE", "FALSE", "NULL"):
            return Constant({"TRUE": 1, "FALSE": 0}.get(word), word)
        if word.lower() not in COLUMNS:
            raise Untold(word)
        return Named(word.lower())

    def _parameter(self, token: _Token) -> Scalar:
        if isinstance(self._params, Mapping):
            return self._params[token.text]
        place = int(token.text or self._places + 1)
        self._places = max(self._places, place)
        return self._params[place - 1]


def _maybe_not(found: Raw, negated: bool) -> Raw:
    return Operation("NOT", (found,)) if negated else found


def _number(token: _Token) -> int | float:
    if token.kind == "hex":
        value = int(token.text, 16)
        return value - (1 << 64) if value > _MOST_WHOLE else value
    if token.kind == "whole" and int(token.text) <= _MOST_WHOLE:
        return int(token.text)
    return float(token.text)


def _tokens_of(where: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(where):
        found = _TOKEN.match(where, at)
        if found is None or found.lastgroup is None:
            raise Untold(where[at])
        kind, at = found.lastgroup, found.end()
        if kind in ("hex", "real", "whole") and _ENDS.match(where, at):
            raise Untold(where[found.start() : at + 1])
        if kind != "space":
            tokens.append(_Token(kind, found.group(kind)))
    return [*tokens, _Token("end", "")]
