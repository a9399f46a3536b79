"""Search results as one HTML file that needs nothing else: thumbnails are inside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from fgdeploy import atomic
from fgdeploy.errors import ImageError
from fgdeploy.images import decode
from fgdeploy.retrieval import Hit

THUMBNAIL = 160

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fgdeploy search</title><style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fafafa }}
section {{ margin-bottom: 32px }}
.row {{ display: flex; flex-wrap: wrap; gap: 12px }}
figure {{ margin: 0; width: {size}px }}
figure.query img {{ outline: 3px solid #2563eb }}
img, .gone {{ width: {size}px; height: {size}px; object-fit: cover; background: #ddd }}
img {{ display: block }}
.gone {{ display: flex; align-items: center; justify-content: center; color: #777 }}
figcaption {{ margin-top: 4px; overflow-wrap: anywhere }}
small {{ color: #666 }}
</style></head><body><h1>fgdeploy search</h1><p>{bits}-bit codes, ordered by (distance, id)</p>
{body}
</body></html>
"""


def write_contact_sheet(
    target: Path, answers: Sequence[tuple[Path, Sequence[Hit]]], bits: int
) -> None:
    """Write queries and their hits with thumbnails, distances and labels, atomically."""
    sections = []
    for query, hits in answers:
        figures = [_figure(query, "query", query.name, "query")]
        figures += [
            _figure(
                Path(hit.path or ""),
                hit.label or "",
                f"{hit.rank}. distance {hit.distance}",
                f"id {hit.id}",
            )
            for hit in hits
        ]
        sections.append(f'<section><div class="row">{"".join(figures)}</div></section>')
    page = _PAGE.format(size=THUMBNAIL, bits=bits, body="\n".join(sections))
    # Names that are no UTF-8 are shown with question marks, rather than failing the whole page.
    atomic.write_text(target, page.encode("utf-8", "replace").decode("utf-8"))


def _figure(path: Path, label: str, title: str, note: str) -> str:
    kind = ' class="query"' if note == "query" else ""
    return (
        f"<figure{kind}>{_thumbnail(path)}<figcaption>{html.escape(title)}<br>"
        f"{html.escape(label)}<br><small>{html.escape(note)} {html.escape(path.name)}</small>"
        "</figcaption></figure>"
    )


def _thumbnail(path: Path) -> str:
    try:
        image = decode(path, shortest=2 * THUMBNAIL)
    except ImageError:
        return '<div class="gone">not there any more</div>'
    image.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(path.name, quote=True)}" src="data:image/jpeg;base64,{data}">'
