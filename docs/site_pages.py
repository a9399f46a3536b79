"""What the site consists of, and links that lead out of `docs/`: a hook of MkDocs.

Pages and their order are those of the tables in docs/README.md.

Pages are written for the repository, where `../benchmarks/README.md` is a link to a page and
`../examples/camera_app.py` one to a file. On the site the first leads to the page's own place, the
second to the repository where its address is known (FGDEPLOY_REPOSITORY), and is plain text
otherwise. A link to what is not there ends the build.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Code, or a link: its text, its target.
_CODE_OR_LINK = re.compile(
    r"^```.*?^```$|^ {4}[^\n]*$|(?<!\[)`[^`\n]*`|(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
_SHIM = '"https://unpkg.com/iframe-worker/shim"'  # which the theme's plugin `offline` asks for
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def notebook_page(path: Path) -> str:
    """Return a notebook as a page: text as it is, code in fences."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    name = path.relative_to(ROOT).as_posix()
    parts.append(f"The notebook: [`{name}`]({path.name})")
    return "\n\n".join(parts) + "\n"


def included() -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Yield what the site has beside docs/: path in the repository, place on the site, its text."""
    pages = {
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "benchmarks/README.md": "benchmarks/README.md",
        "benchmarks/token-reductions.md": "benchmarks/token-reductions.md",
    }
    for source, place in pages.items():
        yield source, place, lambda path=ROOT / source: path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        source = path.relative_to(ROOT).as_posix()
        yield source, f"{source.removesuffix('.ipynb')}.md", lambda path=path: notebook_page(path)


def pages_of(index: str) -> list[Any]:
    """Return the navigation that the tables of docs/README.md are: a section for each table.

    A row whose first cell is no link is a section within. Links to folders are left out.
    """
    found: list[Any] = [{"Documentation": "README.md"}]
    for table in re.findall(r"(?:^\|.*\n)+", index, re.MULTILINE):
        head, _, *rows = table.splitlines()
        entries: list[Any] = []
        for row in rows:
            links = [
                {text: PLACES.get(posixpath.normpath(f"docs/{target}"), target)}
                for text, target in re.findall(r"\[([^\]]+)\]\(([^)]+\.(?:md|ipynb))\)", row)
            ]
            name = row.split("|")[1].strip()
            entries += links if name.startswith("[") or not links else [{name: links}]
        found.append({head.split("|")[1].strip().capitalize(): entries})
    return found


PLACES = {source: place for source, place, _ in included()}
_SOURCES = {place: source for source, place in PLACES.items()}


def on_config(config: Any) -> Any:
    """Take the navigation from docs/README.md."""
    config.nav = pages_of((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/."""
    for _, place, text in included():
        files.append(File.generated(config, place, content=text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn a page's links into those of the site."""
    place = page.file.src_uri
    return links_turned(markdown, place, config.repo_url)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Take what searches without a server from here, not from another host."""
    start = posixpath.dirname(page.file.src_uri) or "."
    return output.replace(_SHIM, f'"{posixpath.relpath("site_search.js", start)}"')


def on_post_template(output_content: str, template_name: str, config: Any) -> str:
    """Do so for the page that a server gives where nothing is."""
    return output_content.replace(_SHIM, '"/site_search.js"')


def links_turned(markdown: str, place: str, repository: str | None) -> str:
    """Return a page of the site with the site's links. Raises PluginError for one to nothing."""
    source = _SOURCES.get(place, f"docs/{place}")

    def turned(match: re.Match[str]) -> str:
        text, target = match.groups()
        if target is None or target.startswith("#") or _SCHEME.match(target):
            return match[0]
        path, mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path.startswith("../") or not (ROOT / path).exists():
            raise PluginError(f"{source}: a link leads to {target}, which is not there")
        inside = PLACES.get(path, path.removeprefix("docs/"))
        if (path in PLACES and source != path) or (path.startswith("docs/") and path != "docs"):
            start = posixpath.dirname(place)
            if not path.endswith(".py"):
                return f"[{text}]({posixpath.relpath(inside, start or '.')}{mark}{anchor})"
        if repository:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"[{text}]({repository.rstrip('/')}/{kind}/main/{path}{mark}{anchor})"
        return text if path in text else f"{text} (`{path}`)"

    return _CODE_OR_LINK.sub(turned, markdown)
