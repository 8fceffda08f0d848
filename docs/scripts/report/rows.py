"""Names of rows in the results that tables pick out."""

import json

from paths import ROOT

FLOW = "MDCT flow"
PUBLISHED = "WaveGlow, published"
SWEEPS = json.loads((ROOT / "vocoder/weights/default/config.json").read_text(encoding="utf-8"))[
    "config"
]["refine"]
"""Those that the bundled default ends with."""
DEFAULT_ROWS = ("default, 0 sweeps", f"default, {SWEEPS} sweeps", "Griffin-Lim, 0 sweeps")
"""Of `vocoder evaluate --refine`: the model alone, as it ships, and what learns nothing."""
