"""`fgdeploy push` and `fgdeploy pull`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fgdeploy.cli import show, signing

AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="hf://OWNER/NAME, for pull also with @REVISION.")
]


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle.")],
    address: AddressArgument,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is for all to see, not private.")
    ] = False,
    as_json: show.JsonOption = False,
) -> None:
    """Verify a bundle and push it to a model hub, as one commit, without its engines.

    The token is that of `hf auth login`, or HF_TOKEN of the environment.
    """
    from fgdeploy import hub

    pushed = hub.push(bundle, address, public)
    if as_json:
        show.emit_json(dataclasses.asdict(pushed))
    else:
        show.rows([(name, f"{size:,}") for name, size in pushed.files.items()], ("name", "bytes"))
    show.say(f"pushed {bundle}; next, elsewhere: fgdeploy pull {pushed.address}")


def pull(
    address: AddressArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Copy it to this folder. Default: it stays cached."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name, engines and all.")
    ] = False,
    verify_key: signing.VerifyKeyOption = None,
    as_json: show.JsonOption = False,
) -> None:
    """Fetch a bundle from a model hub into the cache, every sha256 verified."""
    from fgdeploy import hub

    update = show.progress("pulling, MB:")
    bundle = hub.pull(
        address,
        output,
        overwrite,
        verify_key,
        show.say,
        lambda done, total: update(done // 10**6, max(total // 10**6, 1)),
    )
    files = {name: facts["bytes"] for name, facts in bundle.manifest.files.items()}
    if as_json:
        facts = {"path": str(bundle.path), "fingerprint": bundle.manifest.fingerprint}
        show.emit_json({**facts, "files": files})
    else:
        show.rows([(name, f"{size:,}") for name, size in files.items()], ("name", "bytes"))
    whose = "" if bundle.owner is None else f" and signed with the key of {bundle.owner}"
    show.say(f"{bundle.path} is here, every sha256 verified{whose}; next: fgdeploy doctor")
