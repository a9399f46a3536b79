"""`fgdeploy search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show

if TYPE_CHECKING:
    from fgdeploy.gallery import Query, QuerySettings
    from fgdeploy.gallery.searchable import Searchable
    from fgdeploy.retrieval import Hit

DEFAULT_K = 10
RERANK = {"asymmetric": "real-valued hashes", "embedding": "embeddings"}  # way -> what it needs


def search(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="QUERY", help="Photos to find the like of."),
    ] = None,
    galleries: Annotated[
        list[str] | None,
        typer.Option(
            "--index",
            "-i",
            help="The index, or an address it was pushed to; given again, several indexes of one "
            "model are searched as one. Default: the one *.fgi in this folder, or the one of the "
            "bundle.",
            metavar="INDEX",
        ),
    ] = None,
    bundle: objects.SearchedBundleOption = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            help="Query: this item of the index, for what is like it; INDEX:ID where several have "
            "it.",
            metavar="ID",
        ),
    ] = None,
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="Query: this code.", metavar="HEX")
    ] = None,
    code_file: Annotated[
        Path | None, typer.Option("--codes", help="Queries: all codes of a file, NAME.npz.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help=f"How many answers. Default: {DEFAULT_K}.")
    ] = None,
    radius: Annotated[
        int | None, typer.Option(help="Instead of -k: all answers within so many bits.")
    ] = None,
    where: show.WhereOption = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            help="Order the nearest codes anew. asymmetric: by the photo's real-valued hash. "
            "embedding: by cosine, with embeddings that the index keeps.",
            metavar="WAY",
        ),
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(min=1, help="How many codes --rerank orders. Default: 10 times -k."),
    ] = None,
    exclude_self: Annotated[
        bool,
        typer.Option(
            "--exclude-self", help="A photo that is in the index, by path or content, is no answer."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each query.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet to this file.")] = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    fallback: show.FallbackOption = False,
    bit_depth: lists.BitDepthOption = None,
) -> None:
    """Rank the items of an index by Hamming distance to photos, items or codes."""
    from fgdeploy.core import numbers
    from fgdeploy.core.errors import UsageError
    from fgdeploy.gallery.gallery_opening import open_gallery

    others = bool(ids or codes or code_file)
    _check(bool(photos), others, k, radius, rerank, html)
    _check_pool(pool, rerank, k)
    for name in ids or []:
        numbers.whole(name.rpartition(":")[2], "--id")
    if exclude_self and not (photos or ids or code_file):
        raise UsageError("--exclude-self is for photos, and --code is none; leave it out")
    with ExitStack() as stack:
        names = objects.indexes_for(galleries or [], bundle)
        index = stack.enter_context(open_gallery(names))
        queries = _others(index, ids or [], codes or [], code_file, exclude_self)
        if photos:
            from fgdeploy.gallery import photo_queries

            bundle = objects.bundle_for(index, bundle)
            hasher = stack.enter_context(
                show.open_hasher(bundle, backend, threads, fallback, None, bit_depth)
            )
            queries = chain(photo_queries(index, hasher, photos, exclude_self), queries)
        settings = _settings(k, radius, where, rerank, pool, threads)
        _show(index, queries, settings, as_json, html)


def _check(
    photos: bool,
    others: bool,
    k: int | None,
    radius: int | None,
    rerank: str | None,
    html: Path | None,
) -> None:
    """Refuse what can never be right before anything is opened."""
    from fgdeploy.core.errors import UsageError

    if not photos and not others:
        raise UsageError("there is no query; give photos, --id, --code or --codes")
    if radius is not None and k is not None:
        raise UsageError(f"-k {k} and --radius {radius}: give one of the two")
    if rerank is not None:
        if rerank not in RERANK:
            raise UsageError(f"--rerank {rerank}: expected {' or '.join(RERANK)}")
        if others:
            raise UsageError(
                f"--rerank {rerank} needs {RERANK[rerank]}, which only photos have; "
                "leave out --id, --code and --codes"
            )
        if radius is not None:
            raise UsageError(f"--rerank {rerank} orders the -k nearest; leave out --radius")
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UsageError(f"--html {html}: expected a file name in a folder that exists")


def _check_pool(pool: int | None, rerank: str | None, k: int | None) -> None:
    from fgdeploy.core.errors import UsageError

    if pool is not None and rerank is None:
        raise UsageError(f"--pool {pool} is of --rerank; give both")
    if pool is not None and pool < (most := DEFAULT_K if k is None else k):
        raise UsageError(f"--pool {pool}: expected -k, {most}, or more")


def _settings(
    k: int | None,
    radius: int | None,
    where: str | None,
    rerank: str | None,
    pool: int | None,
    threads: int | None,
) -> QuerySettings:
    from fgdeploy.gallery import QuerySettings

    return QuerySettings(DEFAULT_K if k is None else k, radius, where, rerank, pool, threads)


def _others(
    index: Searchable,
    ids: Sequence[str],
    codes: Sequence[str],
    file: Path | None,
    exclude_self: bool,
) -> Iterator[Query]:
    """Return the queries that need no bundle, checked."""
    from fgdeploy.core.codes import CodeFile
    from fgdeploy.gallery import code_queries, file_queries, item_queries

    found = [*item_queries(index, ids), *code_queries(index, codes)]
    if file is None:
        return iter(found)
    loaded = CodeFile.load(file)
    index.require(loaded.fingerprint, loaded.bits)
    return chain(found, file_queries(index, loaded, exclude_self))


def _show(
    index: Searchable,
    queries: Iterator[Query],
    settings: QuerySettings,
    as_json: bool,
    html: Path | None,
) -> None:
    from fgdeploy.gallery import answer
    from fgdeploy.gallery.several import members_of

    answers = show.while_heard(answer(index, queries, settings))
    columns = _Columns(settings.rerank is not None, len(members_of(index)) > 1)
    if html is not None:
        _write_sheet(html, answers, index.bits, as_json)
    elif as_json:
        for query, hits in answers:
            show.emit_json(_as_json(query, hits))
    elif show.manner().csv:
        rows = ((query.name, *columns.of(hit)) for query, hits in answers for hit in hits)
        show.stream(rows, ("query", *columns.names))
    else:
        for query, hits in answers:
            show.line(query.name)
            show.rows([columns.of(hit) for hit in hits], columns.names, empty="nothing found")


@dataclasses.dataclass(frozen=True)
class _Columns:
    """What a table of hits shows beside rank, distance, id, label and path."""

    cost: bool
    source: bool

    @property
    def names(self) -> tuple[str, ...]:
        extra = (("cost",) if self.cost else ()), (("source",) if self.source else ())
        return ("rank", "distance", *extra[0], *extra[1], "id", "label", "path")

    def of(self, hit: Hit) -> tuple[object, ...]:
        cost = (f"{hit.cost:.3f}",) if self.cost and hit.cost is not None else ()
        source = (hit.source,) if self.source else ()
        return (hit.rank, hit.distance, *cost, *source, hit.id, hit.label or "", hit.path or "")


def _write_sheet(
    target: Path, answers: Iterable[tuple[Query, Sequence[Hit]]], bits: int, as_json: bool
) -> None:
    """Write a contact sheet, and print JSON beside it where that was asked for."""
    from fgdeploy.gallery.contact_sheet import write_contact_sheet

    sheet: list[tuple[Path | Query, Sequence[Hit]]] = []
    for query, hits in answers:
        sheet.append((query, hits))
        if as_json:
            show.emit_json(_as_json(query, hits))
    write_contact_sheet(target, sheet, bits)
    show.say(f"wrote {target}")


def _as_json(query: Query, hits: Sequence[Hit]) -> dict[str, Any]:
    label = {} if query.label is None else {"label": query.label}
    found = [dataclasses.asdict(hit) for hit in hits]
    for hit in found:
        for name in ("cost", "source"):
            if hit[name] is None:
                del hit[name]
    return {"query": query.name, **label, "hits": found}
