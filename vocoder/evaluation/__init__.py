"""What models are judged by: measures of quality against a recording, and the speed benchmark."""

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
