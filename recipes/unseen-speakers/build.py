"""Builds unseen-speakers, recorded human voices that no bundled model was trained on, to judge by.

    apt-get install fillets-ng-data fillets-ng-data-cs tuxpaint-stamps-default
    python recipes/unseen-speakers/build.py                      data/unseen-speakers, a few seconds
    vocoder evaluate data/unseen-speakers/development            while choosing
    vocoder evaluate data/unseen-speakers/test                   for reporting only

`VOICES` says how many recordings of which voice go into each half. The recordings of a voice that
pass `usable` are ordered by a hash of their names; the first go into development, the next into
test. So the selection needs no seed and is the same everywhere.
"""

import argparse
import csv
import hashlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from vocoder.atomic import atomic_path, write_atomic
from vocoder.audio import to_pcm16

FILLETS = Path("/usr/share/games/fillets-ng")
TUXPAINT = Path("/usr/share/tuxpaint/stamps")
PACKAGES = "fillets-ng-data fillets-ng-data-cs tuxpaint-stamps-default"

HALVES = ("development", "test")
SECONDS = (2.0, 6.0)
PEAK = 0.99
CLIPPED_SHARE = 1e-3
QUIET_RMS = 0.01
RANGE_DB = 25.0


@dataclass(frozen=True)
class Voice:
    """A speaker, and how many recordings of them go into each half."""

    name: str
    language: str
    source: str
    """The font of the subtitles in Fish Fillets, the language code in Tux Paint."""
    development: int
    test: int
    level: str = "*"
    """The levels of Fish Fillets in which the part is played, as a file name pattern."""


VOICES = (
    Voice("small-fish", "Czech", "font_small", 7, 7),  # female lead
    Voice("big-fish", "Czech", "font_big", 7, 7),  # male lead
    Voice("viking1", "Czech", "font_viking1", 3, 0, "viking1"),  # male, 155 Hz
    Voice("viking4", "Czech", "font_viking4", 3, 0, "viking1"),  # male, 85 Hz; whispers in viking2
    Voice("viking3", "Czech", "font_viking3", 0, 2, "viking1"),  # male, 115 Hz
    Voice("viking5", "Czech", "font_viking5", 0, 1, "viking1"),  # male, 115 Hz
    Voice("snail", "Czech", "font_snail", 0, 3),  # male, 110 Hz
    Voice("romanian", "Romanian", "ro", 6, 6),  # female
    Voice("bulgarian", "Bulgarian", "bg", 6, 6),  # male
)
"""Development and test share the two leads and the two voices of Tux Paint, not the minor parts."""


@dataclass(frozen=True)
class Recording:
    """A recording in one of the packages, with its text."""

    id: str
    path: Path
    text: str


def fillets(folder: Path, font: str, level: str) -> Iterator[Recording]:
    """The Czech lines of Fish Fillets that are spoken by the part with this font of subtitles."""
    line = re.compile(
        r'dialogId\("([^"]*)",\s*"([^"]*)"[^\n]*\n\s*dialogStr\("((?:[^"\\]|\\.)*)"\)'
    )
    for script in sorted((folder / "script").glob(f"{level}/dialogs_cs.lua")):
        for name, part, text in line.findall(script.read_text(encoding="utf-8")):
            path = folder / "sound" / script.parent.name / "cs" / f"{name}.ogg"
            if part == font and path.is_file():
                plain = " ".join(text.replace('\\"', '"').split())
                yield Recording(f"{script.parent.name}_{name}", path, plain)


def tuxpaint(folder: Path, language: str) -> Iterator[Recording]:
    """The descriptions of Tux Paint's stamps in this language."""
    ending = f"_desc_{language}.ogg"
    for path in sorted(folder.rglob(f"*{ending}")):
        stem = path.name.removesuffix(ending)
        texts = path.with_name(f"{stem}.txt")
        lines = texts.read_text(encoding="utf-8").splitlines() if texts.is_file() else []
        found = [x.partition("=")[2] for x in lines if x.startswith(f"{language}.utf8=")]
        if found:
            id = "_".join([*path.relative_to(folder).parts[:-1], stem, language])
            yield Recording(id, path, " ".join(found[0].split()))


def read(path: Path) -> tuple[np.ndarray, int]:
    """Mono float32 samples, the mean of the channels, and the sample rate."""
    audio, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return audio.mean(axis=1), sample_rate


def usable(audio: np.ndarray, sample_rate: int, seconds: tuple[float, float] = SECONDS) -> bool:
    """Whether a recording is of the right length, not clipped, not nearly silent, and not noisy.

    Noise shows in pauses: over frames of 20 ms, the 5th percentile of the level must lie 25 dB
    below the 95th.
    """
    size = int(0.02 * sample_rate)
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-10)
    low, high = np.percentile(levels, [5, 95])
    clipped = np.mean(np.abs(audio) > PEAK) > CLIPPED_SHARE
    quiet = np.sqrt(np.mean(np.square(audio))) < QUIET_RMS
    fits = seconds[0] <= len(audio) / sample_rate <= seconds[1]
    return bool(fits and not clipped and not quiet and high - low >= RANGE_DB)


def rank(recording: Recording) -> bytes:
    """The place of a recording among those of its voice."""
    return hashlib.sha256(b"unheard: " + recording.id.encode()).digest()


def choose(voice: Voice, fillets_folder: Path, tuxpaint_folder: Path) -> dict[str, list[Recording]]:
    """The recordings of a voice for each half."""
    if voice.source.startswith("font_"):
        recordings = fillets(fillets_folder, voice.source, voice.level)
    else:
        recordings = tuxpaint(tuxpaint_folder, voice.source)
    wanted = voice.development + voice.test
    chosen: list[Recording] = []
    for recording in sorted(recordings, key=rank):
        if len(chosen) == wanted:
            break
        if usable(*read(recording.path)):
            chosen.append(recording)
    if len(chosen) < wanted:
        raise FileNotFoundError(
            f"{len(chosen)} recordings of {voice.name} were found and {wanted} are needed: install "
            f"Debian's packages {PACKAGES}, or name their folders with --fillets and --tuxpaint"
        )
    return {"development": chosen[: voice.development], "test": chosen[voice.development :]}


def build(fillets_folder: Path, tuxpaint_folder: Path, output: Path) -> str:
    """Write both halves and the list of them; returns one line that says what they hold."""
    # Everything is chosen before anything is written.
    chosen = [(voice, choose(voice, fillets_folder, tuxpaint_folder)) for voice in VOICES]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["half", "file", "voice", "language", "seconds", "text"])
    counts = dict.fromkeys(HALVES, 0)
    seconds = dict.fromkeys(HALVES, 0.0)
    for half in HALVES:
        for voice, recordings in chosen:
            for recording in recordings[half]:
                audio, sample_rate = read(recording.path)
                # Vorbis overshoots full scale where the original touched it.
                audio = audio * min(1.0, PEAK / np.abs(audio).max())
                name = Path("44k" if sample_rate > 22050 else "22k") / f"{recording.id}.wav"
                path = output / half / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as partial:
                    soundfile.write(partial, to_pcm16(audio), sample_rate, format="WAV")
                length = len(audio) / sample_rate
                row = [half, name.as_posix(), voice.name, voice.language]
                writer.writerow([*row, f"{length:.2f}", recording.text])
                counts[half] += 1
                seconds[half] += length
    write_atomic(output / "list.csv", table.getvalue().encode())
    return "; ".join(f"{half}: {counts[half]} recordings, {seconds[half]:.1f} s" for half in HALVES)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fillets", type=Path, default=FILLETS, help="holds script/ and sound/")
    parser.add_argument("--tuxpaint", type=Path, default=TUXPAINT, help="holds the stamps")
    parser.add_argument("--output", type=Path, default=Path("data/unseen-speakers"))
    arguments = parser.parse_args()
    try:
        print(build(arguments.fillets, arguments.tuxpaint, arguments.output))
    except (OSError, ValueError) as error:
        sys.exit(f"build.py: {error}")


if __name__ == "__main__":
    main()
