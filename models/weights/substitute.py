"""Put patterns to names, from standard input to standard output, in a process of its own.

Run by `name_patterns` as a script, so that a pattern that would take ages can be ended. Knows
nothing of fgdeploy.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

LONGEST = 1000  # characters of a name


def substituted(pairs: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, Any]:
    """Return the names after every (pattern, replacement), and how many names each pattern fits.

    With `pattern`, its number, and `reason` in their place where a pattern is none.
    """
    found, fits = list(names), []
    for number, (pattern, replacement) in enumerate(pairs):
        try:
            made = [re.subn(pattern, replacement, name) for name in found]
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            return {"pattern": number, "reason": str(error)}
        fits.append(sum(count > 0 for _, count in made))
        found = [name for name, _ in made]
        if any(not 0 < len(name) <= LONGEST for name in found):
            return {"pattern": number, "reason": f"it leaves a name empty or beyond {LONGEST}"}
    return {"names": found, "fits": fits}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    json.dump(substituted(given["pairs"], given["names"]), sys.stdout)
