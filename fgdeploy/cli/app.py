"""The Typer application, and what every command shares: version, --debug and errors in one line."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fgdeploy import __version__
from fgdeploy.cli import (
    build,
    calibrate,
    demo,
    doctor,
    evaluate,
    export,
    gallery,
    hashing,
    inspect,
    packing,
    parity,
    search,
    show,
    train,
)
from fgdeploy.core.errors import FgdeployError

INTERRUPTED = 130

_NO_RIGHT = "choose a place that can be written; nothing half-written was left"
_HINTS = {
    errno.ENOSPC: "free some space, or write elsewhere; nothing half-written was left",
    errno.EDQUOT: "free some space, or write elsewhere; nothing half-written was left",
    errno.EROFS: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
}


class _OneLineErrors(TyperGroup):
    """Show errors as one line on stderr and exit with their code; --debug shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FgdeployError as error:
            self._show(ctx, str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader (head, less) has gone; keep Python from complaining at exit too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            hint = _HINTS.get(error.errno or 0, "nothing half-written was left")
            self._show(ctx, f"{where}{error.strerror or error}; {hint}")
            raise typer.Exit(1) from None

    @staticmethod
    def _show(ctx: Any, message: str) -> None:
        if ctx.params.get("debug"):
            traceback.print_exc()
        show.say(f"error: {' '.join(message.split())}")


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fgdeploy {__version__}")
        raise typer.Exit()


@app.callback()
def fgdeploy(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take a fine-grained image-retrieval ViT from PyTorch to a camera."""


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("calibrate")(calibrate.calibrate)
app.command("build-engine")(build.build_engine)
app.command("inspect")(inspect.inspect)
app.command("doctor")(doctor.doctor)
app.command("parity")(parity.parity)
app.command("pack")(packing.pack)
app.command("unpack")(packing.unpack)
app.command("hash")(hashing.hash_photos)
app.add_typer(gallery.app, name="index")
app.command("search")(search.search)
app.command("eval")(evaluate.evaluate)
