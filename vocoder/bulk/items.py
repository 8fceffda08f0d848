"""Inputs of a bulk run: mels and recordings of a folder or a list, longest first."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import soundfile

from vocoder.audio import MelSpec
from vocoder.audio.reading import openable, read_mel
from vocoder.corpus import SUFFIXES, AudioFiles, CorpusError, columns

MEL_SUFFIX = ".npy"


class Item(NamedTuple):
    """A mel or a recording to turn into audio."""

    name: str
    """Path of the audio below the output folder, without its suffix, with slashes."""
    source: str
    """The file of the mel or the recording."""
    frames: int = 0
    """Its length in mel frames, as its header has it; 0 if it cannot be read."""

    @property
    def is_mel(self) -> bool:
        return self.source.lower().endswith(MEL_SUFFIX)


class Outcome(NamedTuple):
    """What became of an item."""

    name: str
    seconds: float = 0.0
    """Of audio that was written."""
    failure: str = ""
    """Why there is no audio; empty if there is."""
    warning: str = ""
    """Warnings about it."""


def find(source: Path, output: Path) -> tuple[list[Item], list[Outcome]]:
    """The items of a folder or a list, and what cannot be one.

    In a folder these are all .npy, .wav, .flac, .ogg and .mp3 files in it and below it, but for
    hidden ones, those in linked folders and those in ``output``. A list is a UTF-8 text file with a
    path on each line, relative to the list's folder; what follows a bar is ignored, so that
    ``metadata.csv`` of a corpus is such a list, and as in such a corpus
    (`vocoder.corpus.read_corpus`) the suffix and the folder ``wavs`` may be left out. Paths that
    lead out of the folder, that name no file, or whose audio would have the name of another's are
    outcomes with a failure.

    Raises:
        ValueError: there is no such folder or list, or nothing in it; the list is not UTF-8.
    """
    failed: list[Outcome] = []
    if not source.exists():
        raise ValueError(
            f"there is no {source}: give a folder of mels or recordings, or a file that lists them"
        )
    found = _in_folder(source, output) if source.is_dir() else _in_list(source, failed)
    if not found and not failed:
        kinds = ", ".join((MEL_SUFFIX, *SUFFIXES))
        raise ValueError(f"{source} holds, or lists, no mels and no recordings ({kinds})")
    unique: dict[str, Item] = {}
    for item in found:
        # Where names differ in case alone, some file systems would keep one of the two.
        other = unique.setdefault(item.name.casefold(), item)
        if other != item:
            words = f"its audio would have the name of {other.source}'s"
            failed.append(Outcome(item.source, failure=words))
    return list(unique.values()), failed


def _in_folder(folder: Path, output: Path) -> list[Item]:
    found = []
    made, root = output.resolve(), folder.resolve()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        made_here = root in made.parents and (root / inner).is_relative_to(made)
        if made_here or any(part.startswith(".") for part in inner.parts):
            continue
        if path.suffix.lower() in (MEL_SUFFIX, *SUFFIXES) and path.is_file():
            found.append(Item(inner.with_suffix("").as_posix(), str(path)))
    return found


def _in_list(path: Path, failed: list[Outcome]) -> list[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read ({error}): it must be UTF-8 text") from error
    files = AudioFiles(path.parent, (*SUFFIXES, MEL_SUFFIX))
    found: list[Item] = []
    for written in filter(None, (columns(line)[0].strip() for line in lines if line.strip())):
        try:
            name, file = files.find(written)
            if file is None:
                raise CorpusError(f"there is no such file in {path.parent}")
            found.append(Item(name, str(file)))
        except (OSError, ValueError) as error:
            failed.append(Outcome(written, failure=str(error)))
    return found


def longest_first(items: Iterable[Item], spec: MelSpec) -> list[Item]:
    """The items with their frames, so sorted that no worker is left alone with a long one."""
    measured = [item._replace(frames=_frames(item, spec)) for item in items]
    return sorted(measured, key=lambda item: (-item.frames, item.name))


def _frames(item: Item, spec: MelSpec) -> int:
    """By the header of the file."""
    try:
        if item.is_mel:
            return int(read_mel(Path(item.source)).shape[-1])
        return spec.frames(int(soundfile.info(openable(item.source)).duration * spec.sample_rate))
    except (OSError, ValueError, IndexError, ZeroDivisionError, soundfile.LibsndfileError):
        return 0  # reading it will say why


def item_seed(seed: int, name: str) -> int:
    """The seed of an item's noise: a hash of the corpus's seed and the item's name.

    So neighbours do not share their noise, and adding or removing items changes no other.
    """
    plain = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(f"{seed}: {plain}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big")
