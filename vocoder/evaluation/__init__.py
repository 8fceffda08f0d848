"""Evaluation: quality against recordings, speed, word error rates.

Measuring (`copy_synthesis`, `benchmark`) is kept apart from showing (`tables`).
"""

from vocoder.extras import MissingExtraError

from .metrics import METRICS, Metric, installed_metrics, measure
from .signals import MetricError

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "MissingExtraError",
    "installed_metrics",
    "measure",
]
