"""Corpora of speech in LJSpeech's layout (see `read_corpus`): finding or downloading one, reading
its list, and splitting it into training, validation and test.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import logging
import os
import re
import shutil
import sys
import tarfile
import unicodedata
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


class CorpusError(ValueError):
    """A corpus is missing, unreadable or empty; the message says what to do."""


LJSPEECH_URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
LJSPEECH_SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass(frozen=True)
class Utterance:
    """One line of `metadata.csv` and the audio file it names."""

    id: str
    path: Path
    text: str
    normalised: str


@dataclass(frozen=True)
class Corpus:
    """The utterances of a corpus that have an audio file, in the order of `metadata.csv`."""

    folder: Path
    utterances: tuple[Utterance, ...]

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclass(frozen=True)
class Split:
    """Ids of the utterances for training, validation and test."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def only(self, usable: Container[str], folder: Path, why: str) -> Split:
        """The split with only the usable ids, of the corpus in `folder`; CorpusError, which says
        `why`, if nothing is left of one of the three."""
        left = {name: tuple(id for id in ids if id in usable) for name, ids in vars(self).items()}
        if empty := [name for name, ids in left.items() if not ids]:
            raise CorpusError(f"{folder}: every utterance for {empty[0]} was left out ({why})")
        return Split(**left)


def read_corpus(folder: str | Path) -> Corpus:
    """Read the list of a corpus in LJSpeech's layout: a folder with `metadata.csv` (UTF-8), one
    utterance a line, and `wavs/ID.wav` (or .flac, .ogg, .mp3) at any sample rate.

    A line has two, three or four columns: id, text; id, text, normalised text; id, speaker, text,
    normalised text. A column may be quoted as in CSV. The id may also be written as the file's
    name, ``ID.wav`` or ``wavs/ID.wav``. Names match in any Unicode normalisation, and suffixes in
    either case; ids are in form C.

    Malformed lines, repeated ids and lines whose audio file is missing are left out, with a
    warning that counts them.

    Raises:
        CorpusError: no `metadata.csv`, not UTF-8, no usable line in it, or an id that leads out of
            the corpus. (``wavs`` itself may be a link.)
    """
    folder = Path(folder)
    metadata = folder / "metadata.csv"
    if not metadata.is_file():
        raise CorpusError(
            f"{folder} has no metadata.csv: a corpus is a folder with metadata.csv "
            "(id|text|normalised text) and wavs/ID.wav"
        )
    try:
        lines = metadata.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{metadata} cannot be read ({error}): it must be UTF-8 text") from error
    files = AudioFiles(folder)
    utterances: dict[str, Utterance] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *texts = columns(line)
        if not 1 <= len(texts) <= 3 or not name.strip():
            left_out["malformed"].append(f"line {number}: {line[:60]!r}")
            continue
        try:
            id, path = files.find(name.strip())
        except CorpusError as error:
            raise CorpusError(f"{metadata}, line {number}: {error}") from None
        if id in utterances:
            left_out["repeated id"].append(f"line {number}: {id}")
        elif path is None:
            left_out["audio file missing"].append(f"line {number}: wavs/{id}.wav")
        else:
            text = texts[-2] if len(texts) > 1 else texts[0]
            utterances[id] = Utterance(id, path, text, texts[-1] if texts[-1].strip() else text)
    reasons = [f"{len(e)} lines left out, {why} (first: {e[0]})" for why, e in left_out.items()]
    for reason in reasons:
        log.warning("%s: %s", metadata, reason)
    if not utterances:
        raise CorpusError(f"{metadata} has no usable line: {'; '.join(reasons) or 'it is empty'}")
    return Corpus(folder, tuple(utterances.values()))


def check_texts(corpus: Corpus) -> None:
    """Check that what a corpus gives as its normalised texts are texts, for training on them.

    Raises:
        CorpusError: most are labels: on the whole shorter than the column before them, whose words
            they do not repeat.
    """

    def words(text: str) -> set[str]:
        return set(re.findall(r"[^\W\d_]+", text.casefold()))

    worded = [u for u in corpus.utterances if words(u.text)]
    labels = [u for u in worded if words(u.text).isdisjoint(words(u.normalised))]
    shorter = sum(len(u.normalised) - len(u.text) for u in labels) < 0
    if shorter and 2 * len(labels) > len(corpus.utterances):
        raise CorpusError(
            f"the last column of {corpus.folder / 'metadata.csv'}, such as "
            f"{labels[0].normalised.strip()!r}, does not repeat the words of the text before it: "
            "write id|text|normalised text, with further columns between id and text"
        )


def columns(line: str) -> list[str]:
    """The columns of a line; quotation marks are part of the text unless the line is valid CSV."""
    try:
        (row,) = csv.reader([line], delimiter="|", strict=True)
    except (csv.Error, ValueError):
        return line.split("|")
    return row


class AudioFiles:
    """The audio files of a corpus, in `wavs` or below or where its list says, found by the names
    that the list gives them; `suffixes` are in lower case."""

    def __init__(self, folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self.folder, self.suffixes = folder, suffixes
        self._inside = (folder.resolve(), (folder / "wavs").resolve())
        self._names = functools.cache(self._list)

    def find(self, name: str) -> tuple[str, Path | None]:
        """The id that `name` stands for, and its file, if there is one; CorpusError if the name, or
        a link, leads out of the corpus."""
        inner = unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("wavs/")
        if inner.startswith("/") or ".." in inner.split("/") or re.match("[A-Za-z]:", inner):
            raise CorpusError(
                f"the id {name!r} leads out of the corpus folder: give its name alone"
            )
        stem, suffix = os.path.splitext(inner)
        candidates = [(inner, inner + ending) for ending in self.suffixes]
        if suffix.lower() in self.suffixes:
            candidates.append((stem, inner))
        for start in ("wavs/", ""):
            for id, file in candidates:
                if path := self._file(start + file):
                    return id, path
        return inner, None

    def _file(self, name: str) -> Path | None:
        """The file of this name below the folder, in any Unicode normalisation."""
        parent, _, last = name.rpartition("/")
        found = self._names(parent).get(_key(last))
        if found is None or not found.is_file():
            return None
        real = found.resolve()
        if not any(real.is_relative_to(place) for place in self._inside):
            raise CorpusError(
                f"{found} is a link that leads out of the corpus folder, to {real}: put the "
                "recording itself there"
            )
        return found

    def _list(self, folder: str) -> dict[str, Path]:
        """What is in a folder of the corpus, by `_key`."""
        path = self.folder / folder
        return {_key(file.name): file for file in path.iterdir()} if path.is_dir() else {}


def _key(name: str) -> str:
    """A file name in Unicode's form C, its suffix in lower case."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    return stem + suffix.lower()


def split(ids: Sequence[str]) -> Split:
    """Choose validation and test utterances by a hash of their ids.

    With an id's hash read as a number u in [0, 1), the id is held out for the test if u < 0.02 and
    for validation if u >= 0.98. So the choice depends on neither seed nor order, and adding files
    to a corpus moves none of the others. If a small corpus gives fewer than three of either, the
    ids with the next hashes are added, as long as some are left to train on.

    Raises:
        CorpusError: fewer than three ids.
    """
    if len(ids) < 3:
        raise CorpusError(
            f"{len(ids)} utterances cannot be split into training, validation and test: "
            "a corpus needs at least 3"
        )
    hashes = {id: hashlib.sha256(b"split: " + id.encode()).digest() for id in ids}
    u = {id: int.from_bytes(digest[:8], "big") / 2**64 for id, digest in hashes.items()}
    ranked = sorted(ids, key=u.__getitem__)
    most = (len(ids) - 1) // 2
    n_test = min(max(3, sum(u[id] < 0.02 for id in ids)), most)
    n_validation = min(max(3, sum(u[id] >= 0.98 for id in ids)), most)
    held = dict.fromkeys(ranked[:n_test], "test")
    held |= dict.fromkeys(ranked[-n_validation:], "validation")
    sets = ("train", "validation", "test")
    return Split(*(tuple(id for id in ids if held.get(id, "train") == name) for name in sets))


def held_out(folder: str | Path) -> Split:
    """The split of the corpus in `folder` that the recipes use."""
    return split([utterance.id for utterance in read_corpus(folder).utterances])


def find_ljspeech(data_dir: str | Path = "data") -> Path | None:
    """LJSpeech, if it is in $LJSPEECH, `data_dir`/LJSpeech-1.1 or ./LJSpeech-1.1."""
    named = os.environ.get("LJSPEECH")
    if named and not (Path(named) / "metadata.csv").is_file():
        raise CorpusError(f"LJSPEECH names {named}, which has no metadata.csv")
    places = [Path(named)] if named else [Path(data_dir) / "LJSpeech-1.1", Path("LJSpeech-1.1")]
    return next((place for place in places if (place / "metadata.csv").is_file()), None)


def download_ljspeech(
    data_dir: str | Path = "data", url: str = LJSPEECH_URL, timeout: float = 60.0
) -> Path:
    """Download LJSpeech (2.6 GB), verify its checksum and unpack it, with a progress bar, in
    `data_dir`/.NAME.download; it is moved to `data_dir`/NAME when it is complete.

    `url` is that of `NAME.tar.bz2` with a folder NAME in it; `timeout`, in seconds, is of the
    connection and of every answer. CorpusError if there is none, or the checksum is wrong.
    """
    import pooch  # type: ignore[import-untyped]

    archive = url.rsplit("/", 1)[-1]
    name = archive.removesuffix(".tar.bz2")
    final, staging = Path(data_dir) / name, Path(data_dir) / f".{name}.download"
    shutil.rmtree(staging / name, ignore_errors=True)  # half unpacked by a killed run
    log.warning("downloading %s to %s", url, final)
    pooch.get_logger().setLevel(logging.WARNING)
    bar = sys.stderr is not None and sys.stderr.isatty()
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=timeout)
    try:
        pooch.retrieve(url, f"sha256:{LJSPEECH_SHA256}", archive, staging, downloader=downloader)
        # pooch would decompress the archive twice to unpack it.
        shutil.unpack_archive(staging / archive, staging, filter="data")
    except (OSError, ValueError, tarfile.TarError, EOFError) as error:
        raise CorpusError(
            f"{url} could not be downloaded ({error}): download it by hand and unpack it to "
            f"{final}, or train on another corpus with --data DIR or --data sample"
        ) from error
    os.replace(staging / name, final)
    shutil.rmtree(staging)
    return final
