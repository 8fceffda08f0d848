"""Measures untrained flows at other mel conventions: a source, and refinement.

    python recipes/unseen-speakers/build.py
    python docs/scripts/conventions.py      writes docs/results/conventions.json

The speakers are those of the test half at 44.1 kHz. Griffin-Lim has the first model's mel.
"""

import torch
import yaml

from paths import RESULTS, ROOT
from vocoder.audio import MelSpec
from vocoder.evaluation import copy_synthesis
from vocoder.evaluation.results import save_result
from vocoder.models import MdctFlow

MEASURES = ("pesq", "stoi", "distillmos", "dnsmos", "envelope_depth", "times_real_time")


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    vocos = yaml.safe_load((ROOT / "recipes/high-rate/config/vocos.yaml").read_text("utf-8"))
    specs: dict[str, str | MelSpec] = {
        "speech-24k": "speech-24k",
        "Vocos's, 24 kHz": MelSpec(**vocos["model"]["init_args"]["mel_spec"]),
        "speech-44k": "speech-44k",
    }
    models = {
        name: MdctFlow(spec, n_flows=0, source=True, refine="default").fused()
        for name, spec in specs.items()
    }
    recordings = ROOT / "data/unseen-speakers/test/44k"
    result = copy_synthesis.evaluate(models, recordings, measures=MEASURES, device="cpu")
    save_result(result, RESULTS / "conventions.json")


if __name__ == "__main__":
    main()
