"""Builds the corpus festvox-ru, recorded Russian speech, from Debian's package of that name.

    apt-get install festvox-ru
    python recipes/festvox-ru/build.py                   620 sentences, 99.5 minutes
    python recipes/festvox-ru/build.py --sample --output recipes/ljspeech/sample

The second builds the sample corpus of this repository as FLAC: 26 of the sentences of 3 to 8 s,
evenly spaced in the order of their ids. Either way every sample equals that of the original
recording, and nothing is written until all sentences have been found usable.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile

from vocoder.atomic import atomic_path, write_atomic

VOICE = Path("/usr/share/festival/voices/russian/msu_ru_nsh_clunits")
COPYRIGHT = Path("/usr/share/doc/festvox-ru/copyright")
SAMPLE_COUNT = 26
SAMPLE_SECONDS = (3.0, 8.0)
FULL_SCALE = 32767
SILENT_RMS = 100.0  # 16-bit steps; speech of this voice has an RMS of 3,100 to 4,600


def read_transcripts(path: Path) -> dict[str, str]:
    """Reads Festival's lines `( id "text" )`, in UTF-8, into id -> text."""
    transcripts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r'\(\s*(\S+)\s+"(.*)"\s*\)', line.strip())
        if match is None or "|" in line or '"' in match[2]:
            raise ValueError(f"{path}: cannot read the line {line!r}")
        transcripts[match[1]] = " ".join(match[2].split())
    return transcripts


def without_stress_marks(text: str) -> str:
    """Removes the `+` with which Festival's Russian text marks a stressed vowel."""
    return text.replace("+", "")


def choose_sample(wavs: list[Path]) -> list[Path]:
    """Returns the recordings of the sample corpus."""
    shortest, longest = SAMPLE_SECONDS
    fitting = [w for w in wavs if shortest <= soundfile.info(w).duration <= longest]
    if len(fitting) < SAMPLE_COUNT:
        raise ValueError(
            f"{len(fitting)} sentences of {shortest:g} to {longest:g} s, {SAMPLE_COUNT} needed"
        )
    return [fitting[int((i + 0.5) * len(fitting) / SAMPLE_COUNT)] for i in range(SAMPLE_COUNT)]


def read_checked(path: Path) -> tuple[np.ndarray, int]:
    """Reads 16-bit mono samples; raises ValueError if they are clipped or silent."""
    audio, sample_rate = soundfile.read(path, dtype="int16")
    level = audio.astype(np.float64)
    clipped = np.abs(level).max() >= FULL_SCALE
    if audio.ndim != 1 or clipped or np.sqrt((level**2).mean()) < SILENT_RMS:
        raise ValueError(f"{path}: not mono, clipped or silent")
    return audio, sample_rate


def write_flac(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """Writes FLAC, and reads it back to check that nothing was lost."""
    soundfile.write(path, audio, sample_rate, subtype="PCM_16", compression_level=1.0)
    if not np.array_equal(soundfile.read(path, dtype="int16")[0], audio):
        raise RuntimeError(f"{path}: differs from the original")


def copy(source: Path, target: Path) -> None:
    """Copies a file and its modification time, whole or not at all; an equal copy is kept."""
    if target.exists():
        before, now = source.stat(), target.stat()
        if (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns):
            return
    with atomic_path(target) as partial:
        shutil.copy2(source, partial)


def build(voice: Path, output: Path, sample: bool) -> str:
    """Writes the corpus, or the sample of it; returns one line about what it holds."""
    recordings = sorted((voice / "wav").glob("*.wav"))
    if not recordings:
        raise FileNotFoundError(
            f"there are no recordings in {voice / 'wav'}: install Debian's package festvox-ru, or "
            "name the folder that holds its wav/ and etc/ with --voice"
        )
    transcripts = read_transcripts(voice / "etc" / "txt.done.data")
    chosen = choose_sample(recordings) if sample else recordings
    seconds = sum(len(audio) / sample_rate for audio, sample_rate in map(read_checked, chosen))
    lines = [
        f"{path.stem}|{transcripts[path.stem]}|{without_stress_marks(transcripts[path.stem])}\n"
        for path in chosen
    ]

    wavs = output / "wavs"
    wavs.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        if sample:
            write_flac(wavs / f"{path.stem}.flac", *read_checked(path))
        else:
            copy(path, wavs / path.name)
    if not sample and COPYRIGHT.exists():
        copy(COPYRIGHT, output / "COPYRIGHT")
    # Last, and by renaming: a folder without this file is not a corpus.
    write_atomic(output / "metadata.csv", "".join(lines).encode())
    return f"{len(chosen)} utterances, {seconds:.1f} s, in {output}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--voice", type=Path, default=VOICE, help="folder with wav/ and etc/")
    parser.add_argument("--output", type=Path, default=Path("data/festvox-ru"))
    parser.add_argument("--sample", action="store_true", help="the sample corpus only, as FLAC")
    arguments = parser.parse_args()
    try:
        print(build(arguments.voice, arguments.output, arguments.sample))
    except (OSError, ValueError) as error:
        sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
