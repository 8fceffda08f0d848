"""What models are judged by: quality against recordings, speed, word error rates.

Measuring (`copy_synthesis`, `recognition`, `benchmark`) is kept apart from showing (`tables`,
`plots`).
"""

from vocoder.evaluation.metrics import METRICS, Metric, MetricError, installed_metrics, measure
from vocoder.extras import MissingExtraError

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "MissingExtraError",
    "installed_metrics",
    "measure",
]
