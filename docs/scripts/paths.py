"""Where the documents keep what scripts write."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
PICTURES = ROOT / "docs/pictures"
SAMPLES = ROOT / "docs/samples"
