"""Pieces of a page: every text that comes from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from fgdeploy.core.text import plain
from fgdeploy.report.stylesheet import STYLE

_FORBIDDEN = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def whole_page(title: str, head: str, inside: str) -> str:
    """Return a page as HTML. title: plain words; head: below it; inside: sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_FORBIDDEN}">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{text(title)}</h1>{head}</header>{_contents(inside)}{inside}"
        "</main></body></html>\n"
    )


def _contents(inside: str) -> str:
    found = re.findall(r'<section id="([a-z]+)"><h2>(.*?)</h2>', inside)
    items = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def text(value: object) -> str:
    """Return a value as text for a page: escaped, without control characters."""
    lines = str(value).encode("utf-8", "replace").decode("utf-8").split("\n")
    return "<br>".join(escape(plain(line), quote=True) for line in lines)


def section(name: str, title: str, *parts: str) -> str:
    """Return a part of the page under a heading; nothing where it would be empty."""
    inside = "".join(parts)
    if not inside:
        return ""
    return f'<section id="{name}"><h2>{text(title)}</h2>{inside}</section>'


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph of plain words."""
    return f"<p{_class(kind)}>{text(words)}</p>"


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """Return names and values."""
    cells = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows)
    return f"<dl>{cells}</dl>" if cells else ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], caption: str, names: int = 1
) -> str:
    """Return a table; the first `names` columns are texts, the others are numbers, to the right.

    A cell that is `Bar` is a share with a bar.
    """
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col"{_class("" if place < names else "n")}>{text(name)}</th>'
        for place, name in enumerate(header)
    )
    body = "".join(f"<tr>{_cells(row, names)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{text(caption)}</caption><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


class Bar:
    """A share from 0 to 1, shown as a number with a bar."""

    def __init__(self, share: float) -> None:
        self.share = min(1.0, max(0.0, share))

    def __str__(self) -> str:
        return f"{self.share:.4f}"


def _cells(row: Sequence[object], names: int) -> str:
    found = []
    for place, value in enumerate(row):
        if place == 0:
            found.append(f'<th scope="row">{text(value)}</th>')
        elif isinstance(value, Bar):
            width = f"{100 * value.share:.1f}%"
            found.append(
                f'<td class="n bar"><span style="width:{width}" aria-hidden="true"></span>'
                f"<b>{value}</b></td>"
            )
        else:
            found.append(f"<td{_class('' if place < names else 'n')}>{text(value)}</td>")
    return "".join(found)


def figure(picture: str, caption: str) -> str:
    """Return a plot with its caption; picture: an SVG."""
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
