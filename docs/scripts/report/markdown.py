"""Cells of tables, and the markers in documents between which tables stand."""

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

WIDTH = 120
RESULTS = "docs/results"

# Marker -> the file in docs/results, and the function that turns it into Markdown.
Tables = Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]]


def mean(estimate: Mapping[str, Any] | None) -> str:
    """Mean and half the interval (of five values or more), or nothing if nothing was measured."""
    if estimate is None or estimate["mean"] is None:
        return ""
    digits = 0 if abs(estimate["mean"]) >= 20 else 2 if abs(estimate["mean"]) >= 1 else 3
    text = f"{estimate['mean']:.{digits}f}"
    if estimate["upper"] is not None and estimate["n"] >= 5:
        text += f" ± {estimate['upper'] - estimate['mean']:.{digits}f}"
    return text


def on(machine: Mapping[str, Any]) -> str:
    """What a figure was measured on."""
    return f"{machine['cpu']}, PyTorch {machine['torch']}, {machine['date']}."


def filled(text: str, tables: Tables, root: Path) -> str:
    """A document with the text between its markers regenerated from the results under `root`.

    Raises:
        ValueError: a marker without its other half, or a table without its measurement.
    """
    for name, (file, make) in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != text.count(end) or text.count(begin) > 1:
            raise ValueError(f"{begin} and {end} must stand once each in a document, or not at all")
        if begin not in text:
            continue
        before, rest = text.split(begin)
        if end not in rest:
            raise ValueError(f"{end} must stand behind {begin}")
        source = f"{RESULTS}/{file}"
        if not (root / source).is_file():
            raise ValueError(f"the table {name} has no measurement: there is no file {source}")
        result = json.loads((root / source).read_text(encoding="utf-8"))
        text = f"{before}{begin}\n{_wrapped(make(result))}\n{end}{rest.split(end)[1]}"
    return text


def _wrapped(text: str) -> str:
    """The same with its prose, but not its tables, in lines of at most `WIDTH` characters."""
    return "\n".join(
        line
        if line.startswith("|")
        else textwrap.fill(
            line,
            WIDTH,
            break_on_hyphens=False,
            subsequent_indent="  " * line.startswith("- "),
        )
        for line in text.splitlines()
    )
