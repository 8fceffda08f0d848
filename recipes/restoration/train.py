"""Train the restoring flow on any folder of speech of many voices.

    python recipes/restoration/train.py --data data/many-voices

Run the same command again to resume. All options: --help; the resulting configuration:
--print_config.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    try:
        from vocoder.training.recipe import main
        from vocoder.training.restoration import RestorationRecipe
    except ModuleNotFoundError as error:
        sys.exit(f"train.py: {error.name} is not installed: run `pip install .` in the repository")
    recipe = RestorationRecipe(
        description="Train the restoring flow: acoustic models' mels to mels of speech.",
        default_config=HERE / "config" / "restoration.yaml",
        sample=HERE.parent / "ljspeech" / "sample",
    )
    sys.exit(main(recipe))
