"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

CHECKPOINT = ("--checkpoint", "--model", "-c")

Checkpoint = Annotated[
    str | None,
    Option(
        *CHECKPOINT,
        help="Checkpoint directory, name of a bundled model, or hf:owner/name@revision on the "
        "Hugging Face Hub. \\[default: the bundled default]",
    ),
]
Acoustic = Annotated[
    str | None,
    Option(
        help="Acoustic model (text to mel), named likewise, or tacotron2: torchaudio's, downloaded "
        "once. \\[default: the bundled one]"
    ),
]
Temperature = Annotated[
    float | None,
    Option(
        "--temperature",
        "-t",
        help="Scale of the latent noise, usually 0 to 1. \\[default: the model's own]",
    ),
]
Seed = Annotated[int, Option(help="Seed of the latent noise.")]


def refinement(text: str) -> int | str:
    """A number of iterations as a number; names and levels as they are."""
    return int(text) if re.fullmatch(r"\s*-?\d+\s*", text) else text.strip()


Refine = Annotated[
    Any,  # int | str | None, which Typer does not read
    Option(
        parser=refinement,
        metavar="LEVELS",
        help="Iterations that match the output's mel to the input: fast, default, best, a number, "
        "or levels such as 8:32+1:2; 0 for none. \\[default: the model's own]",
    ),
]
Restore = Annotated[
    float | None,
    Option(
        help="How far mels that no audio has, such as an acoustic model's, become mels of speech "
        "first: 0 (as they are) to 1. \\[default: 1 where the model has a restoring flow]"
    ),
]
Device = Annotated[str, Option(help="auto, cpu or cuda.")]
MelSpec = Annotated[str, Option("--mel-spec", help="Preset that the mel follows.")]

AudioInput = Annotated[Path, Argument(help="Audio file of any format and sample rate, or -.")]
AudioOutput = Annotated[
    Path,
    Option("--output", "-o", help="Audio file to write, or - for a WAV stream to standard output."),
]
Force = Annotated[bool, Option("--force", "-f", help="Overwrite the output file.")]

Json = Annotated[bool, Option("--json", help="Print the result as JSON to standard output.")]
JsonOutput = Annotated[Path | None, Option("--output", "-o", help="JSON file for the result.")]
Host = Annotated[str, Option(help="Address to listen on.")]
