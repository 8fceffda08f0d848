"""Train the acoustic model, text to mel, on LJSpeech or on any English corpus in its layout.

    python recipes/ljspeech/train_acoustic.py                      LJSpeech
    python recipes/ljspeech/train_acoustic.py --data my-voice      a corpus of your own
    python recipes/ljspeech/train_acoustic.py --data data/voices \\
        --speech.voices '{"anna": "anna-", "bob": "bob-"}'

The last trains two voices, whose utterances have ids that begin with anna- and bob-. Run the same
command again to resume. All options: --help; the resulting configuration: --print_config.
"""

import sys
from pathlib import Path

from vocoder.training.acoustic import AcousticRecipe
from vocoder.training.recipe import CONFIGS, main

if __name__ == "__main__":
    recipe = AcousticRecipe(
        description="Train the acoustic model on LJSpeech, or on any corpus in its layout.",
        default_config=CONFIGS / "acoustic.yaml",
        sample=Path(__file__).parent / "sample",
    )
    sys.exit(main(recipe))
