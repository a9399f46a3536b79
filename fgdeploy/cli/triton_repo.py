"""`fgdeploy triton-repo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import objects, show


def triton_repo(
    bundle: objects.BundleArgument = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model repository, a folder.")
    ] = Path("repo"),
    backend: Annotated[
        str, typer.Option(help="onnxruntime, openvino or tensorrt.")
    ] = "onnxruntime",
    precision: Annotated[
        str, typer.Option(help="The bundle's graph: fp32, fp16, int8; or the engine's.")
    ] = "fp32",
    name: Annotated[
        str | None, typer.Option(help="The model's name. Default: the bundle's.")
    ] = None,
    version: Annotated[
        int, typer.Option(min=1, help="The model's version; others of that name stay.")
    ] = 1,
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="The most frames in one run. Default: what an engine was built for, or 8."
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, help="Copies of the model; on each GPU with --kind gpu.")
    ] = 1,
    kind: Annotated[
        str | None, typer.Option(help="cpu or gpu. Default: cpu; gpu for tensorrt.")
    ] = None,
    queue_delay_us: Annotated[
        int, typer.Option(help="Most microseconds that a request waits for others.")
    ] = 2000,
    engine: Annotated[
        str | None,
        typer.Option(help="The folder of a TensorRT engine. Default: the only one that fits."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace this version of the model.")
    ] = False,
    as_json: show.JsonOption = False,
) -> None:
    """Write a bundle into a model repository of NVIDIA Triton, with its configuration."""
    from fgdeploy.bundle import open_bundle
    from fgdeploy.triton import ServingSettings, write_repository

    settings = ServingSettings(
        backend=backend,
        kind=kind,
        precision=precision,
        name=name,
        max_batch=max_batch,
        instances=instances,
        queue_delay_us=queue_delay_us,
        version=version,
        engine=engine,
    )
    source = open_bundle(objects.bundle_of(bundle, None))
    written = write_repository(source, output, settings, overwrite)
    if as_json:
        show.emit_json({**dataclasses.asdict(written), "path": str(written.path)})
    else:
        show.rows([(file, f"{size:,}") for file, size in written.files.items()], ("file", "bytes"))
    for need in written.needs:
        show.say(f"needs {need}")
    show.say(f"wrote {written.path}; next: tritonserver --model-repository={output.resolve()}")
