"""`fgdeploy train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdeploy.cli import lists, method_options, show
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.cli.bars import TerminalBars
    from fgdeploy.photos import Columns
    from fgdeploy.training.fold_scores import FoldScores
    from fgdeploy.training.loop import Tick
    from fgdeploy.training.reached import Reached
    from fgdeploy.training.trainer import Trained


@lists.takes_list
def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of classes, a CSV (path,class,split), or an unpacked CUB-200-2011, "
            "Stanford Cars, NABirds, VegFru, Food-101 or iNat2017."
        ),
    ],
    method: Annotated[str | None, typer.Option(help="The method. Default: eet.")] = None,
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
    weights_key: method_options.WeightsKeyOption = None,
    rename: method_options.RenameOption = [],  # noqa: B006
    bits: Annotated[int, typer.Option(min=8, max=512, help="Bits of a code.")] = 64,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, max=8192, help="Input side in pixels. Default: the method's."),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            help="Middle part of the short side that is used, 0 to 1. Default: the method's."
        ),
    ] = None,
    least_area: Annotated[
        float | None,
        typer.Option(
            help="Least part of a photo's area in a training view, 0 to 1. Default: the recipe's."
        ),
    ] = None,
    chosen: method_options.SetOption = [],  # noqa: B006
    stages: method_options.StagesOption = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the photos. Default: the recipe's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Photos per step. Default: the recipe's.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate. Default: the recipe's.")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Steps of linear warm-up. Default: the recipe's.")
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Part of each class to evaluate with, where DATA has no splits. Default: 0.2."
        ),
    ] = None,
    holdout: Annotated[float | None, typer.Option(hidden=True)] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100,
            help="Train so many times, each photo held out once, then on all. Default: no folds.",
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Learn from this trained network, frozen (a run's teacher.safetensors)."),
    ] = None,
    without: Annotated[
        str,
        typer.Option(help="Parts to leave out: ctp,dkt,drg (paper) or ctp,codes,start (fast)."),
    ] = "",
    transposed_mask: method_options.MaskOption = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (CUDA).")] = "auto",
    eval_photos: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most test photos after each epoch; the end takes all. Default: a quarter of "
            "those that an epoch trains on, 100 to 1000.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(max=1024, help="Processes that decode. Default: 0 on a CPU, 8 for a GPU."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Where the objects are, for recipes that look at them: COCO JSON, or a CSV "
            "(path,x,y,width,height or path,x0,y0,x1,y1). Default: the dataset's own."
        ),
    ] = None,
    seed: show.SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run; same outcome.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of that name.")
    ] = False,
    strict: show.StrictOption = False,
    allow_leaks: lists.LeaksOption = False,
    as_json: show.JsonOption = False,
    *,
    columns: Columns,
) -> None:
    """Train a method on labelled photos and evaluate it; `export RUN` takes the result."""
    from fgdeploy.cli.bars import bars

    options = method_options.parse(chosen, stages, transposed_mask)
    try:
        from fgdeploy.models.methods import registry
        from fgdeploy.training.folds import train_folds
        from fgdeploy.training.train_settings import TrainSettings
        from fgdeploy.training.trainer import Reporter
        from fgdeploy.training.trainer import train as run
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "train", "training") from None
    settings = TrainSettings(
        data=data,
        method=method,
        recipe=recipe,
        backbone=backbone,
        weights=weights,
        weights_key=weights_key,
        renames=tuple(rename),
        image_size=image_size,
        crop=crop,
        least_area=least_area,
        options=options,
        bits=bits,
        epochs=epochs,
        batch=batch,
        lr=lr,
        warmup=warmup,
        val_fraction=_one_part(val_fraction, holdout),
        without=frozenset(name.strip() for name in without.split(",") if name.strip()),
        teacher=teacher,
        precision=precision,
        eval_photos=eval_photos,
        workers=workers,
        strict=strict,
        columns=columns,
        allow_leaks=allow_leaks,
        boxes=boxes,
        seed=seed,
    )
    folder = Path(f"{registry.get(method).name}-run") if output is None else output
    try:
        with bars() as shown:
            epochs_shown = _Epochs(shown)
            reporter = Reporter(shown.say, shown.make, epochs_shown.tick, epochs_shown.done)
            if folds is None:
                done = run(settings, folder, resume, overwrite, reporter)
            else:
                done = train_folds(settings, folds, folder, resume, overwrite, reporter)
    except KeyboardInterrupt:
        if any(folder.glob("state.pt")) or any(folder.glob("fold-*/state.pt")):
            show.say(f"the state is kept in {folder}; go on with the same command and --resume")
        raise
    _report(done, folder, as_json)


def _one_part(val_fraction: float | None, holdout: float | None) -> float | None:
    """Return the part that is held out; --holdout is what --val-fraction was called before."""
    if val_fraction is not None and holdout is not None:
        raise UsageError("--holdout is the older name of --val-fraction; give one of them")
    return holdout if val_fraction is None else val_fraction


class _Epochs:
    """One bar per epoch, with the loss and the speed of the last steps; in a log, lines."""

    def __init__(self, bars: TerminalBars) -> None:
        self._bars = bars
        self._task: Any = None
        self._epoch = 0
        self._last, self._rate = 0.0, 0.0
        self._log: Progress = no_progress

    def tick(self, tick: Tick) -> None:
        """Show one step."""
        now = time.monotonic()
        if tick.epoch != self._epoch:
            self._epoch, self._rate = tick.epoch, 0.0
            self._task = self._bars.start(f"epoch {tick.epoch}", tick.steps)
            self._log = self._bars.log(f"epoch {tick.epoch}")
        else:
            speed = tick.images / max(now - self._last, 1e-9)
            self._rate = 0.8 * self._rate + 0.2 * speed if self._rate else speed
        self._last = now
        self._log(tick.step, tick.steps)
        facts = f"{self._rate:.0f} images/s  loss {tick.loss:.3f}  lr {tick.lr:.1e}"
        self._bars.live.update(self._task, completed=tick.step, facts=facts)
        if tick.step == tick.steps:
            self._bars.live.remove_task(self._task)
            self._epoch = 0  # of folds, the next training begins with the same one

    def done(self, row: dict[str, float]) -> None:
        """Print what came of an epoch."""
        self._bars.say(_epoch_line(row))


def _epoch_line(row: dict[str, float]) -> str:
    known = {
        "asym_targets_map": "asym_targets mAP",
        "asym_targets_recall_at_1": "R@1",
        "bits_reached": "bits reached",
        "seconds": "s",
    }
    hidden = {"epoch", "step", "lr", "data_wait"}
    if len(row.keys() - hidden - known.keys()) == 2:  # the loss and its only term
        hidden |= row.keys() - hidden - known.keys() - {"loss"}
    terms = [
        f"{known.get(name, name)} {value:.4g}" for name, value in row.items() if name not in hidden
    ]
    return f"epoch {row['epoch']}: " + "  ".join(terms)


def _report(done: Trained, folder: Path, as_json: bool) -> None:
    if as_json:
        show.emit_json(
            {
                "weights": str(done.weights),
                "scores": done.scores,
                "training_photos": {name: one.to_json() for name, one in done.reached.items()},
                "advice": done.advice,
                "folds": None if done.folds is None else done.folds.to_json(),
                "skipped": list(done.skipped),
            }
        )
    elif done.folds is not None:
        _show_folds(done.folds)
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
        show.rows(rows, header)
    else:
        show.say("no photos were held out, so there are no scores; see --val-fraction")
    for network, found in done.reached.items():
        show.say(f"training photos, {network}: {_reached_line(found)}")
    if done.advice is not None:
        show.say(f"advice: {done.advice}")
    show.say(f"wrote {done.weights}; next: fgdeploy export {folder} -o {folder.resolve().name}.fgd")
    show.report_skipped(list(done.skipped), told=True)


def _show_folds(folds: FoldScores) -> None:
    rows = [
        (protocol, *(f"{one['mean']:.4f} ± {one['spread']:.4f}" for one in found.values()))
        for protocol, found in folds.protocols.items()
    ]
    show.rows(rows, ("protocol", "mAP", "ties averaged", "R@1"))
    show.say(
        f"mean and spread over {counted(len(folds.each), 'fold')}; the model learned from all "
        "photos, so it has no scores of its own"
    )


def _reached_line(found: Reached) -> str:
    words = f"{found.bits_equal:.1%} of bits and {found.codes_equal:.1%} of codes are the target's"
    if found.gap is None:
        return words
    worse = "better" if found.gap < 0 else "worse"
    return f"{words}; as a gallery they rank {abs(found.gap):.1%} {worse} than target codes"
