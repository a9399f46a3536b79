"""`hf://OWNER/NAME[@REVISION]`: where a bundle lies on a model hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"hf:/{{1,2}}({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A repository of a hub, and in it a branch, tag or commit; None is its main branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> HubAddress:
        """Read an address. Raises UsageError for what is none."""
        found = _ADDRESS.fullmatch(os.fspath(text))
        doubled = found is None or ".." in found[0] or "--" in found[0]
        if found is None or doubled:
            said = shown(os.fspath(text)) or "an empty name"
            raise UsageError(
                f"{said} is no address of a hub; expected hf://OWNER/NAME or "
                "hf://OWNER/NAME@REVISION"
            )
        return cls(found[1], found[2])

    @property
    def commit(self) -> str | None:
        """Return the commit that the revision is, None where it is a name that may move."""
        return self.revision if self.revision and _COMMIT.fullmatch(self.revision) else None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(value: object) -> bool:
    """Tell whether a bundle's name means one on a hub; also as a path, which joins slashes."""
    if not isinstance(value, (str, os.PathLike)):
        return False
    text = os.fspath(value)
    return isinstance(text, str) and text.startswith("hf:/")
