"""The Typer application, and what every command shares: version, --debug and errors in one line."""

from __future__ import annotations

import errno
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from fgdeploy import __version__
from fgdeploy.cli import (
    bench,
    boxes,
    build,
    calibrate,
    camera,
    card,
    classify,
    deepstream,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    gallery,
    hashing,
    hub,
    inspect,
    packing,
    parity,
    registering,
    report,
    search,
    serve,
    show,
    signing,
    streams,
    train,
    triton_repo,
    tune,
)
from fgdeploy.core.errors import FgdeployError

INTERRUPTED = 130

_NO_SPACE = "free some space, or write elsewhere"
_NO_RIGHT = "choose a place that can be written"
_HINTS = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EROFS: _NO_RIGHT,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EFBIG: "the system limits the size of files; raise the limit (ulimit -f)",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# Of a command line that does not parse; Typer has it public only as the base of another.
_ClickUsageError: Any = typer.BadParameter.__mro__[1]


class _OneLineErrors(TyperGroup):
    """Show errors as one line on stderr and exit with their code; --debug shows the traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command with streams that cannot fail, and judge at the end what arrived."""
        with streams.guarded() as out:
            show.forget_manner()
            try:
                return super().main(*arguments, **options)
            except SystemExit as end:
                out.flush()
                if out.error is None or end.code not in (0, None):
                    raise
                raise SystemExit(_judged(out.error)) from None
            finally:
                show.forget_manner()

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse what stands before the command."""
        try:
            return super().make_context(*arguments, **options)
        except _ClickUsageError as error:
            _refuse(error, "fgdeploy")

    def invoke(self, ctx: Any) -> Any:
        """Parse and run the command."""
        try:
            return super().invoke(ctx)
        except _ClickUsageError as error:
            _refuse(error, f"fgdeploy {ctx.invoked_subcommand or ''}".rstrip())
        except FgdeployError as error:
            self._show(ctx, str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            show.complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            self._show(ctx, f"{where}{_reason(error)}; no half-written result was left")
            raise typer.Exit(1) from None

    @staticmethod
    def _show(ctx: Any, message: str) -> None:
        if ctx.params.get("debug"):
            traceback.print_exc()
        show.complain(f"error: {message}")


def _reason(error: OSError) -> str:
    hint = _HINTS.get(error.errno or 0)
    return f"{error.strerror or error}" + (f"; {hint}" if hint else "")


def _judged(error: OSError) -> int:
    """Return the exit code of a command whose answer did not arrive, and say so."""
    if error.errno == errno.EPIPE:
        return streams.BROKEN_PIPE  # `| head` has read enough
    show.complain(f"error: standard output: {_reason(error)}; the answer is lost, the work is done")
    return 1


def _refuse(error: Any, command: str) -> NoReturn:
    """Show in one line why a command line does not parse; a group alone shows its help."""
    if type(error).show is not _ClickUsageError.show:
        raise error
    if error.ctx is not None:
        command = " ".join(["fgdeploy", *error.ctx.command_path.split()[1:]])
    message = error.format_message().rstrip(".")
    show.complain(f"error: {message}; see: {command} --help")
    raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors and the answer.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Take a fine-grained image-retrieval ViT from PyTorch to a camera."""
    show.choose_manner(quiet)


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("boxes")(boxes.boxes)
app.command("export")(export.export)
app.command("calibrate")(calibrate.calibrate)
app.command("build-engine")(build.build_engine)
app.command("tune")(tune.tune)
app.command("inspect")(inspect.inspect)
app.command("card")(card.card)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("parity")(parity.parity)
app.command("bench")(bench.bench)
app.command("pack")(packing.pack)
app.command("unpack")(packing.unpack)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("push")(hub.push)
app.command("pull")(hub.pull)
app.command("triton-repo")(triton_repo.triton_repo)
app.command("deepstream")(deepstream.deepstream)
app.command("hash")(hashing.hash_photos)
app.add_typer(gallery.app, name="index")
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.command("eval")(evaluate.evaluate)
app.command("classify")(classify.classify)
app.command("camera")(camera.camera)
app.command("explain")(explain.explain)
registering.equip(app)
