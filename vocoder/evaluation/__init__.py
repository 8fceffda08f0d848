"""Evaluation: quality against recordings, speed, word error rates.

Measuring (`copy_synthesis`, `benchmark`) is kept apart from showing (`tables`).
"""

from vocoder.extras import MissingExtraError

from .metrics import METRICS, Metric, MetricError, installed_metrics, measure

__all__ = [
    "METRICS", "Metric", "MetricError", "MissingExtraError", "installed_metrics", "measure",
]  # fmt: skip
