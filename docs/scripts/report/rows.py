"""Names of rows in the results that tables pick out."""

import json

from paths import ROOT
from vocoder.evaluation.copy_synthesis import row_name

FLOW = "MDCT flow"
PUBLISHED = "WaveGlow"
REFINE = json.loads((ROOT / "vocoder/weights/default/config.json").read_text(encoding="utf-8"))[
    "config"
]["refine"]
"""The refinement that the bundled default ends with."""
DEFAULT = row_name("default", REFINE)
"""Its row in a result of `vocoder evaluate --refine`."""
DEFAULT_ROWS = (row_name("default", 0), DEFAULT, row_name("Griffin-Lim", 0))
"""The model alone, as it ships, and what learns nothing."""
