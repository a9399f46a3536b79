"""Explanations as one HTML file that needs nothing else: the pictures are inside it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from fgdeploy.core import atomic
from fgdeploy.explaining import panels
from fgdeploy.explaining.explanation import Explanation
from fgdeploy.photos.data_uri import jpeg_uri

_SHOWN, _STORED = 224, 336  # pixels of a picture on the page and in the file

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fgdeploy explain</title><style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fafafa }}
section {{ margin-bottom: 28px }}
h2 {{ font-size: 15px; margin: 0 0 8px; overflow-wrap: anywhere }}
.row {{ display: flex; flex-wrap: wrap; gap: 12px }}
figure {{ margin: 0; width: {size}px }}
img {{ display: block; width: {size}px; height: {size}px; background: #ddd }}
figcaption {{ margin-top: 4px; overflow-wrap: anywhere }}
</style></head><body><h1>fgdeploy explain</h1><p>{model}. {legend}</p>
{body}
</body></html>
"""


def write_page(target: Path, found: Iterable[tuple[Explanation, str | None]], model: str) -> None:
    """Write explanations, each with its label where that is known, atomically.

    model: in one line what looked.
    """
    sections, legend = [], dict[str, None]()
    for explanation, label in found:
        sections.append(_section(explanation, label))
        legend.update(dict.fromkeys(panels.shown_ways(explanation)))
    page = _PAGE.format(
        size=_SHOWN,
        model=html.escape(model[:1].upper() + model[1:]),
        legend=html.escape(" ".join(legend)),
        body="\n".join(sections),
    )
    # Names that are no UTF-8 are shown with question marks, rather than failing the whole page.
    atomic.write_text(target, page.encode("utf-8", "replace").decode("utf-8"))


def _section(explanation: Explanation, label: str | None) -> str:
    name = Path(explanation.name).name
    title = html.escape(name if label is None else f"{name}, {label}")
    figures = "".join(_figure(panel, name) for panel in panels.draw(explanation))
    return f'<section><h2>{title}</h2><div class="row">{figures}</div></section>'


def _figure(panel: panels.Panel, name: str) -> str:
    caption = html.escape(panel.caption)
    small = panel.image.resize((_STORED, _STORED), Image.Resampling.LANCZOS)
    alt = html.escape(f"{name}: {panel.caption}", quote=True)
    return (
        f'<figure><img alt="{alt}" src="{jpeg_uri(small)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
