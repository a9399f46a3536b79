"""How good the ranking is: mAP, tie-aware mAP, recall and precision at k on packed codes.

`evaluate` scores codes, `recall_by_cosine` embeddings; `protocol` and `by_embedding` say which
queries search which gallery, `report` writes curves and tables.
"""

from fgdeploy.evaluation.cosine_recall import CosineScores, recall_by_cosine
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
    "CosineScores",
    "Curve",
    "Detail",
    "Scores",
    "evaluate",
    "evaluate_in_detail",
    "mean_average_precision",
    "recall_by_cosine",
]
