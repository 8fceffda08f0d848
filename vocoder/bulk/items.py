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

KINDS = (".npy", *SUFFIXES)


class Item(NamedTuple):
    """A mel or a recording to turn into audio."""

    name: str
    """Path of the audio below the output folder, without its suffix, with slashes."""
    source: Path
    frames: int = 0
    """Its length in mel frames, as its header has it; 0 if it cannot be read."""

    @property
    def is_mel(self) -> bool:
        return self.source.suffix.lower() == ".npy"

    def audio(self, output: Path) -> Path:
        """The file that its audio goes to."""
        return output / f"{self.name}.wav"


class Outcome(NamedTuple):
    """What became of an item: seconds of audio that was written, or why there is none."""

    name: str
    seconds: float = 0.0
    failure: str = ""
    warning: str = ""


def find(source: Path, output: Path) -> tuple[list[Item], list[Outcome]]:
    """The items of a folder or a list, and what cannot be one.

    In a folder these are all files of `KINDS` in it and below it, but for hidden ones, those in
    linked folders and those in ``output``. A list is a UTF-8 text file with a path on each line,
    relative to the list's folder, or the ``metadata.csv`` of a corpus: what follows a bar is
    ignored, and the suffix and the folder ``wavs`` may be left out. Paths that lead out of the
    folder, that name no file, or whose audio would have another's name are failed outcomes.

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
        raise ValueError(f"{source} holds or lists no mels and no recordings ({', '.join(KINDS)})")
    unique: dict[str, Item] = {}
    for item in found:
        # Where names differ in case alone, some file systems would keep one of the two.
        other = unique.setdefault(item.name.casefold(), item)
        if other != item:
            words = f"its audio would have the name of {other.source}'s"
            failed.append(Outcome(str(item.source), failure=words))
    return list(unique.values()), failed


def _in_folder(folder: Path, output: Path) -> list[Item]:
    found = []
    made, root = output.resolve(), folder.resolve()
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        made_here = root in made.parents and (root / inner).is_relative_to(made)
        if made_here or any(part.startswith(".") for part in inner.parts):
            continue
        if path.suffix.lower() in KINDS and path.is_file():
            found.append(Item(inner.with_suffix("").as_posix(), path))
    return found


def _in_list(path: Path, failed: list[Outcome]) -> list[Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read ({error}): it must be UTF-8 text") from error
    files, found = AudioFiles(path.parent, (*SUFFIXES, ".npy")), []
    for written in filter(None, (columns(line)[0].strip() for line in lines if line.strip())):
        try:
            name, file = files.find(written)
            if file is None:
                raise CorpusError(f"there is no such file in {path.parent}")
            found.append(Item(name, file))
        except (OSError, ValueError) as error:
            failed.append(Outcome(written, failure=str(error)))
    return found


def longest_first(items: Iterable[Item], spec: MelSpec) -> list[Item]:
    """The items with their frames, so sorted that no worker is left alone with a long one."""

    def frames(item: Item) -> int:
        try:
            if item.is_mel:
                return int(read_mel(item.source).shape[-1])
            seconds = soundfile.info(openable(item.source)).duration
            return spec.frames(int(seconds * spec.sample_rate))
        except (OSError, ValueError, IndexError, ZeroDivisionError, soundfile.LibsndfileError):
            return 0  # reading it will say why

    measured = [item._replace(frames=frames(item)) for item in items]
    return sorted(measured, key=lambda item: (-item.frames, item.name))


def item_seed(seed: int, name: str) -> int:
    """The seed of an item's noise, which neighbours do not share and other items do not change."""
    plain = unicodedata.normalize("NFC", name)
    digest = hashlib.sha256(f"{seed}: {plain}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big")
