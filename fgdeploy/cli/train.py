"""`fgdeploy train`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import show
from fgdeploy.errors import MissingDependency

if TYPE_CHECKING:
    from fgdeploy.training.trainer import Reporter, Trained


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of classes, a CSV (path,class,split), or an unpacked CUB-200-2011, "
            "Stanford Cars, NABirds, VegFru, Food-101 or iNat2017."
        ),
    ],
    method: Annotated[str, typer.Option(help="The method: eet.")] = "eet",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder to write. Default: METHOD-run."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="fast (small budgets) or paper (as published, 90 epochs).")
    ] = "fast",
    backbone: Annotated[
        str | None,
        typer.Option(help="A timm ViT or DeiT. Default: told from --weights, else the method's."),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(help="Start from: a checkpoint's path, pretrained (timm's hub) or random."),
    ] = "pretrained",
    bits: Annotated[int, typer.Option(help="Bits of a code, 8 to 512.")] = 64,
    image_size: Annotated[int | None, typer.Option(help="Input side in pixels.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="BLOCK:TOKENS pairs as in export, or none for dense.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the photos.")] = None,
    batch: Annotated[int | None, typer.Option(help="Photos per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps of linear warm-up.")] = None,
    holdout: Annotated[
        float, typer.Option(help="Part of each class to evaluate with, where DATA has no splits.")
    ] = 0.2,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Learn from this trained network, frozen (a run's teacher.safetensors)."),
    ] = None,
    without: Annotated[
        str,
        typer.Option(help="Parts to leave out: ctp,dkt,drg (paper) or ctp,codes,start (fast)."),
    ] = "",
    transposed_mask: Annotated[
        bool,
        typer.Option("--transposed-mask", help="Region guidance as the authors' code masks it."),
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (CUDA).")] = "auto",
    eval_photos: Annotated[
        int, typer.Option(help="Most test photos after each epoch; the end takes all.")
    ] = 1000,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode. Default: 0 on a CPU, 8 for a GPU.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; same outcome.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of that name.")
    ] = False,
    strict: show.StrictOption = False,
    as_json: show.JsonOption = False,
) -> None:
    """Train a method on labelled photos and evaluate it; export --checkpoint takes the result."""
    from fgdeploy.models.stages import parse

    stage_list = None if stages is None else parse(stages)
    try:
        from fgdeploy.training.settings import TrainSettings
        from fgdeploy.training.trainer import train as run
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "train", "training") from None
    settings = TrainSettings(
        data=data,
        method=method,
        recipe=recipe,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        stages=stage_list,
        bits=bits,
        epochs=epochs,
        batch=batch,
        lr=lr,
        warmup=warmup,
        holdout=holdout,
        without=frozenset(name.strip() for name in without.split(",") if name.strip()),
        transposed_mask=transposed_mask,
        teacher=teacher,
        precision=precision,
        eval_photos=eval_photos,
        workers=workers,
        strict=strict,
        seed=seed,
    )
    folder = Path(f"{method}-run") if output is None else output
    try:
        with bars() as reporter:
            done = run(settings, folder, resume, overwrite, reporter)
    except KeyboardInterrupt:
        if (folder / "state.pt").is_file():
            show.say(f"the state is kept in {folder}; go on with the same command and --resume")
        raise
    _report(done, folder, as_json)


@contextlib.contextmanager
def bars() -> Iterator[Reporter]:
    """Give a reporter that draws rich progress bars on a terminal, and plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from fgdeploy.training.trainer import Reporter

    console = Console(stderr=True, highlight=False, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as live:
        live.live.auto_refresh = console.is_terminal
        yield Reporter(
            notify=lambda message: console.print(show.plain(message), soft_wrap=True),
            progress=lambda label: _bar(live, label),
            tick=_Ticker(live).tick,
            epoch=lambda row: console.print(_epoch_line(row), soft_wrap=True),
        )


def _bar(live: Any, label: str) -> Any:
    import time

    task = live.add_task(label, total=None, facts="")
    start = time.monotonic()

    def update(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-9)
        live.update(task, completed=done, total=total, facts=f"{rate:.0f} images/s")
        if done >= total:
            live.remove_task(task)

    return update


class _Ticker:
    """One bar per epoch, with the loss and the speed of the last steps."""

    def __init__(self, live: Any) -> None:
        import time

        self._live, self._clock = live, time.monotonic
        self._task: Any = None
        self._epoch = 0
        self._last, self._rate = 0.0, 0.0

    def tick(self, tick: Any) -> None:
        now = self._clock()
        if tick.epoch != self._epoch:
            self._epoch, self._rate = tick.epoch, 0.0
            self._task = self._live.add_task(f"epoch {tick.epoch}", total=tick.steps, facts="")
        else:
            speed = tick.images / max(now - self._last, 1e-9)
            self._rate = speed if not self._rate else 0.8 * self._rate + 0.2 * speed
        self._last = now
        facts = f"{self._rate:.0f} images/s  loss {tick.loss:.3f}  lr {tick.lr:.1e}"
        self._live.update(self._task, completed=tick.step, facts=facts)
        if tick.step == tick.steps:
            self._live.remove_task(self._task)


def _epoch_line(row: dict[str, float]) -> str:
    known = {"map": "mAP", "recall_at_1": "R@1", "seconds": "s"}
    terms = [
        f"{known.get(name, name)} {value:.4g}"
        for name, value in row.items()
        if name not in ("epoch", "step", "lr")
    ]
    return f"epoch {row['epoch']}: " + "  ".join(terms)


def _report(done: Trained, folder: Path, as_json: bool) -> None:
    if as_json:
        show.emit_json(
            {"weights": str(done.weights), "scores": done.scores, "skipped": list(done.skipped)}
        )
    elif any(done.scores.values()):
        rows = [
            (
                network,
                protocol,
                f"{scores['map']:.4f}",
                f"{scores['tie_aware_map']:.4f}",
                *(f"{scores['recall'][k]:.4f}" for k in (1, 2, 4, 8)),
            )
            for network, protocols in done.scores.items()
            for protocol, scores in protocols.items()
        ]
        header = ("network", "protocol", "mAP", "ties averaged", "R@1", "R@2", "R@4", "R@8")
        typer.echo(show.table(rows, header))
    else:
        show.say("no photos were held out, so there are no scores; see --holdout")
    show.say(
        f"wrote {done.weights}; next: fgdeploy export --checkpoint {done.weights} -o "
        f"{folder.with_suffix('.fgd').name}"
    )
    show.report_skipped(list(done.skipped), told=True)
