"""`fgdeploy card`."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.models import OptionInfo

from fgdeploy.cli import objects, show


def _option(what: str, metavar: str = "TEXT") -> OptionInfo:
    made: OptionInfo = typer.Option(help=f"{what} Default: as it stands.", metavar=metavar)
    return made


def card(
    path: objects.BundleArgument = None,
    name: Annotated[str | None, _option("What the model is called.")] = None,
    description: Annotated[str | None, _option("What it is for, and what not.")] = None,
    license: Annotated[
        str | None, _option("The model's licence, such as Apache-2.0.", "NAME")
    ] = None,
    creator: Annotated[str | None, _option("Who made it.")] = None,
    url: Annotated[str | None, _option("Where it is described.", "URL")] = None,
    release: Annotated[str | None, _option("Its version, such as 1.2.0.")] = None,
    cite: Annotated[str | None, _option("How to cite it, as BibTeX.")] = None,
    data_name: Annotated[str | None, _option("What its training photos are called.")] = None,
    data_description: Annotated[str | None, _option("What these are.")] = None,
    data_license: Annotated[str | None, _option("Their licence.", "NAME")] = None,
    data_creator: Annotated[str | None, _option("Who took them.")] = None,
    data_url: Annotated[str | None, _option("Where they come from.", "URL")] = None,
    data_cite: Annotated[str | None, _option("How to cite them, as BibTeX.")] = None,
    as_json: show.JsonOption = False,
) -> None:
    """Show a bundle's card, and state what only you know: licences, authors, data.

    An empty text ('') takes a statement back. Codes, graphs and engines stay as they are.
    """
    from fgdeploy.bundle import card as cards
    from fgdeploy.bundle import open_bundle
    from fgdeploy.bundle.signature import SIGNATURE
    from fgdeploy.report import stating

    bundle = open_bundle(objects.bundle_of(path, None))
    model = _given(name=name, description=description, license=license, creator=creator, url=url)
    model |= _given(version=release, cite_as=cite)
    data = _given(name=data_name, description=data_description, license=data_license)
    data |= _given(creator=data_creator, url=data_url, cite_as=data_cite)
    if model or data:
        bundle = stating.restate(bundle, model, data)
        if (bundle.path / SIGNATURE).exists():
            show.say(
                f"the signature of {bundle.path} is of the card before; sign it again with: "
                f"fgdeploy sign {bundle.path} --key KEY"
            )
    found = cards.read(bundle)
    if as_json:
        show.emit_json(stating.whole_card(bundle, found))
    else:
        show.rows(stating.lines(bundle, found))


def _given(**texts: str | None) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text is not None}
