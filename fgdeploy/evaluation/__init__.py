"""How good the ranking is: mAP, tie-aware mAP, recall and precision at k on packed codes.

`evaluate` scores codes, `protocol` says which queries search which gallery, `report` writes curves
and tables.
"""

from fgdeploy.evaluation.metrics import (
    ClassScores,
    Curve,
    Detail,
    Scores,
    evaluate,
    evaluate_in_detail,
    mean_average_precision,
)

__all__ = [
    "ClassScores",
    "Curve",
    "Detail",
    "Scores",
    "evaluate",
    "evaluate_in_detail",
    "mean_average_precision",
]
