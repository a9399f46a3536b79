"""`fgdeploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdeploy.cli import lists, objects, show
from fgdeploy.core import numbers

if TYPE_CHECKING:
    from fgdeploy.photos import Columns
    from fgdeploy.proof.machine_peaks import Peaks
    from fgdeploy.proof.scoreboard import Line, Scoreboard


@lists.takes_list
def bench(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundles, ONNX files, engines in a bundle. Default: the one *.fgd in this folder.",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="BACKEND[:PRECISION] to time in each bundle; more with more --engine. "
            "Default: those that were built, or else the graphs that open directly.",
            metavar="NAME",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="timm, timm-compile, ort or openvino (a plain export of timm): the dense model "
            "without fgdeploy. Default: nothing.",
            metavar="NAME",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,8",
    threads: show.ThreadsOption = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="How often each takes its turn.")
    ] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.001, max=3600, help="For each batch size in each round.")
    ] = 1.0,
    base: Annotated[
        str | None,
        typer.Option(
            help="The contender that ratios are against, or part of its name. Default: the first.",
            metavar="NAME",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Photos to run, and to hold engines to fp32 with. Default: random frames."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw it: a .png or .svg; with --data accuracy over time. Default: no picture.",
            metavar="FILE",
        ),
    ] = None,
    peaks: Annotated[
        bool, typer.Option("--peaks/--no-peaks", help="Measure what the machine reaches, too.")
    ] = True,
    device: Annotated[
        str, typer.Option(help="cpu or cuda: where --against runs.", metavar="NAME")
    ] = "cpu",
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Time engines side by side: each in a process of its own, in turn, all calls counted.

    Ratios say how many times as fast as the base a contender is. "% of peak" is its share of what
    the same engine reaches in a product of big matrices. MACs are per image; MiB is the most memory
    that its process held.
    """
    from fgdeploy.cli.bars import bars
    from fgdeploy.photos import read, skipped_of
    from fgdeploy.proof import pareto
    from fgdeploy.proof.scoreboard import BenchSettings, run_benchmark

    settings = BenchSettings(
        batches=numbers.wholes(batch, "--batch", least=1),
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        base=base,
        peaks=peaks,
        device=device,
    )
    if plot is not None:
        pareto.check_plot(plot)
    photos = () if data is None else read(data, None, columns)
    with bars() as shown:
        board = run_benchmark(
            sources or [objects.bundle_of(None, None)],
            engine or (),
            against or (),
            settings,
            photos,
            notify=shown.say,
            bars=shown.make,
        )
    if plot is not None:
        pareto.draw(board, plot)
        show.say(f"drew {plot}")
    if as_json:
        show.emit_json(board.to_json())
    else:
        _print(board)
    show.report_skipped(list(dict.fromkeys([*skipped_of(photos), *board.skipped])))


def _print(board: Scoreboard) -> None:
    header = ["contender", "batch", "p50 ms", "p90", "p95", "p99", "images/s", "ratio"]
    header += ["% of peak", "MACs", "MiB"]
    show.rows([_row(line) for line in board.lines], header)
    if board.accuracy:
        told = [(name, show.parity_line(one)) for name, one in board.accuracy.items()]
        show.rows(told, ("engine", "against fp32 of its bundle"), title="accuracy")
    show.line(f"ratio: against {board.base}")
    for one in board.measured():
        compiled = one.runs.endswith("torch.compile")
        notes = [f"compiled in {sum(one.first_s.values()):.0f} s"] if compiled else []
        for note in [*one.contender.notes, *notes]:
            show.line(f"{one.contender.name}: {note}")
    if board.peaks is not None:
        _print_peaks(board.peaks)
    for name, why in board.not_run.items():
        show.line(f"not run: {name}: {why}")


def _row(line: Line) -> list[str]:
    calls, macs = line.calls, line.measured.contender.macs
    took = [f"{calls.percentile(part):.2f}" for part in (50, 90, 95, 99)]
    ratio = "-" if line.ratio is None else f"{line.ratio:.2f}"
    peak = "-" if line.of_peak is None else f"{100 * line.of_peak:.0f}"
    counted = "-" if macs is None else show.macs(macs)
    rest = [f"{calls.images_per_s:.1f}", ratio, peak, counted, f"{line.measured.peak_mib:.0f}"]
    return [line.measured.contender.name, str(calls.batch), *took, *rest]


def _print_peaks(peaks: Peaks) -> None:
    rates = ", ".join(f"{name} {show.macs(round(rate))}" for name, rate in peaks.macs_per_s.items())
    copied = peaks.bytes_per_s
    memory = "" if copied is None else f"; memory {copied / 1e9:.1f} GB/s"
    show.line(f"this machine at best, MACs per second: {rates}{memory}")
    for name, why in peaks.failed.items():
        show.line(f"peak not known: {name}: {why}")
