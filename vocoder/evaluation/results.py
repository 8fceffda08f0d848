"""Shared by all measurements: machine, confidence intervals, results as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import vocoder
from vocoder.atomic import write_atomic

Result = dict[str, Any]  # a measurement as plain JSON values
Progress = Callable[[int, int, str], None]  # takes (steps done, steps in all, what is next)


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on, as JSON values."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flow_vocoder": vocoder.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def cpu_name() -> str:
    """The processor's name as its maker gives it, or its architecture if that is unknown."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def finite(value: Any) -> Any:
    """Lists and dictionaries with None for what is not finite: JSON has no number for it."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_result(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result as JSON. Returns the path."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    # Surrogates, of file names that are not UTF-8, become JSON escapes.
    return write_atomic(Path(path), text.encode(errors="backslashreplace"))


CONFIDENCE = 0.95  # of the intervals


def estimate(values: Sequence[float]) -> dict[str, Any]:
    r"""Mean of a sample and its 95 % confidence interval by Student's t.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n, \qquad
        s^2 = \frac{1}{n - 1} \sum_i (v_i - \bar v)^2

    with :math:`t_{n-1}` the 97.5th percentile; exact for normal values. The interval covers other
    utterances of the same kind, not other speakers.

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
