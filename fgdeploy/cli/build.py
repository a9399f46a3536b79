"""`fgdeploy build-engine`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import calibrate, lists, objects, show
from fgdeploy.core import numbers
from fgdeploy.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fgdeploy.photos import Columns
    from fgdeploy.proof.bench import Speed
    from fgdeploy.proof.building import Outcome
    from fgdeploy.proof.parity import Parity
    from fgdeploy.proof.proving import Proof


@lists.takes_list
def build_engine(
    bundle: objects.BundleArgument = None,
    int8: Annotated[bool, typer.Option("--int8", help="INT8; calibrates first if needed.")] = False,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="FP8 (TensorRT, GPUs from compute capability 8.9).")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="FP16, for GPUs.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="BF16 (CPUs, OpenVINO).")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Full FP32, compiled.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime, openvino, onnxruntime-cuda, tensorrt or tensorrt-rtx. "
            "Default: the fastest for this machine."
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Batch sizes to be fast at, with commas; the largest is the limit.")
    ] = "1,8",
    data: calibrate.DataOption = None,
    range_: calibrate.RangeOption = calibrate.DEFAULT_RANGE,
    images: calibrate.ImagesOption = 256,
    max_map_drop: calibrate.DropOption = None,
    min_bit_agreement: calibrate.BitsOption = None,
    again: calibrate.AgainOption = False,
    strict: show.StrictOption = False,
    workspace_mib: Annotated[
        int | None, typer.Option(min=1, help="TensorRT: most GPU memory for workspace, in MiB.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="TensorRT: a file that makes the next build faster.")
    ] = None,
    compute_capability: Annotated[
        str, typer.Option(help="tensorrt-rtx: GPUs elsewhere to compile for, such as 8.6,8.9.")
    ] = "",
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT: for all Ampere and newer GPUs.")
    ] = False,
    dla: Annotated[bool, typer.Option("--dla", help="Not possible; says why.")] = False,
    threads: show.ThreadsOption = None,
    timed: Annotated[
        bool, typer.Option("--time/--no-time", help="Measure against fp32 and half precision.")
    ] = True,
    seed: calibrate.SeedOption = 0,
    as_json: show.JsonOption = False,
    method: calibrate.OldRangeOption = None,
    max_drop: calibrate.OldDropOption = None,
    old_bundle: objects.OldBundleOption = None,
    *,
    columns: Columns,
) -> None:
    """Compile an engine for this machine, hold it to fp32, and say whether it is worth it."""
    from fgdeploy.cli.bars import bars
    from fgdeploy.engines.build_settings import BuildSettings
    from fgdeploy.proof.preparing import build_engine as build

    flags = {"int8": int8, "fp8": fp8, "fp16": fp16, "bf16": bf16, "fp32": fp32}
    chosen = [flag for flag, given in flags.items() if given]
    if len(chosen) != 1:
        raise UsageError(
            f"choose one of --int8, --fp8, --fp16, --bf16 and --fp32, got {len(chosen)}"
        )
    precision = chosen[0]
    settings = BuildSettings(
        batches=numbers.wholes(batch, "--batch", least=1),
        workspace_mib=workspace_mib,
        timing_cache=timing_cache,
        compute_capabilities=tuple(
            compute_capability.replace(" ", "").split(",") if compute_capability else ()
        ),
        hardware_compatible=hardware_compatible,
        dla=dla,
        threads=threads,
    )
    name = objects.bundle_of(bundle, old_bundle)
    calibration = calibrate.settings_of(range_, method, images, True, True, seed)
    limits = calibrate.limits(max_map_drop, max_drop, min_bit_agreement)
    with bars() as shown:
        done = build(
            name,
            precision,
            photos=data,
            backend=backend,
            settings=settings,
            calibration=calibration,
            limits=limits,
            again=again,
            timed=timed,
            notify=shown.say,
            bars=shown.make,
            columns=columns,
            strict=strict,
        )
    if as_json:
        show.emit_json(_json(done))
    else:
        _print(done)
    show.say(f"next: fgdeploy hash PHOTOS --bundle {name}")
    show.report_skipped(done.skipped)


def _print(done: Outcome) -> None:
    record = done.built.record
    assert record is not None
    show.line(f"built {done.built.folder} ({record.bytes / 1e6:.1f} MB): {done.reason}")
    for name, why in done.refused.items():
        show.line(f"left out: {name}: {why}")
    if done.proof is not None and done.proof.parity is not None:
        _print_proof(done.proof, done.proof.parity)
    if done.speeds:
        show.rows(*speed_table(done.speeds, {done.name: record.bytes}))
    if done.verdict:
        show.line(done.verdict)
    if done.default is not None:
        show.line("runs by default: {}, {}".format(*done.default))


def _print_proof(proof: Proof, parity: Parity) -> None:
    show.line(f"against fp32: {show.parity_line(parity)}")
    show.line(f"photos: {proof.variety.words()}")
    show.line(f"limits: {proof.used.words()}")
    if same := proof.int8:
        show.line(
            f"against the calibrated INT8: {same.bit_agreement:.2%} of bits, "
            f"{same.identical_codes:.1%} of codes equal; limit "
            f"{100 * same.min_bit_agreement:.4g} % of bits, never widened"
        )


def speed_table(
    speeds: Sequence[Speed], sizes: dict[str, int]
) -> tuple[list[list[str]], list[str]]:
    """Return medians, percentiles, throughput, size and memory: rows and their header."""
    batches = [one.batch for one in speeds[0].latencies]
    header = ["engine"]
    for batch in batches:
        header += [f"p50 ms, batch {batch}", "p95", "images/s"]
    header += ["engine MB", "peak MiB"]
    rows = []
    for speed in speeds:
        row: list[str] = [speed.name]
        for one in speed.latencies:
            row += [f"{one.p50_ms:.2f}", f"{one.p95_ms:.2f}", f"{one.images_per_s:.1f}"]
        size = f"{sizes[speed.name] / 1e6:.1f}" if speed.name in sizes else "-"
        rows.append([*row, size, f"{speed.peak_mib:.0f}"])
    return rows, header


def _json(done: Outcome) -> dict[str, object]:
    record = done.built.record
    return {
        "engine": str(done.built.folder),
        "name": done.name,
        "bytes": record.bytes if record else None,
        "reason": done.reason,
        "refused": done.refused,
        "parity": dataclasses.asdict(done.proof.parity)
        if done.proof and done.proof.parity
        else None,
        "limits": done.proof.limits.to_json() if done.proof else None,
        "limits_why": done.proof.why if done.proof else None,
        "variety": dataclasses.asdict(done.proof.variety) if done.proof else None,
        "int8_codes": dataclasses.asdict(done.proof.int8)
        if done.proof and done.proof.int8
        else None,
        "speeds": {speed.name: speed.to_json() for speed in done.speeds},
        "verdict": done.verdict,
        "default": done.default[0] if done.default else None,
        "default_why": done.default[1] if done.default else None,
    }
