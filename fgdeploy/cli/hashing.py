"""`fgdeploy hash`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.hash_to_file import FileRun
    from fgdeploy.photos import Columns

# bundle, backend, threads, fallback, batch, bit depth
_Opening = tuple[Path | None, str, int | None, bool, int | None, int | None]


@lists.takes_list
def hash_photos(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder, an image, a CSV (path,class,split); with --ray an address too.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "codes.npz"
    ),
    bundle: objects.BundleOption = None,
    backend: show.BackendOption = "auto",
    threads: show.ThreadsOption = None,
    batch: show.BatchOption = None,
    fallback: show.FallbackOption = False,
    strict: show.StrictOption = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew; drop what an interrupted run left.")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Hash on a Ray cluster, a worker for each core or GPU.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="With --ray: the cluster. Default: this machine's cores, for this run.",
        ),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(
            "--shard",
            min=1,
            help="With --ray: photos that are kept together as they are done. Default: 5000.",
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option("--actors", min=1, help="With --ray: workers. Default: all that fit."),
    ] = None,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Hash photos into an .npz file: codes, paths, labels, bits, fingerprint.

    A run that was interrupted goes on with the same command. With --ray the work is spread over
    a cluster (docs/spread.md), and photos may lie behind an address such as s3://bucket/folder.
    """
    from fgdeploy.core.errors import DataError

    if output.suffix != ".npz" or not output.parent.is_dir():
        raise DataError(f"-o {output}: expected a name ending in .npz in a folder that exists")
    cluster = {"address": ray_address, "shard": shard, "actors": actors}
    opening = (bundle, backend, threads, fallback, batch, columns.bit_depth)
    if ray:
        run = _on_ray(source, output, opening, cluster, columns, strict, again)
    else:
        _check_here(source, cluster)
        run = _here(Path(source), output, opening, columns, strict, again)
    _report(run, output, as_json)
    show.report_skipped(run.skipped)


def _here(
    source: Path, output: Path, opening: _Opening, columns: Columns, strict: bool, again: bool
) -> FileRun:
    from fgdeploy.hash_to_file import hash_to_file

    photos = lists.read(source, columns, strict=strict)
    with show.open_hasher(*opening) as hasher:
        shown = show.progress("hashing")
        return hash_to_file(hasher, photos, output, source, strict, again, shown, show.say)


def _on_ray(
    source: str,
    output: Path,
    opening: _Opening,
    cluster: dict[str, Any],
    columns: Columns,
    strict: bool,
    again: bool,
) -> FileRun:
    from fgdeploy.spread.ray_hashing import Spreading, hash_on_ray
    from fgdeploy.spread.stored_photos import is_address, list_store

    named, backend, threads, fallback, batch, bit_depth = opening
    given = {name: value for name, value in cluster.items() if value is not None}
    spreading = Spreading(
        **given,
        threads=threads,
        backend=backend,
        batch=batch,
        fallback=fallback,
        bit_depth=bit_depth,
    )
    path = objects.bundle_of(None, named, "name one with --bundle")
    shown = show.progress("hashing")
    rest = (spreading, strict, again, shown, show.say)
    if is_address(source):
        return hash_on_ray(path, list_store(source, strict), output, source, *rest)
    photos = lists.read(Path(source), columns, strict=strict)
    return hash_on_ray(path, photos, output, Path(source), *rest)


def _check_here(source: str, cluster: dict[str, Any]) -> None:
    """Raise UsageError for what means something with --ray alone."""
    from fgdeploy.core.errors import UsageError

    for name, value in cluster.items():
        if value is not None:
            option = "--ray-address" if name == "address" else f"--{name}"
            raise UsageError(f"{option} {value} is about a Ray cluster; add --ray, or leave it out")
    if "://" in source:
        raise UsageError(f"{source}: photos at an address are hashed with --ray; add it")


def _report(run: FileRun, output: Path, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "file": str(output),
        "photos": run.photos,
        "hashed_before": run.earlier,
        "skipped": len(run.skipped),
        "seconds": round(run.seconds, 3),
        "photos_per_s": round(run.per_second, 1),
        "bits": run.bits,
        "fingerprint": run.fingerprint,
        "engine": run.engine,
        **run.extras(),
    }
    if as_json:
        show.emit_json(facts)
    elif show.manner().csv:
        show.rows(list(facts.items()))
    before = f" ({run.earlier:,} before)" if run.earlier else ""
    lost = f", {counted(facts['workers_lost'], 'worker')} lost" if "workers_lost" in facts else ""
    show.say(
        f"hashed {counted(run.photos, 'photo')}{before} into {run.bits}-bit codes in "
        f"{output} with {run.engine}, {facts['photos_per_s']:,}/s, "
        f"{len(run.skipped):,} skipped{lost}; next: fgdeploy index import gallery.fgi {output}"
    )
