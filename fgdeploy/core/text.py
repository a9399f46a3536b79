"""Texts that people read: one line, of a bearable length, with the right plural."""

from __future__ import annotations

LONGEST = 1000  # characters of a message
VALUE = 80  # characters of a value that it quotes

_IRREGULAR = {
    "class": "classes",
    "copy": "copies",
    "entry": "entries",
    "index": "indexes",
    "place of photos": "places of photos",
    "query": "queries",
}


def is_utf8(*names: str | None) -> bool:
    try:
        "".join(name or "" for name in names).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """Return `text` without control characters, which a file name may hold to paint a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, most: int = LONGEST) -> str:
    """Return `text`, its middle left out where it has more than `most` characters.

    A message begins with what failed and ends with what to do, and what it quotes stands between.
    """
    if len(text) <= most:
        return text
    start = most * 2 // 3
    end = most - start
    return f"{text[:start]}... ({len(text) - most:,} characters left out) ...{text[-end:]}"


def shown(value: object, most: int = VALUE) -> str:
    """Return a value of any type as text that a message may quote; see `shorten`."""
    try:
        return shorten(str(value), most)
    except ValueError:  # Python writes no whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def one_line(text: str, most: int = LONGEST) -> str:
    """Return `text` as one plain line of about `most` characters at most."""
    return shorten(plain(" ".join(text.split())), most)


def counted(number: int, what: str) -> str:
    """Return a number with its noun, as in "1 photo" and "1,200 photos".

    what: the noun for one, of which the last word changes: "gallery item".
    """
    return f"{number:,} {what if number == 1 else plural(what)}"


def plural(what: str) -> str:
    """Return the noun for several: "photos" for "photo", "queries" for "query"."""
    before, space, noun = ("", "", what) if what in _IRREGULAR else what.rpartition(" ")
    return f"{before}{space}{_IRREGULAR.get(noun, f'{noun}s')}"
