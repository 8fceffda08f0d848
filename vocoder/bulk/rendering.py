"""Batches to audio files, and the records of an output folder: corpus.json and two lists."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from vocoder.bulk.items import BATCH_FRAMES, Item, Outcome, item_seed
from vocoder.checkpoints import checkpoint_hash
from vocoder.devices import device_named
from vocoder.models import Vocoder
from vocoder.models.pieces import Counted, mel_pieces, unwarned
from vocoder.pretrained import find_model, load

RECORD = "corpus.json"
FAILED = "failed.csv"
WARNINGS = "warnings.csv"


@dataclass(frozen=True)
class Settings:
    """How a corpus is synthesised; the same for all its items.

    checkpoint, temperature, refine: as in `vocoder.load` and `Vocoder.synthesize`. seed: of the
    corpus, see `item_seed`. device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: temperature, seed or refine are out of range.
    """

    checkpoint: str | None = None
    temperature: float | None = None
    seed: int = 0
    refine: Refine | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        Noise(self.seed)
        if self.temperature is not None:
            check_temperature(self.temperature)
        if self.refine is not None:
            check_refine(self.refine)


class Renderer:
    """Turns batches into files; what a worker holds.

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

    def __call__(self, batch: Iterable[Item]) -> list[Outcome]:
        """Write the audio of all items; one that fails does not keep the others from theirs.

        Files that are there already, because a worker died in the midst of this batch, are left as
        they are. Their items are rendered all the same: the rounding of a pass depends on how many
        share it.
        """
        batch = list(batch)
        outcomes: list[Outcome] = []
        lengths: dict[int, list[_Loaded]] = {}
        if all(is_there(item, self.output) for item in batch):
            return [Outcome(item.name) for item in batch]
        for item in batch:
            if item.frames > BATCH_FRAMES:
                outcomes.append(self._in_pieces(item))
            else:
                loaded = self._load(item)
                if isinstance(loaded, Outcome):
                    outcomes.append(loaded)
                else:
                    lengths.setdefault(loaded.mel.shape[1], []).append(loaded)
        for same in lengths.values():
            outcomes += self._pass(same)
        return outcomes

    def _load(self, item: Item) -> _Loaded | Outcome:
        with _watched() as seen:
            try:
                if item.is_mel:
                    pieces = list(mel_pieces(read_mel(Path(item.source)), self.model.mel_spec))
                    mel = torch.from_numpy(np.concatenate(pieces, axis=1))
                    samples = mel.shape[1] * self.model.mel_spec.hop_length
                else:
                    audio, _ = read_audio(item.source, self.model.sample_rate)
                    mel, samples = self._log_mel(audio), len(audio)
                    check_mel(mel, self.model.mel_spec)
            except Exception as error:  # whatever is wrong with it is the item's fault
                return Outcome(item.name, failure=_reason(error))
        return _Loaded(item, mel, samples, tuple(seen))

    def _pass(self, loaded: list[_Loaded]) -> list[Outcome]:
        """Items of one length in one pass, or one by one where something is wrong with any."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                audio = self._synthesized(loaded)
        except Exception:  # found out one by one
            if len(loaded) > 1:
                return [outcome for each in loaded for outcome in self._pass([each])]
        else:
            return [self._written(each, a, []) for each, a in zip(loaded, audio, strict=True)]
        with _watched() as seen:
            try:
                audio = self._synthesized(loaded)
            except Exception as error:
                return [Outcome(loaded[0].item.name, failure=_reason(error))]
        return [self._written(loaded[0], audio[0], seen)]

    def _synthesized(self, loaded: list[_Loaded]) -> Tensor:
        return self.model.synthesize(
            torch.stack([each.mel for each in loaded]),
            self.settings.temperature,
            [self._seed(each.item) for each in loaded],
            refine=self.settings.refine,
        )

    def _seed(self, item: Item) -> int:
        return item_seed(self.settings.seed, item.name)

    def _written(self, loaded: _Loaded, audio: Tensor, seen: Iterable[str]) -> Outcome:
        path, rate = audio_path(loaded.item, self.output), self.model.sample_rate
        try:
            if is_there(loaded.item, self.output):
                return Outcome(loaded.item.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, audio[: loaded.samples], rate)
        except (OSError, ValueError) as error:
            return Outcome(loaded.item.name, failure=_reason(error))
        warning = "; ".join(dict.fromkeys([*loaded.warnings, *seen]))
        return Outcome(loaded.item.name, loaded.samples / rate, warning=warning)

    def _in_pieces(self, item: Item) -> Outcome:
        """A long item, in constant memory."""
        path, model = audio_path(item, self.output), self.model
        with _watched() as seen:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with AudioWriter(path, model.sample_rate) as file:
                    for piece in self._streamed(item):
                        if len(piece):
                            file.write(piece)
            except Exception as error:
                return Outcome(item.name, failure=_reason(error))
        seconds = file.samples / model.sample_rate
        return Outcome(item.name, seconds, warning="; ".join(dict.fromkeys(seen)))

    def _streamed(self, item: Item) -> Iterator[Any]:
        how = (self.settings.temperature, self._seed(item), self.settings.refine)
        if item.is_mel:
            mel = mel_pieces(read_mel(Path(item.source)), self.model.mel_spec)
            yield from unwarned(self.model.stream(mel, *how))
            return
        with AudioReader(item.source, self.model.sample_rate) as reader:
            recording = Counted(reader)
            mel = self._log_mel.stream(recording)
            yield from recording.cut(unwarned(self.model.stream(mel, *how)))


@dataclass(frozen=True)
class _Loaded:
    """An item with its mel (n_mels, frames) and how many samples its audio will have."""

    item: Item
    mel: Tensor
    samples: int
    warnings: tuple[str, ...]


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Within the block, warnings for users are not shown but put into the list."""
    seen: list[str] = []
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if category is UserWarning:
                seen.append(str(message))
            else:
                before(message, category, *place, **more)

        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield seen


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


def _reason(error: Exception) -> str:
    """An error in a sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def render(
    batches: Iterable[list[Item]], settings: Settings, output: Path, model_hash: str | None = None
) -> Iterator[list[Outcome]]:
    """Render batches in this process: the outcomes of each as it is done."""
    yield from map(Renderer(settings, output, model_hash), batches)


def begin(settings: Settings, source: Path, output: Path) -> dict[str, Any]:
    """Make the output folder ready, and write what makes its audio to corpus.json in it.

    Returns:
        What corpus.json holds: the model's hash, the settings that audio depends on, the source.

    Raises:
        ValueError: the folder holds the audio of other settings or another source, or other files;
            or the output is the source.
    """
    source_path = str(source.resolve())
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: name a folder")
    if str(output.resolve()) == source_path:
        raise ValueError(f"{output} is the source itself: choose another folder for the audio")
    path = find_model(settings.checkpoint)
    record = {
        "source": source_path,
        "model": checkpoint_hash(path),
        "temperature": settings.temperature,
        "seed": settings.seed,
        "refine": settings.refine,
    }
    file = output / RECORD
    if file.is_file():
        _refuse_another(file, record)
        return record
    if output.is_dir() and any(not name.startswith(".") for name in os.listdir(output)):
        raise ValueError(
            f"{output} holds files that this command did not write (there is no {RECORD}): choose "
            "a new or empty folder"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(record, indent=1) + "\n").encode())
    return record


def _refuse_another(file: Path, record: dict[str, Any]) -> None:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("it holds no object")
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}): choose another folder") from error
    for name, value in record.items():
        if before.get(name) != value:
            shown = [str(v)[:12] if name == "model" else repr(v) for v in (before.get(name), value)]
            raise ValueError(
                f"{file.parent} was begun with {name} {shown[0]}, not {shown[1]}: choose another "
                "folder, or give the same settings to go on"
            )


def write_lists(output: Path, outcomes: Iterable[Outcome]) -> None:
    """Write failed.csv (id, reason) and warnings.csv (id, warning); no file where there is none."""
    outcomes = list(outcomes)
    for name, heading, field in ((FAILED, "reason", "failure"), (WARNINGS, "warning", "warning")):
        rows = [(o.name, text) for o in outcomes if (text := asdict(o)[field])]
        if not rows:
            (output / name).unlink(missing_ok=True)
            continue
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("id", heading), *sorted(rows)])
        write_atomic(output / name, text.getvalue().encode(errors="surrogateescape"))
