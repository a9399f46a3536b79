"""`fgdeploy deepstream`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import objects, show


def deepstream(
    bundle: objects.BundleArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path(
        "deepstream"
    ),
    precision: Annotated[str, typer.Option(help="The bundle's graph: fp32, fp16, int8.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Frames in one run, of all streams.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a folder that this command wrote.")
    ] = False,
    as_json: show.JsonOption = False,
) -> None:
    """Write a graph and a configuration for DeepStream's nvinfer; untested on hardware."""
    from fgdeploy.bundle import open_bundle
    from fgdeploy.triton import write_deepstream

    source = open_bundle(objects.bundle_of(bundle, None))
    written = write_deepstream(source, output, precision, batch, overwrite)
    if as_json:
        show.emit_json({**dataclasses.asdict(written), "path": str(written.path)})
    else:
        show.rows([(file, f"{size:,}") for file, size in written.files.items()], ("file", "bytes"))
    show.say(f"wrote {written.path}, untested on hardware; next: read {written.path}/README.md")
