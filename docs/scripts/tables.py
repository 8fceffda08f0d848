"""Writes measured figures into the documents, so that none is typed by hand.

    python docs/scripts/tables.py           writes the tables
    python docs/scripts/tables.py --check   reports documents that are out of date, changes nothing

A table is between two comments, <!-- benchmark:begin --> and <!-- benchmark:end -->, and comes
from docs/results/benchmark.json, which `vocoder benchmark` writes; see the modules of report/.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paths import ROOT
from report import comparison, install, markdown, results, speed
from vocoder.atomic import write_atomic

TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    name: table
    for module in (results, speed, install, comparison)
    for name, table in module.TABLES.items()
}


def filled(document: str, root: Path = ROOT) -> str:
    """A document with its tables regenerated; see `markdown.filled`."""
    return markdown.filled(document, TABLES, root)


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that may hold tables."""
    recipes = sorted((root / "recipes").glob("*/README.md"))
    return [root / "README.md", *sorted((root / "docs").glob("*.md")), *recipes]


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
            write_atomic(document, new.encode())
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
