"""An index's filter in Milvus' expressions, or a refusal that names what Milvus does not have.

Source: milvus.io/docs/boolean.md, of 2.3, which all later ones know too.
"""

from __future__ import annotations

from fgdeploy.core.text import shown
from fgdeploy.remote.filter_nodes import (
    AllOf,
    Always,
    Among,
    AnyOf,
    AnyText,
    Applied,
    Column,
    Compared,
    Like,
    Missing,
    Node,
    Term,
    never_missing,
)
from fgdeploy.remote.filter_tree import parse
from fgdeploy.remote.milvus_columns import MAY_MISS
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.where import Params, refused

NOBODY = "id < 0"
_LAST = 0x10FFFF  # the last character of Unicode
_SURROGATES = range(0xD800, 0xE000)
# All other characters stand for themselves; Milvus Lite knows no \u.
_NAMES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def milvus_expression(where: str | None, params: Params) -> str:
    """Return an expression that holds for the same items, "" where that is all of them.

    Raises UsageError as `Index.search` does, and for what has not the same meaning there.
    """
    if where is None:
        return ""
    node = parse(where, params, "Milvus")
    if isinstance(node, Always):
        return "" if node.holds else NOBODY
    try:
        return _written(node)
    except _UntoldError as error:
        raise refused(where, f"{error} has no equal meaning on Milvus") from None


class _UntoldError(Exception):
    """What Milvus has no word for."""


def quoted(text: str) -> str:
    """Return a text as a literal of an expression."""
    return '"' + "".join(_NAMES.get(c, c) for c in text) + '"'


def is_there(column: str) -> str:
    """Return an expression that holds where a column is not NULL, "" for one that never is."""
    return _of_missing(column, False) if column in MAY_MISS else ""


def _of_missing(column: str, missing: bool) -> str:
    bit = 1 << MAY_MISS.index(column)
    values = [mask for mask in range(1 << len(MAY_MISS)) if bool(mask & bit) == missing]
    return f"missing in {values}"


def _written(node: Node) -> str:
    match node:
        case AllOf(parts):
            return f"({' and '.join(map(_written, parts))})"
        case AnyOf(parts):
            return f"({' or '.join(map(_written, parts))})"
        case Always(holds):
            return "id >= 0" if holds else NOBODY
        case Missing(term, negated):
            if never_missing(term):
                return "id >= 0" if negated else NOBODY
            return _of_missing(_column_under(term), not negated)
        case Compared(Column("id"), operator, int(value)):
            return _number(operator, value)
        case Compared(Column(name), operator, str(text)):
            return _text(name, operator, text)
        case Among(Column("id"), values, negated):
            known = sorted({value for value in values if 0 <= int(value) <= MAX_ID})
            if not known:
                return "id >= 0" if negated else NOBODY
            return f"id {'not ' if negated else ''}in {known}"
        case Among(Column(name), values, negated):
            listed = ", ".join(quoted(str(value)) for value in dict.fromkeys(values))
            return _with(name, f"{name} {'not ' if negated else ''}in [{listed}]")
        case Like(Column(name), pattern, ignores_case, negated):
            return _like(name, pattern, ignores_case, negated)
        case _:
            raise _UntoldError(_called(node))


def _column_under(term: Term) -> str:
    while isinstance(term, Applied):
        term = term.of
    return term.name


def _called(node: Node) -> str:
    """Return what of a node Milvus does not have."""
    for term in (getattr(node, "term", None), getattr(node, "value", None)):
        if isinstance(term, Applied):
            # Milvus 2.3.5 takes the rest in floats: another answer for ids above 2**53.
            return "%" if term.name == "%" else f"{term.name}()"
    return "a comparison of two columns"


def _number(operator: str, value: int) -> str:
    """Compare an id. Numbers that no id can be may be more than Milvus reads."""
    if not 0 <= value <= MAX_ID:
        holds = {"<": value > 0, "<=": value > 0, ">": value < 0, ">=": value < 0, "<>": True}
        return "id >= 0" if holds.get(operator, False) else NOBODY
    return f"id {_spelt(operator)} {value}"


def _text(name: str, operator: str, text: str) -> str:
    expression = f"{name} {_spelt(operator)} {quoted(text)}"
    # A text that is missing lies there as "", which nothing but this comparison tells apart.
    return expression if operator == "=" and text else _with(name, expression)


def _spelt(operator: str) -> str:
    return {"=": "==", "<>": "!="}.get(operator, operator)


def _with(name: str, expression: str) -> str:
    there = is_there(name)
    return f"({there} and {expression})" if there else f"({expression})"


def _like(name: str, pattern: tuple[str | AnyText, ...], ignores_case: bool, negated: bool) -> str:
    """Write a pattern that begins with a text as a range of texts, since text compares by bytes."""
    text = pattern[0] if pattern and isinstance(pattern[0], str) else ""
    rest = pattern[1:] if text else pattern
    if ignores_case and any(c.isascii() and c.isalpha() for c in text):
        raise _UntoldError(f"LIKE {shown(repr(text))}, whose letters may be small or capital,")
    if not rest:
        return _text(name, "<>" if negated else "=", text)
    if rest != (AnyText(run=True),):
        raise _UntoldError("a pattern with more than one % or * at its end")
    if not text:
        return NOBODY if negated else is_there(name) or "id >= 0"
    if (end := _after(text)) is None:
        raise _UntoldError("a pattern of Unicode's last character")
    first, last = f"{name} >= {quoted(text)}", f"{name} < {quoted(end)}"
    if negated:
        return _with(name, f"({name} < {quoted(text)} or {name} >= {quoted(end)})")
    return f"({first} and {last})"


def _after(text: str) -> str | None:
    """Return the first text, by its bytes, behind all that begin with `text`."""
    for place in range(len(text) - 1, -1, -1):
        following = ord(text[place]) + 1
        following = _SURROGATES.stop if following in _SURROGATES else following
        if following <= _LAST:
            return text[:place] + chr(following)
    return None
