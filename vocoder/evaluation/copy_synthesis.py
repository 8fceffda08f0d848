"""Copy synthesis: recordings to mels and back by a vocoder, and how close to them it comes.

`evaluate` measures and returns plain JSON values, which `.tables` and `.plots` show. The measures
themselves are in `.metrics` and `.dnsmos`, the recordings in `.recordings`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocoder.audio import LogMel, MelSpec, Refine, check_refine
from vocoder.devices import device_named
from vocoder.extras import MissingExtraError, require
from vocoder.models import Vocoder

from .dnsmos import dnsmos
from .estimates import CONFIDENCE, estimate
from .griffin_lim import griffin_lim
from .metrics import METRICS, Metric, MetricError, measure, missing_metrics, tone_excess_db
from .recordings import EvaluationError, faded_and_dequantised, find_recordings, read_recording
from .results import Progress, Result, machine_facts, timed

RECORDING = "recording"
"""Name of the row of the recordings themselves."""

GRIFFIN_LIM = "Griffin-Lim"
"""Name of the row of Griffin-Lim."""

MEASURES: dict[str, Metric] = {
    **METRICS,
    "dnsmos": Metric("dnsmos", "DNSMOS", "MOS", "higher", None),
    "tone_excess": Metric("tone_excess", "tone excess", "dB", "lower", None),
    "log_likelihood": Metric("log_likelihood", "log-likelihood", "nats/sample", "higher", None),
    "times_real_time": Metric("times_real_time", "times real time", "", "higher", None),
}
"""What is measured, by name: `METRICS`, and what needs a model or no reference."""

_WARM_UP_SECONDS = 0.25
_LONGEST_WARM_UP = 10.0  # seconds; slower systems warm up on less


def evaluate(
    models: Mapping[str, Vocoder],
    directory: str | os.PathLike[str],
    *,
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
    whole mel frames. Its mel is turned back into audio, which is compared with it. Two points of
    reference join the models: the recordings themselves, for what needs no reference, and
    Griffin-Lim from the mel of the first model. The log-likelihood is that of the recording with
    its ends faded over one hop and dequantised with noise drawn by its name, as in training.

    Measures whose package is missing are left out and named. Files that cannot be read, or that a
    system fails on, are skipped for all systems and named.

    Args:
        models: name -> model. The first is judged; the others are compared with it, in pairs.
        directory: see `find_recordings`.
        limit: take only the first so many recordings.
        measures: names of `MEASURES` to take; all by default. Those of pitch take the longest.
        temperature: as in `Vocoder.synthesize`; None for the default of each model's family.
        seed: as in `Vocoder.synthesize`.
        refine: numbers of iterations or schedules, as in `Vocoder.synthesize`. Every model and
            Griffin-Lim are measured with each of them, in rows named "NAME, 4 sweeps", and "first
            model" below is the first model with the first number. None: a row for each model, with
            the model's own number, and Griffin-Lim without any.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda": where the models are moved.
        progress: called with (steps done, steps in all, what is next) before every step and once
            at the end.

    Returns:
        JSON values:

        - about: the settings (temperature: of the first model; refine: of every row but the
          recordings'), the facts of each row that has a model (likelihood: "exact", "lower bound"
          or None), the machine;
        - measures: name -> title, unit, and which is better;
        - left_out: measure -> why it could not be taken;
        - skipped: file -> why;
        - rows: name -> measure -> mean, lower, upper, n (see `estimate`), over the files where the
          measure has a value;
        - differences: name of another model -> measure -> the same of its paired differences,
          first model less the other. Log-likelihoods have none at different sample rates, nor
          for one model with different refinement, which do not enter the likelihood;
        - files: file, seconds, and values: name -> measure -> value, or None.

    Raises:
        EvaluationError: nothing to evaluate: no directory, no audio, none that could be used.
        ValueError: temperature, refine, device or limit are out of range, or a measure is unknown.
    """
    unknown = [name for name in measures or () if name not in MEASURES]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"the limit is {limit}: take at least 1 recording")
    target = device_named(device)
    folder = Path(directory)
    paths = find_recordings(folder)[:limit]
    wanted, left_out = available(MEASURES if measures is None else measures)
    variants, references = _variants(models, refine)
    systems = _systems(variants, references, temperature, seed, target)
    first = next(iter(models.values()))
    files: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    total = len(paths) * len(systems)
    for index, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        values: dict[str, dict[str, float | None]] = {}
        seconds = 0.0
        try:
            for turn, system in enumerate(systems):
                if progress is not None:
                    progress(index * len(systems) + turn, total, f"{name}: {system.name}")
                recording = read_recording(path, system.mel_spec)
                seconds = len(recording) / system.mel_spec.sample_rate
                if system.synthesize is not None and not files:
                    _warm_up(system, recording)
                values[system.name] = _judge(system, recording, name, wanted, first.mel_spec)
        except (ValueError, OSError) as error:
            skipped[name] = str(error)
            continue
        files.append({"file": name, "seconds": seconds, "values": values})
    if progress is not None:
        progress(total, total, "done")
    if not files:
        raise EvaluationError(
            f"none of the {len(paths)} recordings in {folder} could be evaluated; the first: "
            f"{next(iter(skipped.values()))}"
        )
    facts = {name: _facts(variant.model, temperature) for name, variant in variants.items()}
    return {
        "about": {
            "models": facts,
            "temperature": next(iter(facts.values()))["temperature"],
            "seed": seed,
            "refine": {s.name: s.refine for s in systems if s.synthesize is not None},
            "confidence": CONFIDENCE,
            "interval": "Student's t over recordings",
            "device": target.type,
            "threads": torch.get_num_threads(),
            "machine": machine_facts(target),
        },
        "measures": {
            name: {"title": m.title, "unit": m.unit, "better": m.better}
            for name, m in ((name, MEASURES[name]) for name in wanted)
        },
        "left_out": left_out,
        "skipped": skipped,
        "rows": _rows(files, [system.name for system in systems], wanted),
        "differences": _differences(files, variants, wanted),
        "files": files,
    }


def available(asked: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Of some names of `MEASURES`: those whose packages are installed, in the order of `MEASURES`,
    and why the others cannot be taken.
    """
    missing = missing_metrics()
    try:
        require("speechmos.dnsmos", "DNSMOS", "metrics")
    except MissingExtraError as error:
        missing["dnsmos"] = str(error)
    left_out = {name: why for name, why in missing.items() if name in asked}
    return [name for name in MEASURES if name in asked and name not in left_out], left_out


def _facts(model: Vocoder, temperature: float | None) -> dict[str, Any]:
    return {
        "family": model.family,
        "likelihood": model.likelihood,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mel_spec": dataclasses.asdict(model.mel_spec),
        "temperature": model.default_temperature if temperature is None else temperature,
    }


# -- what turns mels into audio --------------------------------------------------------------------


@dataclass(frozen=True)
class _Variant:
    """A model with its refinement."""

    model: Vocoder
    refine: Refine


def _variants(
    models: Mapping[str, Vocoder], refine: Sequence[Refine] | None
) -> tuple[dict[str, _Variant], dict[str, Refine]]:
    """The models by the name of their row, and the refinement of each row of Griffin-Lim."""
    if refine is None:
        own = {name: _Variant(model, model.default_refine) for name, model in models.items()}
        return own, {GRIFFIN_LIM: 0}
    if not refine:
        raise ValueError("refine is empty: give at least one number or schedule, or None")
    for value in refine:
        check_refine(value)

    def named(name: str, value: Refine) -> str:
        if isinstance(value, int):
            return f"{name}, {value} sweep{'' if value == 1 else 's'}"
        return f"{name}, refine {value}"

    variants = {
        named(name, value): _Variant(model, value)
        for name, model in models.items()
        for value in refine
    }
    return variants, {named(GRIFFIN_LIM, value): value for value in refine}


@dataclass(frozen=True)
class _System:
    """A row of the result: something that turns a mel into audio."""

    name: str
    mel_spec: MelSpec
    device: torch.device
    mel: Callable[[Tensor], Tensor]
    synthesize: Callable[[Tensor], Tensor] | None = None
    """Mel (n_mels, frames) -> audio, at least as long as the recording; None: the recording."""
    log_prob: Callable[[Tensor, Tensor], Tensor] | None = None
    refine: Refine = 0


def _systems(
    variants: Mapping[str, _Variant],
    references: Mapping[str, Refine],
    temperature: float | None,
    seed: int,
    device: torch.device,
) -> list[_System]:
    spec = next(iter(variants.values())).model.mel_spec
    cpu = torch.device("cpu")
    log_mel = LogMel(spec)
    found = [_System(RECORDING, spec, cpu, log_mel)]
    for name, variant in variants.items():
        model = variant.model.to(device)

        def synthesize(
            mel: Tensor, model: Vocoder = model, refine: Refine = variant.refine
        ) -> Tensor:
            return model.synthesize(mel, temperature, seed, refine=refine)

        log_prob = None if model.likelihood is None else model.log_prob
        found.append(
            _System(name, model.mel_spec, device, model.mel, synthesize, log_prob, variant.refine)
        )
    for name, value in references.items():
        invert = griffin_lim(spec, seed, refine=value)
        found.append(_System(name, spec, cpu, log_mel, invert, refine=value))
    return found


def _warm_up(system: _System, recording: Tensor) -> None:
    """The first call compiles, and the first of a length allocates: neither is to be timed."""
    synthesize = system.synthesize
    assert synthesize is not None
    spec, mel = system.mel_spec, system.mel(recording).to(system.device)
    frames = max(1, round(_WARM_UP_SECONDS * spec.sample_rate / spec.hop_length))
    synthesize(mel[:, :frames])
    seconds = timed(lambda: synthesize(mel[:, :frames]), system.device)
    if seconds * mel.shape[1] / frames < _LONGEST_WARM_UP:
        synthesize(mel)


# -- judging ---------------------------------------------------------------------------------------


def _judge(
    system: _System, recording: Tensor, name: str, wanted: Sequence[str], mel_spec: MelSpec
) -> dict[str, float | None]:
    """All values of one recording by one system; mels are compared in ``mel_spec``."""
    values: dict[str, float | None] = dict.fromkeys(wanted)
    synthesize, rate = system.synthesize, system.mel_spec.sample_rate
    if synthesize is None:
        return values | without_reference(recording, system.mel_spec, wanted)
    with torch.no_grad():
        mel = system.mel(recording).to(system.device)
        generated: list[Tensor] = []
        seconds = timed(lambda: generated.append(synthesize(mel)), system.device)
        audio = generated[0][: len(recording)].cpu()
        if not audio.isfinite().all():
            raise ValueError(f"{system.name} made NaN or infinity of it")
        compared = [name for name in wanted if name in METRICS]
        values |= measure(recording, audio, rate, mel_spec, compared)
        values |= without_reference(audio, system.mel_spec, wanted)
        if "log_likelihood" in values:
            values["log_likelihood"] = _log_likelihood(system, recording, name)
    if "times_real_time" in values:
        values["times_real_time"] = len(recording) / rate / seconds
    return values


def _log_likelihood(system: _System, recording: Tensor, name: str) -> float | None:
    """Nats per sample; None for a system that defines none."""
    if system.log_prob is None:
        return None
    spec = system.mel_spec
    faded, dequantised = faded_and_dequantised(recording, name, spec)
    # A mel in the centred convention has one more frame, which belongs to no sample.
    mel = system.mel(faded)[:, : len(recording) // spec.hop_length].to(system.device)
    nats = float(system.log_prob(dequantised, mel)) / len(recording)
    if not math.isfinite(nats):
        raise ValueError(f"{system.name} gives it no finite log-likelihood")
    return nats


def without_reference(
    audio: Tensor, mel_spec: MelSpec, wanted: Sequence[str]
) -> dict[str, float | None]:
    """The measures of the audio alone: DNSMOS, and tones of half the frame rate.

    Args:
        audio: (samples,), in [-1, 1], at the rate of ``mel_spec``.
        mel_spec: gives the frame rate.
        wanted: names of `MEASURES`; those of other kinds are passed over.
    """
    values: dict[str, float | None] = {}
    rate = mel_spec.sample_rate
    if "dnsmos" in wanted:
        values["dnsmos"] = dnsmos(audio, rate)
    if "tone_excess" in wanted:
        try:
            # What repeats every two frames has tones there, and so has what repeats every frame.
            values["tone_excess"] = tone_excess_db(audio, rate, rate / (2 * mel_spec.hop_length))
        except MetricError:  # too short, or silent in some band
            values["tone_excess"] = None
    return values


# -- totals ----------------------------------------------------------------------------------------


def _rows(
    files: Sequence[Mapping[str, Any]], systems: Sequence[str], wanted: Sequence[str]
) -> dict[str, dict[str, Any]]:
    rows = {}
    for system in systems:
        row = {}
        for name in wanted:
            values = [file["values"][system][name] for file in files]
            row[name] = estimate([value for value in values if value is not None])
        rows[system] = row
    return rows


def _differences(
    files: Sequence[Mapping[str, Any]], variants: Mapping[str, _Variant], wanted: Sequence[str]
) -> dict[str, dict[str, Any]]:
    (first, variant), *others = variants.items()
    own = variant.model
    found = {}
    for other, compared in others:
        row = {}
        model = compared.model
        for name in wanted:
            pairs = [(f["values"][first][name], f["values"][other][name]) for f in files]
            if name == "log_likelihood" and (own is model or own.sample_rate != model.sample_rate):
                pairs = []  # the same value, or nats per sample of different samples
            row[name] = estimate([a - b for a, b in pairs if a is not None and b is not None])
        found[other] = row
    return found
