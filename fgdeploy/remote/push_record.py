"""What a server keeps beside the items of an index, and what is checked before they are used."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from fgdeploy.core.codes import MAX_BITS, MIN_BITS
from fgdeploy.core.errors import IndexStoreError, RemoteError

SCHEMA = 1

# First push under way or broken off; all is there; a later push under way or broken off.
STATES = PARTIAL, WHOLE, UPDATING = ("partial", "whole", "updating")


@dataclass(frozen=True)
class PushRecord:
    """Whose items they are. uid: of the index that was pushed; bundle: where its bundle lay then.

    form: how the adapter keeps codes. state: one of STATES. items: how many, once it is WHOLE.
    """

    fingerprint: str
    bits: int
    uid: str
    bundle: str | None = None
    form: str = ""
    state: str = PARTIAL
    items: int = 0
    schema: int = SCHEMA

    def in_state(self, state: str, items: int = 0) -> PushRecord:
        """Return it with another state."""
        return dataclasses.replace(self, state=state, items=items)

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_text(cls, text: str, name: str) -> PushRecord:
        """Read what `as_text` wrote. name: the address. Raises RemoteError for anything else."""
        try:
            found = json.loads(text)
            schema = found["schema"]
            if type(schema) is int and schema > SCHEMA:
                raise RemoteError(
                    f"{name} was pushed by a later fgdeploy (schema {schema}, this one knows "
                    f"{SCHEMA}); use that one, or push with --replace"
                )
            record = cls(**found)
            texts, numbers = (record.fingerprint, record.uid, record.form), (record.bits, schema)
            right = all(type(text) is str for text in texts)
            right &= all(type(number) is int for number in (*numbers, record.items))
            right &= isinstance(record.bundle, (str, type(None))) and record.state in STATES
            if right and MIN_BITS <= record.bits <= MAX_BITS and record.items >= 0:
                return record
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        raise RemoteError(
            f"{name}: what it says of its items is not what index push writes; push again with "
            "--replace, or name another place"
        )

    def require(self, name: str, fingerprint: str, bits: int) -> None:
        """Raise IndexStoreError unless codes of this model may be compared with its own."""
        if (fingerprint, bits) != (self.fingerprint, self.bits):
            raise IndexStoreError(
                f"{name} holds {self.bits}-bit codes of model {self.fingerprint[:12]}, these are "
                f"{bits}-bit codes of model {str(fingerprint)[:12]}; their distances mean nothing: "
                "use the bundle that built it, or push another index"
            )
