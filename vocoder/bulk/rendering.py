"""Items to audio files, and the records of an output folder: corpus.json and two lists."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocoder.atomic import write_atomic
from vocoder.audio import AudioReader, AudioWriter, LogMel, Refine, check_refine, check_temperature
from vocoder.audio.reading import read_audio, read_mel
from vocoder.bulk.items import Item, Outcome, item_seed
from vocoder.checkpoints import checkpoint_hash
from vocoder.models import Noise
from vocoder.models.pieces import from_mel, from_recording, mel_pieces
from vocoder.pretrained import find_model, load

RECORD, FAILED, WARNINGS = "corpus.json", "failed.csv", "warnings.csv"

MAKES_AUDIO = ("temperature", "seed", "refine", "restore")  # besides the model

LONG = 8192
"""Frames of mel, 95 s at 22,050 Hz, in the longest item that is rendered in one piece."""


@dataclass(frozen=True)
class Settings:
    """How all items of a corpus are synthesised: as in `vocoder.load` and `Vocoder.synthesize`."""

    checkpoint: str | None = None
    temperature: float | None = None
    seed: int = 0
    refine: Refine | None = None
    restore: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        Noise(self.seed)
        if self.temperature is not None:
            check_temperature(self.temperature)
        if self.refine is not None:
            check_refine(self.refine)


class Renderer:
    """Turns items into files; what a worker holds.

    ValueError if the model does not have `model_hash`: on another machine the same name may be that
    of another model.
    """

    def __init__(self, settings: Settings, output: Path, model_hash: str | None = None) -> None:
        path = find_model(settings.checkpoint)
        if model_hash not in (None, checkpoint_hash(path)):
            raise ValueError(f"{path} is another model here than where the run was started")
        self.settings, self.output = settings, output
        self.model = load(path, device=settings.device)
        self._log_mel = LogMel(self.model.mel_spec)

    def render(self, item: Item) -> Outcome:
        """Write the audio of an item, unless something is wrong with it."""
        return write(item, self.output, self.model.sample_rate, lambda: self._audio(item))

    def _audio(self, item: Item) -> Iterator[Any]:
        """All of it in one pass; a long item in pieces, and so in constant memory."""
        model, source = self.model, item.source
        how = {name: getattr(self.settings, name) for name in MAKES_AUDIO}
        how["seed"] = item_seed(self.settings.seed, item.name)
        if item.frames > LONG and item.is_mel:
            yield from from_mel(model, read_mel(source), **how)
        elif item.frames > LONG:
            yield from from_recording(model, AudioReader(source, model.sample_rate), **how)
        elif item.is_mel:
            pieces = list(mel_pieces(read_mel(source), model.mel_spec))
            yield model.synthesize(np.concatenate(pieces, axis=1), **how)
        else:
            recording, _ = read_audio(source, model.sample_rate)
            yield model.synthesize(self._log_mel(recording), **how)[: len(recording)]


def write(item: Item, output: Path, rate: int, audio: Callable[[], Iterator[Any]]) -> Outcome:
    """Write an item's audio piece by piece; whatever is wrong becomes the outcome's failure."""
    path = item.audio(output)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with AudioWriter(path, rate) as file:
                for piece in audio():
                    file.write(piece)
        except Exception as error:
            known = isinstance(error, ValueError | OSError) and str(error).strip()
            text = str(error) if known else f"{type(error).__name__}: {error}"
            return Outcome(item.name, failure=" ".join(text.split()))
    texts = dict.fromkeys(str(w.message) for w in seen if w.category is UserWarning)
    return Outcome(item.name, file.samples / rate, warning="; ".join(texts))


def is_there(item: Item, output: Path) -> bool:
    """Whether an item's audio is there (files are written whole), and no older than its source."""
    try:
        return item.audio(output).stat().st_mtime >= item.source.stat().st_mtime
    except OSError:
        return False


def make_folder(output: Path) -> None:
    """Make an output folder, unless it is there; ValueError if it is a file."""
    if output.is_file():
        raise ValueError(f"{output} is a file: name a folder")
    output.mkdir(parents=True, exist_ok=True)


def begin(settings: Settings, source: Path, output: Path) -> str:
    """Make the output folder ready, and write what makes its audio to corpus.json in it.

    Returns the hash of the model.

    Raises:
        ValueError: it is the source, or has other files, or audio of other settings or sources.
    """
    if output.resolve() == source.resolve():
        raise ValueError(f"{output} is the source itself: choose another folder for the audio")
    model = checkpoint_hash(find_model(settings.checkpoint))
    audio = {name: getattr(settings, name) for name in MAKES_AUDIO}
    text = json.dumps({"source": str(source.resolve()), "model": model, **audio}, indent=1) + "\n"
    make_folder(output)
    file = output / RECORD
    if not file.is_file():
        if any(not name.startswith(".") for name in os.listdir(output)):
            raise ValueError(
                f"{output} holds files that this command did not write (there is no {RECORD}): "
                "choose a new or empty folder"
            )
        write_atomic(file, text.encode())
    before = json.loads(file.read_text(encoding="utf-8"))
    for name, value in json.loads(text).items():
        if before[name] != value:
            raise ValueError(
                f"{output} was begun with {name} {before[name]!r}, not {value!r}: choose another "
                "folder, or give the same settings to go on"
            )
    return model


def write_lists(output: Path, outcomes: Sequence[Outcome]) -> None:
    """Write failed.csv (id, reason) and warnings.csv (id, warning); no file where there is none."""
    for file, heading, field in ((FAILED, "reason", "failure"), (WARNINGS, "warning", "warning")):
        rows = sorted((o.name, text) for o in outcomes if (text := getattr(o, field)))
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows([("id", heading), *rows])
        if rows:
            write_atomic(output / file, content.getvalue().encode(errors="surrogateescape"))
        else:
            (output / file).unlink(missing_ok=True)
