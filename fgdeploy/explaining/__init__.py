"""What a model looked at: kept patches, maps and boxes, attention rollout; as pictures."""

from fgdeploy.explaining.explanation import Explanation, Kept
from fgdeploy.explaining.looker import Looker
from fgdeploy.explaining.opening import WAYS, Opening, explain, open_looker
from fgdeploy.explaining.picture_page import write_page

__all__ = [
    "WAYS",
    "Explanation",
    "Kept",
    "Looker",
    "Opening",
    "explain",
    "open_looker",
    "write_page",
]
