"""Where a Milvus collection is, and who may use it: never a password in an address or a message."""

from __future__ import annotations

import netrc
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.core.errors import UsageError
from fgdeploy.remote.server_address import ServerAddress, parse_address

FORM = (
    "milvus://HOST[:PORT]/COLLECTION[?db=DATABASE&secure=true] or milvus+lite://FILE.db/COLLECTION"
)
PORT = 19530
_LITE = "milvus+lite"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")  # what Milvus takes for a collection


@dataclass(frozen=True)
class MilvusPlace:
    """text: the address, to be shown. uri: what the client takes; file: of Milvus Lite, or None.

    token: USER:PASSWORD or an API key, "" for none; repr and messages do not show it.
    """

    text: str
    uri: str
    collection: str
    database: str = ""
    file: Path | None = None
    token: str = field(default="", repr=False)


def milvus_place(address: str) -> MilvusPlace:
    """Take an address apart, and find who may use it.

    That is MILVUS_TOKEN, or MILVUS_USER and MILVUS_PASSWORD, or the host's entry in ~/.netrc or the
    file that NETRC names. Raises UsageError.
    """
    if address.lower().startswith(f"{_LITE}://"):
        return _lite(address)
    found = parse_address(address, FORM)
    found.refuse_others(("db", "secure"))
    if found.user is not None:
        raise UsageError(
            f"{found.text}: a user stands in the environment (MILVUS_USER) or in ~/.netrc; leave "
            "it out"
        )
    if not found.host:
        raise UsageError(f"{found.text}: no host; expected {FORM}")
    secure = found.options.get("secure", "false").lower()
    if secure not in ("true", "false"):
        raise UsageError(f"{found.text}: secure is true or false, the default")
    host = f"[{found.host}]" if ":" in found.host else found.host
    uri = f"{'https' if secure == 'true' else 'http'}://{host}:{found.port or PORT}"
    database = found.options.get("db", "")
    return MilvusPlace(
        found.text, uri, _collection(found.text, found.path), database, token=_token(found)
    )


def _lite(address: str) -> MilvusPlace:
    """milvus+lite://FILE/COLLECTION: what stands before the last slash is a path of this machine.

    So milvus+lite:///data/g.db/birds is the absolute path /data/g.db.
    """
    path, _, name = address[len(_LITE) + len("://") :].rpartition("/")
    if not path.endswith(".db"):
        raise UsageError(f"{address}: expected a file NAME.db before /COLLECTION; such as {FORM}")
    return MilvusPlace(address, path, _collection(address, name), file=Path(path))


def _collection(text: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{text}: expected the name of a collection at its end, of letters, digits and _, not "
            f"a digit first; such as {FORM}"
        )
    return name


def _token(address: ServerAddress) -> str:
    get = os.environ.get
    if token := get("MILVUS_TOKEN"):
        return token
    user, password = get("MILVUS_USER"), get("MILVUS_PASSWORD")
    if bool(user) != bool(password):
        raise UsageError("set both of MILVUS_USER and MILVUS_PASSWORD, or neither")
    if user:
        return f"{user}:{password}"
    file = Path(get("NETRC") or "~/.netrc").expanduser()
    try:
        entry = netrc.netrc(str(file)).hosts.get(address.host or "")
    except FileNotFoundError:
        return ""
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        # What stands in the file is in no message.
        raise UsageError(
            f"{file} cannot be read as a netrc file ({type(error).__name__})"
        ) from None
    return "" if entry is None else f"{entry[0]}:{entry[2] or ''}"
