"""Names of classes by number, from a text file with one a line."""

from __future__ import annotations

from pathlib import Path

from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted, plain, shown


def read(path: Path, count: int) -> tuple[str, ...]:
    """Return the names in a UTF-8 file, the first line's for class 0. Raises DataError.

    count: how many classes the head tells. No name may be empty, come twice or hold control
    characters, as people read them and `eval` looks classes up by them.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\r\n").split("\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"--class-names {path}: {reason}; give a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"--class-names {path} is no UTF-8 text; save it as UTF-8") from None
    names = [line.strip() for line in lines]
    numbers: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name or plain(name) != name:
            what = "is empty" if not name else "holds control characters"
            raise DataError(f"--class-names {path}: line {number} {what}; give one name a line")
        if numbers.setdefault(name, number) != number:
            raise DataError(
                f"--class-names {path}: {shown(name)!r} stands in lines {numbers[name]} and "
                f"{number}; give every class a name of its own"
            )
    if len(names) != count:
        raise DataError(
            f"--class-names {path} has {counted(len(names), 'name')}, but the class head tells "
            f"{counted(count, 'class')}; give one name a line, in the order of the classes"
        )
    return tuple(names)
