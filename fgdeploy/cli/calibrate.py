"""`fgdeploy calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.errors import UsageError

if TYPE_CHECKING:
    from fgdeploy.calibration.calibration_settings import CalibrationSettings
    from fgdeploy.calibration.calibrator import Calibrated
    from fgdeploy.photos import Columns
    from fgdeploy.proof.parity import Limits

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Photos: a folder or a CSV (its train split). Default: the only ones in this folder.",
    ),
]
DEFAULT_RANGE = "mse"
RangeOption = Annotated[
    str, typer.Option("--range", help="Range of INT8: mse, minmax, percentile or entropy.")
]
# What options were called before: they go on working, and help does not show them.
OldRangeOption = Annotated[str | None, typer.Option("--method", hidden=True)]
OldDropOption = Annotated[float | None, typer.Option("--max-drop", hidden=True)]
ImagesOption = Annotated[
    int,
    typer.Option("--images", min=1, help="Photos to calibrate on, spread over the classes."),
]
DropOption = Annotated[
    float | None,
    typer.Option(
        "--max-map-drop", help="Limit: loss of mAP in points of 100, with labels. Default: 0.5."
    ),
]
BitsOption = Annotated[
    float | None,
    typer.Option(
        "--min-bit-agreement",
        help="Limit: share of equal bits, 0 to 1. Default: 0.985, or 0.99 without labels.",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", max=2**32 - 1, help="Seed of the choice of photos.")
]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Calibrate anew, whatever the bundle holds.")
]


@lists.takes_list
def calibrate(
    bundle: objects.BundleArgument = None,
    data: DataOption = None,
    range_: RangeOption = DEFAULT_RANGE,
    images: ImagesOption = 256,
    max_map_drop: DropOption = None,
    min_bit_agreement: BitsOption = None,
    balance: Annotated[
        bool, typer.Option(help="Shift and scale channels so that one step fits them.")
    ] = True,
    compensate: Annotated[
        bool, typer.Option(help="Round weights so that errors cancel, and correct biases.")
    ] = True,
    fp8: Annotated[
        bool, typer.Option("--fp8", help="Write an FP8 graph too, for TensorRT.")
    ] = False,
    seed: SeedOption = 0,
    again: AgainOption = False,
    strict: show.StrictOption = False,
    as_json: show.JsonOption = False,
    method: OldRangeOption = None,
    max_drop: OldDropOption = None,
    old_bundle: objects.OldBundleOption = None,
    *,
    columns: Columns,
) -> None:
    """Write INT8 and FP16 graphs into a bundle, held to the limits against fp32."""
    from fgdeploy.cli.bars import bars
    from fgdeploy.proof.preparing import calibrate as calibrate_bundle

    name = objects.bundle_of(bundle, old_bundle)
    settings = settings_of(range_, method, images, balance, compensate, seed)
    kept = limits(max_map_drop, max_drop, min_bit_agreement)
    with bars() as shown:
        done = calibrate_bundle(
            name, data, settings, kept, again, shown.say, shown.make, columns, strict, fp8
        )
    if as_json:
        show.emit_json(_json(done))
    elif not done.reused:
        show.rows(_rows(done))
    if done.reused:
        show.say(f"{name} holds this very calibration already; --again makes it anew")
    show.say(f"next: fgdeploy build-engine {name} --int8")
    show.report_skipped(done.skipped)


def settings_of(
    range_: str, old_range: str | None, images: int, balance: bool, compensate: bool, seed: int
) -> CalibrationSettings:
    """Return the settings that flags mean."""
    from fgdeploy.calibration.calibration_settings import CalibrationSettings

    if old_range is not None and range_ not in (DEFAULT_RANGE, old_range):
        raise UsageError(f"--range {range_} and --method {old_range} name two; give --range alone")
    return CalibrationSettings(old_range or range_, images, balance, compensate, seed)


def limits(drop: float | None, old_drop: float | None, min_bits: float | None) -> Limits | None:
    """Return the limits that were named, None if none was."""
    from fgdeploy.proof.parity import Limits

    if drop is not None and old_drop is not None and drop != old_drop:
        raise UsageError(
            f"--max-map-drop {drop:g} and --max-drop {old_drop:g} name two limits; give "
            "--max-map-drop alone"
        )
    max_drop = old_drop if drop is None else drop
    if max_drop is None and min_bits is None:
        return None
    return Limits(max_map_drop=max_drop, min_bit_agreement=min_bits)


def _rows(done: Calibrated) -> list[tuple[str, str]]:
    assert done.int8 is not None and done.first is not None and done.fp16 is not None
    assert done.variety is not None
    record = done.record
    layers = sum(len(entry["readers"]) for entry in record.ranges.values())
    rows = [
        ("photos", f"{record.photos['count']} to calibrate on, {done.int8.photos} to check with"),
        ("that differ", f"{record.photos['different']}; of the checks: {done.variety.words()}"),
        ("range", _range(record.settings)),
        ("int8 layers", f"{layers} and the patch embedding"),
        ("limits", done.limits.words()),
        ("int8", show.parity_line(done.first)),
    ]
    if done.repair is not None:
        cost = done.repair.latency_ms
        rows += [
            ("back in float", ", ".join(record.in_float)),
            ("int8 then", show.parity_line(done.int8)),
            ("costs", "{:.1f} ms before, {:.1f} after: one frame, ONNX Runtime".format(*cost)),
        ]
    eight = [("fp8", show.parity_line(done.fp8))] if done.fp8 is not None else []
    return [*rows, ("fp16", show.parity_line(done.fp16)), *eight]


def _range(settings: object) -> str:
    assert isinstance(settings, dict)
    extras = [name for name in ("balance", "compensate") if settings[name]]
    return " + ".join([settings["range"], *extras])


def _json(done: Calibrated) -> dict[str, object]:
    import dataclasses

    def plain(value: object) -> object:
        return dataclasses.asdict(value) if value is not None else None  # type: ignore[call-overload]

    return {
        **done.record.summary(),
        "limits": done.limits.to_json(),
        "different": done.record.photos.get("different"),
        "variety": done.record.photos.get("checks"),
        "first": plain(done.first),
        "int8": plain(done.int8),
        "fp16": plain(done.fp16),
        "fp8": plain(done.fp8),
        "repair_latency_ms": done.repair.latency_ms if done.repair else None,
        "reused": done.reused,
        "skipped": list(done.skipped),
        "warnings": list(done.warnings),
    }
