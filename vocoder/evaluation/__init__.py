"""What models are judged by: quality against recordings, speed, word error rates.

Measuring (`copy_synthesis`, `recognition`, `benchmark`) is kept apart from showing (`tables`,
`plots`).
"""

from vocoder.evaluation.extras import MissingExtraError
from vocoder.evaluation.metrics import METRICS, Metric, MetricError, installed_metrics, measure

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "MissingExtraError",
    "installed_metrics",
    "measure",
]
