"""Figures as PNG, built without pyplot, which would change the caller's backend."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vocoder.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, to be drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 144) -> Path:
    """Write a figure as PNG, whole or not at all. Returns the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return write_atomic(Path(path), content.getvalue())
