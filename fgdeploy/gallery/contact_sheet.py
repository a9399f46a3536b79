"""Search results as one HTML file that needs nothing else: thumbnails are inside it."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path

from fgdeploy.core import atomic
from fgdeploy.core.errors import ImageError
from fgdeploy.core.text import counted
from fgdeploy.gallery import Query
from fgdeploy.photos.data_uri import jpeg_uri
from fgdeploy.photos.images import decode
from fgdeploy.retrieval import Hit

THUMBNAIL = 160
MOST_THUMBNAILS = 200  # of one query; answers behind them are listed as text

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fgdeploy search</title><style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fafafa }}
section {{ margin-bottom: 32px }}
.row {{ display: flex; flex-wrap: wrap; gap: 12px }}
figure {{ margin: 0; width: {size}px }}
figure.query img, figure.query .gone {{ outline: 3px solid #2563eb }}
figure.right img, figure.right .gone {{ outline: 3px solid #15803d }}
figure.wrong img, figure.wrong .gone {{ outline: 3px dashed #b91c1c }}
.right b {{ color: #15803d }}
.wrong b {{ color: #b91c1c }}
img, .gone {{ width: {size}px; height: {size}px; object-fit: cover; background: #ddd }}
img {{ display: block }}
.gone {{ display: flex; align-items: center; justify-content: center; color: #555 }}
figcaption {{ margin-top: 4px; overflow-wrap: anywhere }}
small {{ color: #666 }}
</style></head><body><h1>fgdeploy search</h1><p>{bits}-bit codes, ordered by {order}</p>
{body}
</body></html>
"""

# Whether an answer has the query's label -> the class of its frame, and what stands under it.
_MARKS = {True: ("right", "✓ correct"), False: ("wrong", "✗ incorrect"), None: ("", "")}


def write_contact_sheet(
    target: Path, answers: Sequence[tuple[Path | Query, Sequence[Hit]]], bits: int
) -> None:
    """Write queries and their hits with thumbnails, distances and labels, atomically.

    A query is a photo, or a Query; where its label is known, hits are framed as correct or not.
    """
    ranked = any(hit.cost is not None for _, hits in answers for hit in hits)
    page = _PAGE.format(
        size=THUMBNAIL,
        bits=bits,
        order="(cost, distance, id)" if ranked else "(distance, id)",
        body="\n".join(_section(_as_query(query), hits) for query, hits in answers),
    )
    # Names that are no UTF-8 are shown with question marks, rather than failing the whole page.
    atomic.write_text(target, page.encode("utf-8", "replace").decode("utf-8"))


def _as_query(query: Path | Query) -> Query:
    return query if isinstance(query, Query) else Query(str(query), photo=str(query))


def _section(query: Query, hits: Sequence[Hit]) -> str:
    verdicts = [_verdict(query, hit) for hit in hits]
    title = query.name if query.photo is None else Path(query.photo).name
    note = query.name if query.name.startswith("id ") else "query"
    figures = [_figure(query.photo, query.label or "", title, note, "query", "")]
    for hit, verdict in zip(hits[:MOST_THUMBNAILS], verdicts, strict=False):
        kind, mark = _MARKS[verdict]
        place = f"{hit.rank}. {_distance(hit)}"
        figures.append(_figure(hit.path, hit.label or "", place, _place(hit), kind, mark))
    return (
        f"<section>{_head(query, verdicts)}"
        f'<div class="row">{"".join(figures)}</div>{_rest(hits, verdicts)}</section>'
    )


def _verdict(query: Query, hit: Hit) -> bool | None:
    """Return whether a hit has the query's label; None where unknown, or where it is the query."""
    if query.label is None or hit.label is None:
        return None
    if query.photo is not None and os.path.abspath(query.photo) == hit.path:
        return None
    return hit.label == query.label


def _head(query: Query, verdicts: Sequence[bool | None]) -> str:
    known = [verdict for verdict in verdicts if verdict is not None]
    if not known:
        return ""
    label = html.escape(query.label or "")
    return f"<p>{label}: <b>{sum(known)} of {len(known)} correct</b></p>"


def _place(hit: Hit) -> str:
    return f"id {hit.id}" if hit.source is None else f"id {hit.source}:{hit.id}"


def _distance(hit: Hit) -> str:
    cost = "" if hit.cost is None else f", cost {hit.cost:.3f}"
    return f"distance {hit.distance}{cost}"


def _rest(hits: Sequence[Hit], verdicts: Sequence[bool | None]) -> str:
    if len(hits) <= MOST_THUMBNAILS:
        return ""
    lines = []
    for hit, verdict in zip(hits[MOST_THUMBNAILS:], verdicts[MOST_THUMBNAILS:], strict=True):
        facts = (_distance(hit), _place(hit), hit.label, hit.path, _MARKS[verdict][1])
        lines.append(f"<li>{html.escape(', '.join(fact for fact in facts if fact))}</li>")
    return (
        f"<p>The first {MOST_THUMBNAILS} of {counted(len(hits), 'answer')} have thumbnails; "
        "the others:</p>"
        f'<ol start="{MOST_THUMBNAILS + 1}">{"".join(lines)}</ol>'
    )


def _figure(path: str | None, label: str, title: str, note: str, kind: str, mark: str) -> str:
    name = "" if path is None else Path(path).name
    frame = f' class="{kind}"' if kind else ""
    verdict = f" <b>{mark}</b>" if mark else ""
    return (
        f"<figure{frame}>{_thumbnail(path)}<figcaption>{html.escape(title)}{verdict}<br>"
        f"{html.escape(label)}<br><small>{html.escape(note)} {html.escape(name)}</small>"
        "</figcaption></figure>"
    )


def _thumbnail(path: str | None) -> str:
    if path is None:
        return '<div class="gone">no photo</div>'
    if "://" in path:
        return '<div class="gone">not on this disk</div>'
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for ever
            raise ImageError("not a file")
        image = decode(path, shortest=2 * THUMBNAIL)
    except ImageError:
        known = "cannot be shown" if os.path.lexists(path) else "not there any more"
        return f'<div class="gone">{known}</div>'
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    name = html.escape(Path(path).name, quote=True)
    return f'<img alt="{name}" src="{jpeg_uri(image)}">'
