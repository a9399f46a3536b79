"""`fgdeploy serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import objects, show, signing
from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.hasher import Hasher
    from fgdeploy.retrieval import Index

KEY = "FGDEPLOY_API_KEY"


def serve(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="The bundle. Default: the one of the index, or the one *.fgd in this folder.",
            metavar="BUNDLE",
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            help="The index; it is made if it is not there. Default: the one *.fgi in this folder, "
            "or the one of the bundle, or none: then images are hashed only.",
            metavar="INDEX",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen at. Beyond this machine (0.0.0.0) an API key is needed.",
            metavar="HOST",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            help=f"A file with the API key that requests must carry. Default: {KEY} of the "
            "environment, or none.",
            metavar="FILE",
        ),
    ] = None,
    waiting: Annotated[
        int,
        typer.Option(min=1, max=10_000, help="Images that may wait for the engine; then 429."),
    ] = 32,
    max_upload: Annotated[
        float, typer.Option(min=0.001, max=2000, help="Megabytes of one image at most.")
    ] = 20.0,
    max_pixels: Annotated[
        float, typer.Option(min=0.001, max=178, help="Megapixels of one image at most.")
    ] = 50.0,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600, help="Seconds for a request to arrive, and to be answered."
        ),
    ] = 30.0,
    allow_where: Annotated[
        bool,
        typer.Option(
            "--allow-where", help="Let clients filter by SQL expressions; they cost CPU time."
        ),
    ] = False,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Serve no page at GET /, only the routes.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Let clients ask which patches the model kept: by the graph where it says so, "
            "else by the PyTorch model, which takes memory and CPU time.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="With --explain: what the bundle was exported from, for what its graph does not "
            "say.",
            metavar="FILE",
        ),
    ] = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    fallback: show.FallbackOption = False,
    batch: show.BatchOption = None,
    self_test: show.SelfTestOption = 10.0,
    verify_key: signing.VerifyKeyOption = None,
    keep_thumbnails: Annotated[
        bool,
        typer.Option(
            "--keep-thumbnails",
            help="Keep thumbnails of images that are added, which a later model can hash. "
            "Default: as the index does.",
        ),
    ] = False,
    log_json: show.LogJsonOption = False,
) -> None:
    """Answer over HTTP: hash images, search and add to an index, until SIGTERM or Ctrl-C.

    It listens at 127.0.0.1 unless told. GET / is a page to look at the gallery, GET /openapi.json
    describes all routes.
    """
    from fgdeploy.live.events import log_to_stderr
    from fgdeploy.serve.app import create_app
    from fgdeploy.serve.explainer import Explainer
    from fgdeploy.serve.http_server import address_of, bound, run
    from fgdeploy.serve.serve_settings import MEGABYTE, ServeSettings, hosts_of, key_for
    from fgdeploy.serve.service import Service

    if checkpoint is not None and not explain:
        raise UsageError(f"--checkpoint {checkpoint} is for --explain; give both or none")
    key = key_for(host, os.environ.get(KEY), api_key_file)
    settings = ServeSettings(
        waiting=waiting,
        upload_bytes=int(max_upload * MEGABYTE),
        image_pixels=int(max_pixels * 1e6),
        timeout_s=timeout,
        filters=allow_where,
        api_key=key,
        hosts=hosts_of(host),
        page=not no_page,
    )
    with bound(host, port) as listening:
        place = _gallery(gallery, bundle)

        def load(found: Path | None) -> Hasher:
            return show.open_hasher(
                found, backend, threads, fallback, batch, None, self_test or None, verify_key
            )

        hasher, index = (load(bundle), None) if place is None else _opened(place, bundle, load)
        explainer = Explainer.open(hasher, checkpoint) if explain else None
        with log_to_stderr(log_json), Service(hasher, index, settings, load, explainer) as service:
            if keep_thumbnails and index is not None:
                index.thumbnails.keep()
            said = f"{_in_words(hasher, index)} at {address_of(listening)}"
            run(create_app(service), listening, lambda: show.say(f"serving {said}; Ctrl-C ends it"))
        show.say("ended; all that was acknowledged is on the disk")


def _gallery(named: Path | None, bundle: Path | None) -> Path | None:
    """Return the index that is meant, None for none."""
    return objects.index_for(named, bundle) if named or objects.here("*.fgi") else None


def _opened(
    gallery: Path, bundle: Path | None, load: Callable[[Path | None], Hasher]
) -> tuple[Hasher, Index]:
    """Open an index and its bundle; an index that is not there is made."""
    from fgdeploy.retrieval import Index

    if not gallery.exists():
        hasher = load(bundle)
        index, made = Index.open_or_create(gallery, hasher.fingerprint, hasher.bits)
        index.remember_bundle(hasher.bundle.path)
        show.say(f"made {gallery}, which is empty" if made else f"opened {gallery}")
        return hasher, index
    index = Index.open(gallery)
    try:
        return load(objects.bundle_for(index, bundle)), index
    except BaseException:
        index.close()
        raise


def _in_words(hasher: Hasher, index: Index | None) -> str:
    gallery = "no index" if index is None else f"{index.path} ({counted(len(index), 'item')})"
    return f"{hasher.bundle.path} on {hasher.engine.describe()}, {gallery},"
