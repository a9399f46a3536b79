"""Which numbers may be the id of an item, and sets of them in little memory."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.retrieval.store.schema import MAX_ID


def id_of(value: object) -> int:
    """Return an id as an int. Raises UsageError for what is none, such as True, -1 or 2**63."""
    number = as_whole(value)
    if number is None or not 0 <= number <= MAX_ID:
        raise UsageError(f"id {shown(value)}: expected a whole number from 0 to {MAX_ID}")
    return number


def known_ids(values: Iterable[object]) -> list[int]:
    """Return ids that are looked for, as ints: of any size. Raises UsageError for other things."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise UsageError(f"expected ids in a list, got {shown(values)}; give [id]")
    numbers = [(value, as_whole(value)) for value in values]
    for value, number in numbers:
        if number is None:
            raise UsageError(f"id {shown(value)}: expected a whole number")
    return [number for _, number in numbers if number is not None]


def texts_of(what: str, given: Iterable[str]) -> set[str]:
    """Return keys in text that are looked for. Raises UsageError for other things."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise UsageError(f"expected {what} in a list, got {shown(given)}; give [one]")
    found = set(given)
    if strangers := [value for value in found if not isinstance(value, str)]:
        raise UsageError(f"expected {what} in text, got {type(strangers[0]).__name__}")
    return found


def automatic(start: int, taken: IdSet) -> Iterator[int]:
    """Yield ids from `start` on that are not `taken`. Raises IndexStoreError when none is left."""
    for number in range(start, MAX_ID + 1):
        if number not in taken:
            yield number
    raise IndexStoreError(f"no id is left after {MAX_ID}; give the items ids of your own")


class IdSet:
    """A set of ids: ranges of those that come in ascending order, as an export has them."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._first, self._last = array("q"), array("q")
        self._others: set[int] = set()
        for number in ids:
            self.add(number)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._first, number) - 1
        return number in self._others or (place >= 0 and number <= self._last[place])

    def add(self, number: int) -> bool:
        """Put an id in, and say whether it was there before."""
        if not self._last or number > self._last[-1]:
            if self._last and number == self._last[-1] + 1:
                self._last[-1] = number
            else:
                self._first.append(number)
                self._last.append(number)
            return False
        if number in self:
            return True
        self._others.add(number)
        return False
