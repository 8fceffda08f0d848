"""Training: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a corpus in LJSpeech's layout.")
    ],
    acoustic: Annotated[
        bool, typer.Option("--acoustic", help="The acoustic model, text to mel, not the vocoder.")
    ] = False,
) -> None:
    """Train a vocoder, or an acoustic model, on a folder of speech.

    Further options are those of the recipe: vocoder train DIR --max_time 4h --run runs/my-voice.
    All of them: vocoder train DIR -- --help.
    """
    if str(directory).startswith("-"):
        raise ValueError(f"give the folder before {directory}: vocoder train DIR {directory}")
    from vocoder.training.recipe import CONFIGS, Recipe, main

    name, kind = "source", Recipe
    if acoustic:
        from vocoder.training.acoustic import AcousticRecipe

        name, kind = "acoustic", AcousticRecipe
    description = f"Train {'an acoustic model' if acoustic else 'a vocoder'} on a corpus."
    recipe = kind(description, CONFIGS / f"{name}.yaml", Path("sample"), "vocoder train")
    raise typer.Exit(main(recipe, [*context.args, "--data", str(directory)]))
