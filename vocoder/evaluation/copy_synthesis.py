"""Copy synthesis: recordings to mels and back by a vocoder, and how close to them it comes.

`evaluate` measures and returns plain JSON values, which `.tables` shows.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark.utils.timer import timer as synchronised_clock

from vocoder.audio import MelSpec, Refine, read_audio
from vocoder.audio.pcm import dequantise, fade, from_pcm16, to_pcm16
from vocoder.corpus import SUFFIXES, held_out, read_corpus
from vocoder.devices import device_named
from vocoder.models import Vocoder
from vocoder.text.acoustic import AcousticModel
from vocoder.text.frontend import TextError
from vocoder.text.speech import sentences, speak

from .baselines import GriffinLim
from .metrics import METRICS, RECOGNISER, Metric, MetricError, measure, tonal_artifacts_db
from .results import CONFIDENCE, Progress, Result, estimate, machine_facts

# Name of the row of an acoustic model with the first vocoder; begins those with the others.
SAY = "text to speech"

MEASURES: dict[str, Metric] = {
    **METRICS,
    "tonal_artifacts": Metric("tonal_artifacts", "tonal artifacts", "dB", "lower", None),
    "log_likelihood": Metric("log_likelihood", "log-likelihood", "nats/sample", "higher", None),
    "times_real_time": Metric("times_real_time", "times real time", "", "higher", None),
}
"""What is measured, by name: `METRICS`, and what needs a model."""

# The `METRICS` that recordings and text to speech have, too.
WITHOUT_RECORDING = ["envelope_depth", *(m.name for m in METRICS.values() if not m.reference)]

Values = dict[str, float | None]


class EvaluationError(ValueError):
    """There is nothing to evaluate; the message says why."""


def evaluate(
    models: Mapping[str, Vocoder],
    directory: str | os.PathLike[str],
    *,
    acoustic: AcousticModel | None = None,
    limit: int | None = None,
    measures: Sequence[str] | None = None,
    temperature: float | None = None,
    seed: int = 0,
    refine: Sequence[Refine] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Measure the copy synthesis of recordings.

    Every recording is made mono, resampled to the rate of the model, rounded to 16 bits and cut to
    whole mel frames. The recordings themselves, as far as measures need no reference, and
    Griffin-Lim join the models. The log-likelihood is that of the recording faded and dequantised
    as in training; the word error rate is that of English texts. Measures whose package is missing
    are left out; files that cannot be read, or that a system fails on, are skipped.

    Args:
        models: name -> model. The first is judged; the others are compared with it, in pairs.
        directory: see `find_recordings`.
        acoustic: adds rows of text to speech by it and each vocoder, from the texts.
        limit: evaluate at most N recordings.
        measures: names of `MEASURES` to take; all by default.
        temperature, seed: as in `Vocoder.synthesize`.
        refine: every model and Griffin-Lim are measured with each of these, in rows named by
            `row_name`. None: with their own, and those that have none also with the first's.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda": where the models are moved.
        progress: called with (steps done, steps in all, what is next).

    Returns:
        JSON values: about (settings, models, machine); measures (name -> title, unit, better);
        left_out (measure -> why) and skipped (file -> why); rows (name -> measure -> `estimate`
        over the files that have a value); differences (name of another row -> measure ->
        `estimate` of the first model less that row; log-likelihoods only at the same sample rate);
        files (file, seconds, and values: row -> measure -> value or None).

    Raises:
        EvaluationError: nothing to evaluate: no directory, no audio, none that could be used.
        ValueError: temperature, refine or device are out of range, or a measure is unknown.
    """
    unknown = [name for name in measures or () if name not in MEASURES]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    target, folder = device_named(device), Path(directory)
    recordings = dict(itertools.islice(find_recordings(folder).items(), limit))
    asked = [name for name in MEASURES if measures is None or name in measures]
    left_out = {name: why for name in asked if (why := MEASURES[name].missing)}
    first = next(iter(models.values()))
    systems = _systems({**models, GriffinLim.title: GriffinLim(first.mel_spec)}, refine)
    for model, iterations in systems.values():
        silence = model.to(target).mel(torch.zeros(24 * model.mel_spec.hop_length))
        # The first call compiles, which is not to be timed.
        model.synthesize(silence, temperature, seed, refine=iterations)
    wanted = [name for name in asked if name not in left_out]
    judge = _Judge(wanted, first.mel_spec, temperature, seed)
    files: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    total, report = len(recordings) * len(systems), progress or (lambda *_: None)
    for index, (path, text) in enumerate(recordings.items()):
        name = path.relative_to(folder).as_posix()
        try:
            script = []
            with contextlib.suppress(TextError):  # not English
                script = sentences(text or "")
            text = text if script else None
            recording = read_recording(path, first.mel_spec)
            rows = {"recording": judge.values(first, recording, text)}
            for turn, (row, system) in enumerate(systems.items(), index * len(systems)):
                report(turn, total, f"{name}: {row}")
                rows[row] = judge.copy(*system, path, name, text)
            if acoustic is not None and not script:
                raise ValueError(f"{name} has no English text to say")
            for row, (model, iterations) in systems.items():
                if acoustic is None:
                    break
                how: Any = {"temperature": temperature, "seed": seed, "refine": iterations}
                said = torch.from_numpy(np.concatenate([*speak(script, acoustic, model, **how)]))
                rows[f"{SAY}, {row}" if SAY in rows else SAY] = judge.values(model, said, text)
        except (ValueError, OSError) as error:
            skipped[name] = str(error)
        else:
            seconds = len(recording) / first.sample_rate
            files.append({"file": name, "seconds": seconds, "values": rows})
    report(total, total, "done")
    if not files:
        raise EvaluationError(
            f"none of the {len(recordings)} recordings in {folder} could be evaluated; the first: "
            f"{next(iter(skipped.values()))}"
        )
    rates = {row: model.sample_rate for row, (model, _) in systems.items()}
    facts = {
        row: {
            "architecture": model.architecture,
            "likelihood": model.likelihood,
            "parameters": sum(p.numel() for p in model.parameters()),
            "mel_spec": model.mel_spec.to_dict(),
            "temperature": model.default_temperature if temperature is None else temperature,
        }
        for row, (model, _) in systems.items()
    }
    return {
        "about": {
            "models": facts,
            "corpus": folder.resolve().name,
            "recogniser": RECOGNISER,
            "seed": seed,
            "refine": {row: iterations for row, (_, iterations) in systems.items()},
            "confidence": CONFIDENCE,
            "interval": "Student's t over recordings",
            "device": target.type,
            "threads": torch.get_num_threads(),
            "machine": machine_facts(target),
        },
        "measures": {
            name: {"title": m.title, "unit": m.unit, "better": m.better}
            for name, m in MEASURES.items()
            if name in wanted
        },
        "left_out": left_out,
        "skipped": skipped,
        **_summary([file["values"] for file in files], wanted, rates),
        "files": files,
    }


def _summary(files: list[dict[str, Values]], wanted: list[str], rates: dict[str, int]) -> Result:
    """The estimates of every row, and of the paired differences to the first system's."""
    _, judged, *others = files[0]

    def means(row: str, name: str) -> Result:
        return estimate([value for file in files if (value := file[row][name]) is not None])

    def differences(other: str, name: str) -> Result:
        pairs = [(file[judged][name], file[other][name]) for file in files]
        if name == "log_likelihood" and rates.get(other) != rates[judged]:
            pairs = []  # nats per sample, of other samples
        return estimate([a - b for a, b in pairs if a is not None and b is not None])

    return {
        "rows": {row: {name: means(row, name) for name in wanted} for row in files[0]},
        "differences": {row: {name: differences(row, name) for name in wanted} for row in others},
    }


@dataclass
class _Judge:
    """Takes the wanted measures, by a mel, of audio from models at a temperature and seed."""

    wanted: list[str]
    mel_spec: MelSpec
    temperature: float | None
    seed: int

    def values(
        self, model: Vocoder, audio: Tensor, text: str | None, recording: Tensor | None = None
    ) -> Values:
        """Of audio of a model; without a recording, what needs none."""
        if not audio.isfinite().all():
            raise ValueError(f"the {model.title} made NaN or infinity of it")
        among = WITHOUT_RECORDING if recording is None else METRICS
        taken = [name for name in self.wanted if name in among]
        reference, rate = audio if recording is None else recording, model.sample_rate
        found: Values = dict.fromkeys(self.wanted)
        found |= measure(reference, audio, rate, self.mel_spec, taken, text)
        if "tonal_artifacts" in found:
            with contextlib.suppress(MetricError):  # too short, or silent in some band
                spacing = rate / model.mel_spec.hop_length / 2  # what repeats every two frames
                found["tonal_artifacts"] = tonal_artifacts_db(audio, rate, spacing)
        return found

    def copy(
        self, model: Vocoder, refine: Refine, path: Path, name: str, text: str | None
    ) -> Values:
        """Of the copy of a recording by a model."""
        recording = read_recording(path, model.mel_spec)
        mel = model.mel(recording).to(model.device)
        started = synchronised_clock()
        made = model.synthesize(mel, self.temperature, self.seed, refine=refine)
        seconds = synchronised_clock() - started
        values = self.values(model, made[: len(recording)].cpu(), text, recording)
        if "times_real_time" in values:
            values["times_real_time"] = len(recording) / model.sample_rate / seconds
        if "log_likelihood" in values and model.likelihood:
            # Of the recording faded over a hop at its ends and dequantised.
            hop = model.mel_spec.hop_length
            levels = to_pcm16(fade(recording.numpy(), hop))
            rng = np.random.default_rng(zlib.crc32(name.encode(errors="surrogateescape")))
            audio = torch.from_numpy(dequantise(levels, rng))
            # A mel in the centred convention has one more frame, which belongs to no sample.
            mel = model.mel(torch.from_numpy(from_pcm16(levels)))[:, : len(audio) // hop]
            with torch.no_grad():
                values["log_likelihood"] = float(model.log_prob(audio, mel)) / len(audio)
        return values


def row_name(name: str, refine: Refine) -> str:
    """Name of the row of a model that is refined so, such as "default, 4 iterations"."""
    if isinstance(refine, int):
        return f"{name}, {refine} iteration{'' if refine == 1 else 's'}"
    if not isinstance(refine, str):
        refine = "+".join(f"{decimation}:{count}" for decimation, count in refine)
    return f"{name}, refine {refine}"


def _systems(
    models: Mapping[str, Vocoder], refine: Sequence[Refine] | None
) -> dict[str, tuple[Vocoder, Refine]]:
    """The models with their refinement, by the name of their row."""
    if refine is not None:
        return {row_name(n, value): (m, value) for n, m in models.items() for value in refine}
    found = {}
    shared = next(iter(models.values())).default_refine
    for name, model in models.items():
        found[name] = model, model.default_refine
        if shared and not model.default_refine:
            found[row_name(name, shared)] = model, shared
    return found


def find_recordings(directory: str | os.PathLike[str]) -> dict[Path, str | None]:
    """The recordings in a directory that a vocoder should be judged by, with their texts.

    In a corpus in LJSpeech's layout (a folder with `metadata.csv`) these are the test utterances of
    `vocoder.corpus.held_out`; in any other folder all audio files in it and below it, sorted by
    path, without texts. Files whose names begin with a dot are left out.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is no folder: give one with recordings in it")
    if (folder / "metadata.csv").is_file():
        test = set(held_out(folder).test)
        return {u.path: u.normalised for u in read_corpus(folder).utterances if u.id in test}
    files = (path for path in folder.rglob("[!.]*") if path.is_file())
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not found:
        raise EvaluationError(f"{folder} holds no audio ({', '.join(SUFFIXES)} files)")
    return dict.fromkeys(found)


def read_recording(path: Path, spec: MelSpec) -> Tensor:
    """A recording in 16 bits, resampled and cut to whole mel frames: (frames * hop,)."""
    audio, _ = read_audio(path, spec.sample_rate)
    samples = len(audio) // spec.hop_length * spec.hop_length
    if samples < spec.n_fft:
        raise ValueError(f"{path} is too short: a mel frame looks at {spec.n_fft} samples")
    return torch.from_numpy(from_pcm16(to_pcm16(audio[:samples].numpy())))
