"""What all measurements share: the clock, the machine's facts, results as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vocoder
from vocoder.atomic import write_atomic

Result = dict[str, Any]
"""A measurement as plain JSON values."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is next)."""


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, the work it queued on a GPU included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def machine_facts(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on, as JSON values."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flow_vocoder": vocoder.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def cpu_name() -> str:
    """The processor's name as its maker gives it, or its architecture if that is unknown."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1] if match else platform.machine()


def finite(value: Any) -> Any:
    """Lists and dictionaries with None for what is not finite: JSON has no number for it."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_result(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result as JSON. Returns the path."""
    # File names that are not UTF-8 contain surrogates, which become JSON escapes.
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return write_atomic(Path(path), (text + "\n").encode(errors="backslashreplace"))
