"""Items to audio files, and the records of an output folder: corpus.json and two lists."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vocoder.atomic import write_atomic
from vocoder.audio import (
    AudioReader,
    AudioWriter,
    LogMel,
    Noise,
    Refine,
    check_mel,
    check_refine,
    check_temperature,
    read_audio,
    write_audio,
)
from vocoder.audio.reading import read_mel
from vocoder.bulk.items import Item, Outcome, item_seed
from vocoder.checkpoints import checkpoint_hash
from vocoder.devices import device_named
from vocoder.models import Vocoder
from vocoder.models.pieces import Counted, mel_pieces, unwarned
from vocoder.pretrained import find_model, load

RECORD = "corpus.json"
FAILED = "failed.csv"
WARNINGS = "warnings.csv"

LONG = 8192
"""Frames of mel in the longest item that is rendered at once; longer ones go in pieces. 95 s at
22,050 Hz and a hop of 256."""


@dataclass(frozen=True)
class Settings:
    """How a corpus is synthesised; the same for all its items.

    checkpoint, temperature, refine, restore: as in `vocoder.load` and `Vocoder.synthesize`. seed:
    of the corpus, see `item_seed`. device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: temperature, seed or refine are out of range.
    """

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

    Args:
        settings: the model and how to run it.
        output: the folder that the files go to.
        model_hash: that the checkpoint must have (`checkpoint_hash`): on another machine the same
            name could be of another model. None accepts any.

    Raises:
        CheckpointError, ValueError: there is no such model or device, or it is another model.
    """

    def __init__(self, settings: Settings, output: Path, model_hash: str | None = None) -> None:
        path = find_model(settings.checkpoint)
        if model_hash not in (None, checkpoint_hash(path)):
            raise ValueError(f"{path} is another model here than where the run was started")
        self.settings = settings
        self.output = output
        self.model: Vocoder = load(path).to(device_named(settings.device))
        self._log_mel = LogMel(self.model.mel_spec)

    def __call__(self, item: Item) -> Outcome:
        """Write the audio of an item; whatever is wrong with it becomes the outcome's failure."""
        path = audio_path(item, self.output)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", UserWarning)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                samples = self._long(item, path) if item.frames > LONG else self._short(item, path)
            except Exception as error:
                text = " ".join(str(error).split())
                if not text or not isinstance(error, ValueError | OSError):
                    text = f"{type(error).__name__}: {text}"
                return Outcome(item.name, failure=text)
        texts = dict.fromkeys(str(w.message) for w in seen if w.category is UserWarning)
        return Outcome(item.name, samples / self.model.sample_rate, warning="; ".join(texts))

    def _short(self, item: Item, path: Path) -> int:
        """Write an item in one pass; the number of samples."""
        spec, seed = self.model.mel_spec, item_seed(self.settings.seed, item.name)
        if item.is_mel:
            pieces = list(mel_pieces(read_mel(Path(item.source)), spec))
            mel = torch.from_numpy(np.concatenate(pieces, axis=1))
            samples = mel.shape[1] * spec.hop_length
        else:
            recording, _ = read_audio(item.source, self.model.sample_rate)
            mel, samples = self._log_mel(recording), len(recording)
            check_mel(mel, spec)
        settings = self.settings
        audio = self.model.synthesize(
            mel, settings.temperature, seed, refine=settings.refine, restore=settings.restore
        )
        write_audio(path, audio[:samples], self.model.sample_rate)
        return samples

    def _long(self, item: Item, path: Path) -> int:
        """Write an item in pieces, in constant memory; the number of samples."""
        seed = item_seed(self.settings.seed, item.name)
        settings = self.settings
        how = settings.temperature, seed, settings.refine, settings.restore
        with contextlib.ExitStack() as stack:
            if item.is_mel:
                mel = mel_pieces(read_mel(Path(item.source)), self.model.mel_spec)
                pieces: Iterator[Any] = unwarned(self.model.stream(mel, *how))
            else:
                reader = stack.enter_context(AudioReader(item.source, self.model.sample_rate))
                recording = Counted(reader)
                mel = self._log_mel.stream(recording)
                pieces = recording.cut(unwarned(self.model.stream(mel, *how)))
            file = stack.enter_context(AudioWriter(path, self.model.sample_rate))
            for piece in pieces:
                if len(piece):
                    file.write(piece)
        return file.samples


def audio_path(item: Item, output: Path) -> Path:
    """The file that an item's audio goes to."""
    return output / f"{item.name}.wav"


def is_there(item: Item, output: Path) -> bool:
    """Whether an item's audio is in the folder, and no older than its source.

    Files are written whole or not at all, so one that is there is complete.
    """
    try:
        return audio_path(item, output).stat().st_mtime >= Path(item.source).stat().st_mtime
    except OSError:
        return False


def begin(settings: Settings, source: Path, output: Path) -> dict[str, Any]:
    """Make the output folder ready, and write what makes its audio to corpus.json in it.

    Returns:
        What corpus.json holds: the model's hash, the settings that audio depends on, the source.

    Raises:
        ValueError: the folder holds the audio of other settings or another source, or other files;
            or the output is the source.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: name a folder")
    if output.resolve() == source.resolve():
        raise ValueError(f"{output} is the source itself: choose another folder for the audio")
    record = {
        "source": str(source.resolve()),
        "model": checkpoint_hash(find_model(settings.checkpoint)),
        "temperature": settings.temperature,
        "seed": settings.seed,
        "refine": settings.refine,
        "restore": settings.restore,
    }
    file = output / RECORD
    if not file.is_file():
        if output.is_dir() and any(not name.startswith(".") for name in os.listdir(output)):
            raise ValueError(
                f"{output} holds files that this command did not write (there is no {RECORD}): "
                "choose a new or empty folder"
            )
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(file, (json.dumps(record, indent=1) + "\n").encode())
        return record
    before = json.loads(file.read_text(encoding="utf-8"))
    for name, value in record.items():
        if before[name] != value:
            was, now = (str(v)[:12] if name == "model" else repr(v) for v in (before[name], value))
            raise ValueError(
                f"{output} was begun with {name} {was}, not {now}: choose another folder, or give "
                "the same settings to go on"
            )
    return record


def write_lists(output: Path, outcomes: Iterable[Outcome]) -> None:
    """Write failed.csv (id, reason) and warnings.csv (id, warning); no file where there is none."""
    outcomes = list(outcomes)
    for file, heading in ((FAILED, "reason"), (WARNINGS, "warning")):
        texts = ((o.name, o.failure if file == FAILED else o.warning) for o in outcomes)
        rows = sorted((name, text) for name, text in texts if text)
        if not rows:
            (output / file).unlink(missing_ok=True)
            continue
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("id", heading), *rows])
        write_atomic(output / file, text.getvalue().encode(errors="surrogateescape"))
