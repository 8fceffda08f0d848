"""Rebuilds the sample corpus beside this file from Debian's package `festvox-ru`.

    apt-get install festvox-ru
    python recipes/ljspeech/sample/build.py

The rule: of the sentences lasting 3 to 8 s, ordered by id, take 26 at equal distances. FLAC is
lossless: every sample is read back and compared with the original. Nothing is written before all
sentences have been found usable.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import soundfile

VOICE = Path("/usr/share/festival/voices/russian/msu_ru_nsh_clunits")
COUNT = 26
SECONDS = (3.0, 8.0)
CLIPPED = 32767  # full scale of 16-bit samples
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


def choose(voice: Path) -> list[Path]:
    """Returns the wav files the rule above picks."""
    wavs = sorted((voice / "wav").glob("*.wav"))
    fitting = [w for w in wavs if SECONDS[0] <= soundfile.info(w).duration <= SECONDS[1]]
    if len(fitting) < COUNT:
        raise ValueError(
            f"{voice}: {len(fitting)} sentences of {SECONDS[0]:g} to {SECONDS[1]:g} s, "
            f"{COUNT} needed; is festvox-ru installed?"
        )
    return [fitting[int((i + 0.5) * len(fitting) / COUNT)] for i in range(COUNT)]


def read_checked(path: Path) -> tuple[np.ndarray, int]:
    """Reads 16-bit mono samples; raises ValueError if they are clipped or silent."""
    audio, sample_rate = soundfile.read(path, dtype="int16")
    level = audio.astype(np.float64)
    if audio.ndim != 1 or np.abs(level).max() >= CLIPPED or np.sqrt((level**2).mean()) < SILENT_RMS:
        raise ValueError(f"{path}: not mono, clipped or silent")
    return audio, sample_rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--voice", type=Path, default=VOICE, help="folder with wav/ and etc/")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()

    transcripts = read_transcripts(arguments.voice / "etc" / "txt.done.data")
    chosen = {path.stem: read_checked(path) for path in choose(arguments.voice)}
    lines = [f"{i}|{transcripts[i]}|{without_stress_marks(transcripts[i])}\n" for i in chosen]

    wavs = arguments.output / "wavs"
    wavs.mkdir(parents=True, exist_ok=True)
    for utterance, (audio, sample_rate) in chosen.items():
        path = wavs / f"{utterance}.flac"
        soundfile.write(path, audio, sample_rate, subtype="PCM_16", compression_level=1.0)
        if not np.array_equal(soundfile.read(path, dtype="int16")[0], audio):
            raise RuntimeError(f"{path}: differs from the original")
    (arguments.output / "metadata.csv").write_text("".join(lines), encoding="utf-8", newline="\n")
    seconds = sum(len(audio) / sample_rate for audio, sample_rate in chosen.values())
    print(f"{len(chosen)} utterances, {seconds:.1f} s, in {arguments.output}")


if __name__ == "__main__":
    main()
