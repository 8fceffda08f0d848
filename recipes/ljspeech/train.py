"""Train a vocoder on LJSpeech, or on any corpus in its layout.

    python recipes/ljspeech/train.py                            LJSpeech, the default flow
    python recipes/ljspeech/train.py --data my-voice            a corpus of your own
    python recipes/ljspeech/train.py --data sample --config sound

Run the same command again to resume. All options: --help; the resulting configuration:
--print_config. The code is in `vocoder.training`, the description in README.md.
"""

import sys
from pathlib import Path

from vocoder.training.recipe import CONFIGS, Recipe, main

if __name__ == "__main__":
    recipe = Recipe(
        description="Train a vocoder on LJSpeech, or on any corpus in its layout.",
        default_config=CONFIGS / "source.yaml",
        sample=Path(__file__).parent / "sample",
    )
    sys.exit(main(recipe))
