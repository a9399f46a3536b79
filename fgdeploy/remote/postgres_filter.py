"""A filter's tree in PostgreSQL's SQL: values as parameters, text in the order of its bytes."""

from __future__ import annotations

from fgdeploy.remote.filter_nodes import (
    AllOf,
    Always,
    Among,
    AnyOf,
    Applied,
    Column,
    Compared,
    Like,
    Missing,
    Node,
    Term,
)

# Of SQL's own text only these words go into a statement, whatever a filter says.
_COLUMNS = {name: f'{name} COLLATE "C"' for name in ("path", "label", "time", "sha256", "json")}
_COLUMNS["id"] = "id"
_FUNCTIONS = {
    **{name: name for name in ("lower", "upper", "length", "substr", "coalesce")},
    "instr": "strpos",
    "%": "mod",
}
_OPERATORS = {sign: sign for sign in ("=", "<>", "<", "<=", ">", ">=")}
_ESCAPE = "!"


class PostgresFilter:
    """An SQL condition. sql: with %s for the values of `params`, in their order."""

    def __init__(self, node: Node) -> None:
        self.params: list[object] = []
        self.sql = self._condition(node)

    def _condition(self, node: Node) -> str:
        match node:
            case Always(holds):
                return "TRUE" if holds else "FALSE"
            case AllOf(parts):
                return f"({' AND '.join(map(self._condition, parts))})"
            case AnyOf(parts):
                return f"({' OR '.join(map(self._condition, parts))})"
            case Missing(term, negated):
                return f"({self._term(term)} IS {'NOT ' if negated else ''}NULL)"
            case Compared(term, operator, value):
                left = self._term(term)
                right = self._value(value) if isinstance(value, int | str) else self._term(value)
                return f"({left} {_OPERATORS[operator]} {right})"
            case Among(term, values, negated):
                left = self._term(term)
                self.params.append(list(values))
                kind = "text[]" if term.is_text else "bigint[]"
                return f"({left} {'<> ALL' if negated else '= ANY'} (%s::{kind}))"
            case Like():
                return self._like(node)

    def _term(self, term: Term) -> str:
        if isinstance(term, Column):
            return f"({_COLUMNS[term.name]})"
        of = self._term(term.of)
        arguments = [self._value(value, term) for value in term.arguments]
        return f"{_FUNCTIONS[term.name]}({', '.join([of, *arguments])})"

    def _value(self, value: int | str, term: Applied | None = None) -> str:
        self.params.append(value)
        if isinstance(value, str):
            return "%s::text"
        return "%s::integer" if term is not None and term.name == "substr" else "%s::bigint"

    def _like(self, node: Like) -> str:
        term = self._term(node.term)
        parts = [
            _escaped(part) if isinstance(part, str) else "%" if part.run else "_"
            for part in node.pattern
        ]
        pattern = "".join(parts)
        if node.ignores_case:  # of ASCII letters only, as lower() does by the order of bytes
            term, pattern = f"lower({term})", _lower(pattern)
        self.params.append(pattern)
        return f"({term} {'NOT ' if node.negated else ''}LIKE %s::text ESCAPE '{_ESCAPE}')"


def _escaped(text: str) -> str:
    return "".join(_ESCAPE + letter if letter in ("%", "_", _ESCAPE) else letter for letter in text)


def _lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
