"""Prints the table of a study of variants, in Markdown.

    python docs/scripts/ablation.py runs/ablation/flow/result.json

recipes/ljspeech/ablation/run.py measures. Studies in docs/results/ablation are shown by
docs/ablation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from report.ablation import ablation_table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Print the table of a study of variants.")
    parser.add_argument(
        "result", type=Path, help="JSON that recipes/ljspeech/ablation/run.py wrote"
    )
    result = json.loads(parser.parse_args().result.read_text(encoding="utf-8"))
    sys.stdout.write(ablation_table(result) + "\n")


if __name__ == "__main__":
    main()
