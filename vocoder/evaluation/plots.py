"""Results as pictures (PNG), one function for each kind of result; text is in `.tables`.

Figures are built without pyplot, which would change the caller's backend.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vocoder.atomic import write_atomic

from .results import Result
from .tables import heading, is_scaled, lines

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


def benchmark(result: Result, path: str | os.PathLike[str]) -> Path:
    """Samples per second, on a log scale, of every system at every workload.

    Returns:
        The path.

    Raises:
        ValueError: the result has no rows.
    """
    if not result["rows"]:
        raise ValueError("nothing could be measured, so there is nothing to plot")
    found = lines(result)[::-1]
    labels = list(dict.fromkeys(label for line in found for label in line.rows))
    figure = new_figure(9, 1.6 + 0.42 * len(found))
    axes = figure.subplots()
    for index, label in enumerate(labels):
        offset = 0.5 * (0.5 - (index + 0.5) / len(labels))
        rows = [(y + offset, line.rows[label]) for y, line in enumerate(found)]
        for scaled in (False, True):
            points = [(y, row) for y, row in rows if is_scaled(row) is scaled]
            axes.plot(
                [row["samples_per_second"] for _, row in points],
                [y for y, _ in points],
                "osD^v"[index % 5],
                color=f"C{index}",
                markersize=6,
                fillstyle="none" if scaled else "full",
                label=None if scaled else label,
            )
    rates = {round(row["samples_per_second"] / row["times_real_time"]) for row in result["rows"]}
    axes.axvspan(0.99 * min(rates), 1.01 * max(rates), color="0.8", zorder=0)
    top = axes.get_xaxis_transform()
    axes.text(max(rates), 1.0, " real time", transform=top, va="bottom", color="0.4")
    axes.set_yticks(range(len(found)), [line.label for line in found])
    axes.set_xscale("log")
    axes.grid(axis="x", which="major", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("samples per second")
    machine = result["machine"]
    figure.suptitle(
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} CPU cores "
        "(hollow: measured on less audio)",
        fontsize="medium",
    )
    axes.legend(title="audio at once", loc="lower right")
    return save_figure(figure, path)


def copy_synthesis(result: Result, path: str | os.PathLike[str]) -> Path:
    """A panel for each measure: means, intervals and recordings of every row.

    Returns:
        The path.
    """
    rows = result["rows"]
    shown = [name for name in result["measures"] if any(row[name]["n"] for row in rows.values())]
    systems = list(rows)[::-1]
    columns = max(1, min(3, len(shown)))
    height = max(1, -(-len(shown) // columns))
    figure = new_figure(1.5 + 3.2 * columns, height * (0.9 + 0.35 * len(systems)))
    panels = figure.subplots(height, columns, squeeze=False, sharey=True).flat
    for name, axes in zip(shown, panels, strict=False):
        for y, system in enumerate(systems):
            points = [file["values"][system][name] for file in result["files"]]
            points = [value for value in points if value is not None]
            axes.plot(points, [y] * len(points), "|", color="0.7", markersize=9)
            row = rows[system][name]
            if row["mean"] is None:
                continue
            half = 0 if row["upper"] is None else row["upper"] - row["mean"]
            axes.errorbar(row["mean"], y, xerr=half, fmt="o", color=f"C{len(systems) - 1 - y}")
        axes.set_yticks(range(len(systems)), systems)
        axes.set_ylim(-0.6, len(systems) - 0.4)
        axes.set_title(heading(result["measures"][name]), fontsize="medium")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    for axes in list(figure.axes)[len(shown) :]:
        axes.set_visible(False)
    return save_figure(figure, path)
