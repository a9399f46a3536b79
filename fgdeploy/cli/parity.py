"""`fgdeploy parity`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.bundle import Bundle
    from fgdeploy.photos import Columns, Photo


@lists.takes_list
def parity(
    first: objects.BundleArgument = None,
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder, an image, or a CSV. Default: the only ones in this folder.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="BACKEND[:PRECISION], or pytorch (needs --checkpoint). Default: the first in fp32."
        ),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="BACKEND[:PRECISION]. Default: the next that can run here.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="For pytorch: the checkpoint the bundle was exported from.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Most photos to compare, spread over classes.")
    ] = 256,
    max_hash_diff: Annotated[
        float | None, typer.Option(help="Limit: largest |hash difference|. Default: the bundle's.")
    ] = None,
    min_bit_agreement: Annotated[
        float | None,
        typer.Option(help="Limit: share of equal bits, 0 to 1. Default: the bundle's."),
    ] = None,
    min_identical: Annotated[
        float | None,
        typer.Option(help="Limit: share of identical codes, 0 to 1. Default: the bundle's."),
    ] = None,
    min_top10: Annotated[
        float | None,
        typer.Option(help="Limit: overlap of the ten nearest, 0 to 1. Default: the bundle's."),
    ] = None,
    max_map_drop: Annotated[
        float | None,
        typer.Option(
            help="Limit: loss of mAP in points of 100, with labels. Default: the bundle's."
        ),
    ] = None,
    max_output_error: Annotated[
        float | None,
        typer.Option(help="Limit: mean error of each further output. Default: the bundle's."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the result into the bundle's manifest.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--bisect", help="Show what each INT8 layer alone does to the hash.")
    ] = False,
    strict: show.StrictOption = False,
    as_json: show.JsonOption = False,
    data: Annotated[Path | None, typer.Option("--data", hidden=True)] = None,
    old_bundle: objects.OldBundleOption = None,
    *,
    columns: Columns,
) -> None:
    """Compare two engines on the same photos; exit 1 if a limit is not kept.

    Limits are those of building: fp32's lie in the bundle's manifest, INT8's in its calibration.
    An option replaces the one it names. Photos that look alike count once. PHOTOS may come first,
    or alone where one bundle lies in this folder.
    """
    from fgdeploy.bundle import open_bundle
    from fgdeploy.core.errors import ParityError
    from fgdeploy.photos import named_or_found, skipped_of, spread
    from fgdeploy.proof.comparing import (
        choose_candidate,
        choose_reference,
        compare_engines,
        limits_for,
        open_by_name,
    )
    from fgdeploy.proof.parity import Limits
    from fgdeploy.proof.preparing import own_photos

    words = [word for word in (first, second) if word is not None]
    bundle, source = objects.bundle_and_photos(words, old_bundle, data)
    opened = open_bundle(bundle)
    listed = named_or_found(source, "to compare on", show.say, own_photos(opened), columns, strict)
    photos, left_out = spread(listed, images), skipped_of(listed)
    if layers:
        _bisect(opened, photos, left_out, as_json)
        return
    flags = Limits(
        max_hash_diff, min_bit_agreement, min_identical, min_top10, max_map_drop, max_output_error
    )
    reference = reference or choose_reference()
    name = candidate or choose_candidate(reference)
    with (
        open_by_name(opened, reference, checkpoint) as left,
        open_by_name(opened, name, checkpoint) as right,
    ):
        found = compare_engines(opened, left, right, photos, strict, show.progress("comparing"))
        used = limits_for(opened, found.parity.photos, left, right)
    result, named = found.parity, flags.to_json()
    limits = Limits.from_json({**used.limits.to_json(), **named})
    why = used.why + (f"; as asked for: {', '.join(named)}" if named else "")
    for warning in found.warnings:
        show.say(warning)
    unmeasured = result.unmeasured(limits)
    broken = result.breaches(limits)
    broken += [f"{limit} cannot be measured here" for limit in result.unmeasured(flags)]
    entry = {"reference": reference, "candidate": name, **dataclasses.asdict(result)}
    if record:
        opened.record_parity(entry)
    if as_json:
        show.emit_json(
            {
                **entry,
                "variety": dataclasses.asdict(found.variety),
                "limits": limits.to_json(),
                "limits_why": why,
                "unmeasured": unmeasured,
                "breaches": broken,
                "warnings": list(found.warnings),
            }
        )
    else:
        show.line(f"{name} against {reference} on {counted(result.photos, 'photo')}")
        show.rows([("photos", found.variety.words()), *_rows(entry)])
        show.line(f"limits: {limits.words()}: {why}")
    if broken:
        raise ParityError(
            f"{name} does not keep to {reference}: {'; '.join(broken)} (limits: {why})"
        )
    show.say("within the limits: " + ", ".join(f"{k}={v:g}" for k, v in limits.to_json().items()))
    if unmeasured:
        show.say(f"not measured (too few photos, or no labels): {', '.join(unmeasured)}")
    show.report_skipped([*left_out, *found.skipped])


def _bisect(opened: Bundle, photos: Sequence[Photo], skipped: list[str], as_json: bool) -> None:
    from fgdeploy.cli.bars import bars
    from fgdeploy.proof.comparing import bisect

    with bars() as shown:
        found = bisect(opened, photos, skipped, shown.make("measuring each layer"))
    if as_json:
        show.emit_json([dataclasses.asdict(one) for one in found])
    else:
        rows = [
            (
                one.layer,
                one.size,
                "int8" if one.int8 else "float",
                "-" if one.hash_error is None else f"{one.hash_error:.3%}",
                "-" if one.bits_changed is None else f"{one.bits_changed:.3%}",
            )
            for one in found
        ]
        header = ("layer", "K x N", "is", "hash error, alone in INT8", "bits changed")
        show.rows(rows, header)
    show.report_skipped(skipped)


_WORDS = {
    "max_hash_diff": ("max |hash difference|", "{:.2e}"),
    "mean_hash_diff": ("mean |hash difference|", "{:.2e}"),
    "mean_cosine": ("cosine, mean", "{:.7f}"),
    "min_cosine": ("cosine, lowest", "{:.7f}"),
    "bit_agreement": ("equal bits", "{:.3%}"),
    "identical_codes": ("identical codes", "{:.2%}"),
    "top10_overlap": ("top-10 overlap", "{:.2%}"),
    "map_reference": ("mAP, reference", "{:.4f}"),
    "map_candidate": ("mAP, candidate", "{:.4f}"),
    "map_drop": ("mAP drop, points", "{:+.3f}"),
    "top1_agreement": ("same best class", "{:.2%}"),
}


def _rows(entry: dict[str, Any]) -> list[tuple[str, str]]:
    known = [
        (words, form.format(entry[key]))
        for key, (words, form) in _WORDS.items()
        if entry[key] is not None
    ]
    errors: dict[str, float] = entry["output_errors"]
    return known + [(f"error of {name}, mean", f"{error:.2e}") for name, error in errors.items()]
