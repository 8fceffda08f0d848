"""Means with their 95 % confidence intervals, as JSON values: mean, lower, upper and n.

`estimate` is for the mean of independent values, `estimate_rate` for a ratio of sums.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95

_RESAMPLES = 9999


def estimate(values: Sequence[float]) -> dict[str, Any]:
    r"""Mean of a sample and its 95 % confidence interval by Student's t.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n, \qquad
        s^2 = \frac{1}{n - 1} \sum_i (v_i - \bar v)^2

    with :math:`t_{n-1}` the 97.5th percentile. Not the bootstrap, whose intervals are too narrow
    for the 3 to 20 utterances of a small test set; these are exact for normal values and need no
    seed. The interval covers other utterances of the same kind, not other speakers.

    Returns:
        mean, lower, upper and n. The bounds are None for fewer than 2 values, the mean for none.
    """
    from scipy import stats  # takes long to import

    n = len(values)
    mean = statistics.fmean(values) if n else None
    if mean is None or n < 2:
        return {"mean": mean, "lower": None, "upper": None, "n": n}
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": mean, "lower": mean - half, "upper": mean + half, "n": n}


def estimate_rate(errors: Sequence[int], words: Sequence[int]) -> dict[str, Any]:
    r"""Errors over words and the 95 % percentile bootstrap interval over sentences.

    .. math:: r = \sum_i E_i \Big/ \sum_i N_i, \qquad
        r^* = \sum_i E_{i^*} \Big/ \sum_i N_{i^*}

    with sentences i* drawn with replacement.

    Returns:
        mean, lower, upper and n, the number of sentences. The bounds are None for a single one.
    """
    from scipy import stats  # takes long to import

    rate = sum(errors) / sum(words)
    if len(errors) < 2:
        return {"mean": rate, "lower": None, "upper": None, "n": len(errors)}
    interval = stats.bootstrap(
        (np.array(errors), np.array(words)),
        lambda e, w, axis: e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return {"mean": rate, "lower": low, "upper": high, "n": len(errors)}
