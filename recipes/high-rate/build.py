"""Builds a small corpus of speech recorded at 44.1 kHz, and a folder of a voice to judge by.

    apt-get install tuxpaint-stamps-default
    python recipes/high-rate/build.py       data/high-rate and data/high-rate-unseen, half a minute

The recordings name the pictures of a paint program. Of the voices of `TRAINING` the corpus gets all
that pass `usable` of recipes/unseen-speakers; of the voice `UNSEEN` the other folder gets the first
`N_UNSEEN`, ordered by a hash of their names. README.md describes the voices.
"""

import argparse
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile

from vocoder.atomic import atomic_path, write_atomic
from vocoder.audio import to_pcm16

HERE = Path(__file__).parent

TRAINING = ("be", "ru")
"""Codes of the languages: a woman reads the Belarusian, a man the Russian."""

UNSEEN = "bg"
"""A man reads the Bulgarian."""

N_UNSEEN = 16
SAMPLE_RATE = 44100
SECONDS = (1.0, 10.0)


# The script that chooses recordings from the same package, to judge by.
speakers = SimpleNamespace(**runpy.run_path(str(HERE.parent / "unseen-speakers" / "build.py")))


def write(path: Path, audio: np.ndarray) -> None:
    """A FLAC file of 16 bits."""
    # Vorbis overshoots full scale where the original touched it.
    audio = audio * min(1.0, speakers.PEAK / np.abs(audio).max())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        soundfile.write(partial, to_pcm16(audio), SAMPLE_RATE, format="FLAC")


def copy(stamps: Path, language: str, folder: Path, limit: int | None = None) -> dict[str, str]:
    """Copy the usable recordings of a language; returns their texts by id."""
    texts: dict[str, str] = {}
    for recording in sorted(speakers.tuxpaint(stamps, language), key=speakers.rank):
        if len(texts) == limit:
            break
        audio, sample_rate = speakers.read(recording.path)
        if sample_rate == SAMPLE_RATE and speakers.usable(audio, sample_rate, SECONDS):
            write(folder / f"{recording.id}.flac", audio)
            texts[recording.id] = recording.text.replace("|", " ")
    if not texts:
        raise FileNotFoundError(
            f"there are no recordings of the language {language} in {stamps}: install Debian's "
            "package tuxpaint-stamps-default, or name its folder with --tuxpaint"
        )
    return texts


def build(stamps: Path, output: Path) -> str:
    """Write the corpus and the folder of the unseen voice; returns one line about them."""
    texts: dict[str, str] = {}
    for language in TRAINING:
        texts |= copy(stamps, language, output / "wavs")
    unseen = copy(stamps, UNSEEN, output.with_name(f"{output.name}-unseen"), N_UNSEEN)
    lines = "".join(f"{id}|{text}\n" for id, text in sorted(texts.items()))
    write_atomic(output / "metadata.csv", lines.encode())
    seconds = sum(soundfile.info(output / "wavs" / f"{id}.flac").duration for id in texts)
    return (
        f"{len(texts)} recordings, {seconds / 60:.1f} min, in {output}; {len(unseen)} of a voice "
        "to judge by"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tuxpaint", type=Path, default=speakers.TUXPAINT, help="the stamps")
    parser.add_argument("--output", type=Path, default=Path("data/high-rate"))
    arguments = parser.parse_args()
    try:
        print(build(arguments.tuxpaint, arguments.output))
    except (OSError, ValueError) as error:
        sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
