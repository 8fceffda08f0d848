"""Writes what was measured into the documents, so that no figure is typed in by hand.

    python docs/tables.py           writes the tables anew
    python docs/tables.py --check   says whether they are up to date, and changes nothing

A table stands between two comments, <!-- benchmark:begin --> and <!-- benchmark:end -->, and comes
from docs/benchmark.json, which `vocoder benchmark` writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vocoder.evaluation.benchmark import caption, table

ROOT = Path(__file__).parents[1]


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    headings, cells = table(dict(result))
    alignment = ["---" if index < 2 else "---:" for index in range(len(headings))]
    rows = ["| " + " | ".join(line) + " |" for line in [headings, alignment, *cells]]
    return "\n".join([*rows, "", caption(dict(result)).replace("*", r"\*")])


def runs_table(group: str) -> Callable[[Mapping[str, Any]], str]:
    """What makes Markdown of one group of docs/runs.json."""

    def make(groups: Mapping[str, Any]) -> str:
        rows = groups[group]
        names = list(dict.fromkeys(name for row in rows for name in _means(row["test"])))
        headings = ["model", "parameters", "minutes", "audio seen", "log-likelihood"]
        lines = [[*headings, "log-mel distance", *names], ["---", *["---:"] * (5 + len(names))]]
        for row in rows:
            means = _means(row["test"])
            cells = [
                row["family"],
                f"{row['parameters'] / 1e6:.1f}M",
                f"{row['train_seconds'] / 60:.0f}",
                f"{row['audio_seconds']:,.0f} s",
                _change(row["log_likelihood"]),
                _change(row["mel_distance"]),
            ]
            lines.append([*cells, *(f"{means[n]:.2f}" if n in means else "" for n in names)])
        text = ["| " + " | ".join(line) + " |" for line in lines]
        facts = [f"{rows[0]['data']}; {rows[0]['hardware']}; seed {rows[0]['seed']}."]
        return "\n".join([*text, "", *facts])

    return make


def _change(pair: list[float | None]) -> str:
    return "" if None in pair else " → ".join(f"{value:.3f}" for value in pair)


def _means(test: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over the test utterances of what the columns of the validation do not show."""
    shown = ("STOI", "PESQ")
    values = {name: [row[name] for row in test if row.get(name) is not None] for name in shown}
    return {name: sum(found) / len(found) for name, found in values.items() if found}


# Marker -> the file of the measurement, and what makes Markdown of it.
TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "benchmark": ("docs/benchmark.json", benchmark_table),
    "likelihood": ("docs/runs.json", runs_table("likelihood")),
    "sample": ("docs/runs.json", runs_table("sample")),
}


def filled(text: str, root: Path = ROOT) -> str:
    """A document with the tables between its markers made anew.

    Raises:
        ValueError: a marker without its other half, or a table without its measurement.
    """
    for name, (file, make) in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != text.count(end) or text.count(begin) > 1:
            raise ValueError(f"{begin} and {end} must stand once each in a document, or not at all")
        if begin not in text:
            continue
        before, rest = text.split(begin)
        if end not in rest:
            raise ValueError(f"{end} must stand behind {begin}")
        if not (root / file).is_file():
            raise ValueError(f"the table {name} has no measurement: there is no file {file}")
        result = json.loads((root / file).read_text(encoding="utf-8"))
        text = f"{before}{begin}\n{make(result)}\n{end}{rest.split(end)[1]}"
    return text


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def update(root: Path = ROOT, check: bool = False) -> list[Path]:
    """Fills the tables of all documents, unless ``check``; returns those that were out of date."""
    changed = []
    for document in documents(root):
        old = document.read_text(encoding="utf-8")
        new = filled(old, root)
        if new == old:
            continue
        changed.append(document)
        if not check:
            temporary = document.with_name(f".{document.name}.part")
            temporary.write_text(new, encoding="utf-8")
            os.replace(temporary, document)
    return changed


def main() -> int:
    """The command; 1 if ``--check`` finds a document out of date."""
    parser = argparse.ArgumentParser(description="Write measured figures into the documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if out of date")
    check = parser.parse_args().check
    try:
        changed = update(check=check)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    for document in changed:
        print(f"{document.relative_to(ROOT)}: {'out of date' if check else 'written'}")  # noqa: T201
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
