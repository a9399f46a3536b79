"""An index's filter as a tree that a server's adapter writes in its own language.

The tree holds or does not hold for an item: SQLite's third answer, NULL, and NOT are worked out
here, as are the conversions between text and numbers that a comparison there makes. A comparison
with a column that is NULL never holds; Missing alone asks for that. Text is compared by its UTF-8
bytes, numbers exactly.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of the items: id is a whole number from 0 to 2**62, never NULL; all others text.

    Only id and time are never NULL.
    """

    name: str

    @property
    def is_text(self) -> bool:
        """Whether it is text, else a whole number."""
        return self.name != "id"


@dataclass(frozen=True)
class Applied:
    """A function of a column, NULL where that is (but for coalesce).

    lower, upper: of ASCII letters only. length: in characters. substr: from a place counted from
    1, and so many characters or all. instr: the place of a text, from 1, or 0. coalesce: the
    text instead of NULL. %: the rest of a whole number, with its sign, by one that is not 0.
    """

    name: str
    of: Term
    arguments: tuple[int | str, ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether it gives text, else a whole number."""
        return self.name in ("lower", "upper", "substr", "coalesce")


Term = Column | Applied


@dataclass(frozen=True)
class Always:
    """Holds for every item, or for none."""

    holds: bool


@dataclass(frozen=True)
class AllOf:
    """Holds where each of two or more parts does."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of two or more parts does."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Missing:
    """Holds where the term is NULL, or where it is not."""

    term: Term
    negated: bool = False


@dataclass(frozen=True)
class Compared:
    """Holds where both sides are there and compare so. operator: =, <>, <, <=, > or >=.

    value: of the term's own type, a text or a whole number of 64 bits, or a term.
    """

    term: Term
    operator: str
    value: int | str | Term


@dataclass(frozen=True)
class Among:
    """Holds where the term is there and is one of the values of its type, or none of them."""

    term: Term
    values: tuple[int, ...] | tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class AnyText:
    """A place in a pattern: one character, or with `run` any number of them, also none."""

    run: bool = False


@dataclass(frozen=True)
class Like:
    """Holds where the text is there and matches the pattern as a whole, or does not match it.

    pattern: texts and what may be anything. ignores_case: of ASCII letters only.
    """

    term: Term
    pattern: tuple[str | AnyText, ...]
    ignores_case: bool
    negated: bool = False


Node = Always | AllOf | AnyOf | Missing | Compared | Among | Like
ALL, NONE = Always(True), Always(False)


def all_of(*parts: Node) -> Node:
    """Return what holds where all parts do, without those that say nothing."""
    return _joined(AllOf, NONE, ALL, parts)


def any_of(*parts: Node) -> Node:
    """Return what holds where one of the parts does, without those that say nothing."""
    return _joined(AnyOf, ALL, NONE, parts)


def _joined(
    join: type[AllOf] | type[AnyOf], decides: Always, idle: Always, parts: tuple[Node, ...]
) -> Node:
    if decides in parts:
        return decides
    left = tuple(part for part in parts if part != idle)
    if len(left) < 2:
        return left[0] if left else idle
    return join(left)


def there(term: Term) -> Node:
    """Return what holds where a term is not NULL."""
    return ALL if never_missing(term) else Missing(term, negated=True)


def missing(term: Term) -> Node:
    """Return what holds where a term is NULL."""
    return NONE if never_missing(term) else Missing(term)


def never_missing(term: Term) -> bool:
    """Return whether a term is NULL for no item."""
    if isinstance(term, Column):
        return term.name in ("id", "time")
    return term.name == "coalesce" or never_missing(term.of)
