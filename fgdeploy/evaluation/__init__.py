"""How good the ranking is: mAP, tie-aware mAP, recall and precision at k on packed codes."""

from fgdeploy.evaluation.metrics import Scores, evaluate, mean_average_precision

__all__ = ["Scores", "evaluate", "mean_average_precision"]
