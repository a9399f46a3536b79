"""`fgdeploy index push`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from fgdeploy.cli import objects, show
from fgdeploy.core.text import counted


def push(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="The server: milvus://HOST/COLLECTION or postgresql://HOST/DATABASE.",
            metavar="ADDRESS",
        ),
    ],
    gallery: objects.IndexArgument = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            max=100_000,
            help="Items in one call. Default: as suits the server.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="First remove the index that is there, of any model, with all items."
        ),
    ] = False,
) -> None:
    """Make a server's gallery equal to the index: only what changed since is sent.

    After any end the same command goes on. Items that the index no longer has are removed there.
    """
    from fgdeploy.remote.adapters import table_at
    from fgdeploy.remote.pushing import push as push_items
    from fgdeploy.retrieval import Index

    gallery = objects.index_of(gallery)
    with Index.open(gallery) as index, table_at(to) as table:
        done = push_items(
            index, table, batch=batch, replace=replace, progress=show.progress("pushing")
        )
        show.say(
            f"pushed {gallery} to {table.name}: {counted(done.items, 'item')} there, "
            f"{done.sent:,} sent, {done.removed:,} removed, codes as {done.form}; next: fgdeploy "
            f"search PHOTO --index {shlex.quote(table.name)}"
        )
