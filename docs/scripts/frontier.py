"""Measures the frontier: quality against processor time, by vocoder and number of sweeps.

    python docs/scripts/frontier.py --recordings data/unheard-speech/test/22k
    python docs/scripts/frontier.py --model large=runs/large/model --only large
    python docs/scripts/frontier.py --times
    python docs/scripts/frontier.py --draw

Copy synthesis by white noise shaped by the mel, by a harmonic source, by Griffin-Lim and by trained
models, each with 0 to 64 sweeps of mel consistency. Every value goes into
docs/results/frontier.json as soon as it is measured, and what is there is not measured again: an
interrupted run continues when the same command is given again. The times come last, all in one run;
--times measures them alone. --draw only draws docs/pictures/frontier.png, as does the end of every
run; python docs/scripts/tables.py then fills docs/frontier.md.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

import vocoder
from paths import PICTURES, RESULTS, ROOT, SAMPLES
from report import frontier as report
from vocoder.audio import LogMel, MelSpec, check_refine
from vocoder.evaluation import METRICS, measure
from vocoder.evaluation.copy_synthesis import (
    GRIFFIN_LIM,
    MEASURES,
    available,
    without_reference,
)
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.recordings import find_recordings, read_recording
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.evaluation.systems import Vocos
from vocoder.models import MdctFlow, Vocoder
from vocoder.pretrained import ACOUSTIC_NAME, bundled_models

FILE = RESULTS / "frontier.json"
RECORDINGS = ROOT / "data/unheard-speech/test/22k"
SPEECH = SAMPLES / "english.recording.flac"  # what is timed
SWEEPS = (0, 2, 4, 8, 16, 32, 64)
LIMIT = 8  # recordings
SECONDS = 6.0  # of each recording at most
SEED = 0
LENGTHS = (5.0, 20.0)  # seconds of audio made at once when timed
ROUNDS = 7
TIMED_SWEEPS = 32  # enough to stand out from the pass; each costs the same

UNTRAINED: Mapping[str, Mapping[str, Any]] = {
    "white noise": {},
    "harmonic source": {"source": True},
}
"""Arguments of the `MdctFlow` of each base density, whose steps are left out."""


@dataclass(frozen=True)
class System:
    """What turns a mel (n_mels, frames) and a number of sweeps into audio (samples,)."""

    name: str
    synthesize: Callable[[Tensor, int], Tensor]
    facts: Mapping[str, Any]
    """trained; parameters; temperature; weights: their digest, which changes when they do."""
    learnt_sweeps: int = 0
    """The first sweeps, which cost more than those that follow."""


# -- what is measured ------------------------------------------------------------------------------


def systems(spec: MelSpec, given: Mapping[str, str]) -> list[System]:
    """Both base densities, Griffin-Lim, the bundled models of this mel and those given.

    Args:
        spec: the mel that all of them start from.
        given: name -> checkpoint.

    Raises:
        ValueError: a model given has another mel, or the name of another system.
    """
    found = []
    for name, arguments in UNTRAINED.items():
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = MdctFlow(spec, n_flows=0, **arguments).fused()
        found.append(_system(name, model, trained=False))
    inverse = functools.cache(lambda n: griffin_lim(spec, SEED, refine=n))
    facts = {"trained": False, "parameters": 0, "temperature": None, "weights": ""}
    found.append(System(GRIFFIN_LIM, lambda mel, n: inverse(n)(mel), facts))
    for name in bundled_models():
        model = None if name == ACOUSTIC_NAME else vocoder.load(name)
        if model is not None and model.mel_spec == spec:
            found.append(_system(name, model))
    for name, path in given.items():
        model = vocoder.load(path)
        if model.mel_spec != spec:
            raise ValueError(
                f"{name} ({path}) has another mel than the bundled default: quality compares only "
                "where all start from the same mel"
            )
        if name in {system.name for system in found}:
            raise ValueError(f"there is a system named {name!r} already: name the model otherwise")
        found.append(_system(name, model))
    return found


def _system(name: str, model: Vocoder, trained: bool = True) -> System:
    digest = hashlib.sha256(json.dumps(model.config, sort_keys=True, default=str).encode())
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.cpu().numpy().tobytes())
    facts = {
        "trained": trained,
        "parameters": sum(p.numel() for p in model.parameters()) if trained else 0,
        "temperature": model.default_temperature,
        "weights": digest.hexdigest()[:16],
    }
    return System(
        name,
        lambda mel, n: model.synthesize(mel, seed=SEED, refine=n),
        facts,
        model.config.get("learnt_sweeps", 0),
    )


def chosen(folder: Path, limit: int) -> list[Path]:
    """The first so many recordings of a folder, its voices in turn.

    The voices are those of a `list.csv` (columns file and voice) one or two folders
    above, as recipes/unheard-speech writes it; without one, all recordings count as one voice.
    """
    voices = {}
    for parent in folder.resolve().parents[:2]:
        if (parent / "list.csv").is_file():
            with (parent / "list.csv").open(encoding="utf-8", newline="") as file:
                voices = {Path(row["file"]).name: row["voice"] for row in csv.DictReader(file)}
    groups: dict[str, list[Path]] = {}
    for path in find_recordings(folder):
        groups.setdefault(voices.get(path.name, ""), []).append(path)
    turns = itertools.zip_longest(*groups.values())
    return [path for turn in turns for path in turn if path is not None][:limit]


# -- quality ---------------------------------------------------------------------------------------


def measure_quality(
    result: dict[str, Any],
    found: Sequence[System],
    paths: Iterable[Path],
    sweeps: Sequence[int],
    spec: MelSpec,
    save: Callable[[], object],
) -> None:
    """Adds the missing values to ``result``, and saves it after each.

    Raises:
        ValueError: it holds values of other recordings, or a recording cannot be used.
    """
    wanted, left_out = available([name for name in MEASURES if name in report.SHOWN])
    result["left_out"] = left_out
    result["measures"] = {
        name: {"title": m.title, "unit": m.unit, "better": m.better}
        for name, m in ((name, MEASURES[name]) for name in wanted)
    }
    longest = round(SECONDS * spec.sample_rate) // spec.hop_length * spec.hop_length
    recordings = {path.name: read_recording(path, spec)[:longest] for path in paths}
    seconds = {name: len(audio) / spec.sample_rate for name, audio in recordings.items()}
    if result.setdefault("recordings", seconds) != seconds:
        raise ValueError(
            "docs/results/frontier.json holds values of other recordings, with which these do not "
            "compare: give the same ones, or move the file away to begin anew"
        )
    known = result.setdefault("systems", {})
    values = result.setdefault("values", {})
    for system in found:
        if known.get(system.name) != system.facts:  # new, or other weights
            known[system.name] = dict(system.facts)
            values[system.name] = {}
    own = result.setdefault("recording", {})
    compared = [name for name in wanted if name in METRICS]
    log_mel = LogMel(spec)
    mels = {file: log_mel(recording) for file, recording in recordings.items()}
    for file, recording in recordings.items():
        if file not in own:
            own[file] = _rounded(without_reference(recording, spec, wanted))
    with Progress() as bar:
        task = bar.add_task("quality", total=len(found) * len(recordings) * len(sweeps))
        # Row by row, since what is shown are complete rows.
        for number, system, file in itertools.product(sweeps, found, recordings):
            bar.update(task, description=f"{system.name}, {number} sweeps: {file}", advance=1)
            row = values[system.name].setdefault(str(number), {})
            if file in row:
                continue
            # Every number of sweeps starts from a new pass, since sweeps have momentum, which ends
            # with them. The pass takes far less time than the measures.
            recording = recordings[file]
            audio = torch.zeros_like(recording)
            made = system.synthesize(mels[file], number)[: len(recording)]
            audio[: len(made)] = made  # Griffin-Lim's may end a hop early
            row[file] = _rounded(
                measure(recording, audio, spec.sample_rate, spec, compared)
                | without_reference(audio, spec, wanted)
            )
            save()


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Six digits, to keep the file small."""
    return {n: None if v is None else float(f"{v:.6g}") for n, v in values.items()}


# -- times -----------------------------------------------------------------------------------------


def measure_times(
    found: Sequence[System],
    spec: MelSpec,
    lengths: Sequence[float] = LENGTHS,
    rounds: int = ROUNDS,
    timed_sweeps: int = TIMED_SWEEPS,
) -> dict[str, Any]:
    """Seconds of computing per second of audio, medians of rounds in which all have their turn.

    A row has the system, the number of sweeps, the threads, the seconds of audio at once; and
    processor_seconds (of all threads of the process) and wall_seconds. Between the numbers of
    sweeps that are timed (0, the learnt ones, these and ``timed_sweeps``), and beyond them, time
    grows linearly.
    """
    before = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    speech = LogMel(spec)(vocoder.read_audio(SPEECH, spec.sample_rate)[0])
    jobs: dict[tuple[str, int, float], Callable[[], object]] = {}
    packaged = Vocos()
    left_out = {}
    try:
        packaged.load(torch.device("cpu"))
    except ImportError as error:
        left_out[report.VOCOS] = str(error)
    for length in lengths:
        frames = round(length * spec.sample_rate / spec.hop_length)
        mel = speech.repeat(1, -(-frames // speech.shape[1]))[:, :frames].contiguous()
        for system in found:
            first = system.learnt_sweeps
            for number in sorted({0, first, first + timed_sweeps}):
                jobs[system.name, number, length] = _job(system, mel, number)
        jobs[report.PRODUCTS, 0, length] = vocos_products(frames)
        if not left_out:
            samples = round(length * packaged.mel_spec.sample_rate)
            jobs[report.VOCOS, 0, length] = packaged.job(1, samples).run
    taken: dict[tuple[tuple[str, int, float], int], list[tuple[float, float]]] = {}
    threads = sorted({1, os.cpu_count() or 1})
    try:
        with Progress() as bar, torch.no_grad():
            task = bar.add_task("times", total=(rounds + 1) * len(threads) * len(jobs))
            # The first round warms up: it compiles, where there is something to compile.
            for turn, count in itertools.product(range(rounds + 1), threads):
                torch.set_num_threads(count)
                for key, run in jobs.items():
                    bar.update(task, description=f"times: {key[0]}", advance=1)
                    spent = _clocked(run)
                    if turn:
                        taken.setdefault((key, count), []).append(spent)
    finally:
        torch.set_num_threads(before)
    rows = []
    for ((name, number, length), count), spent in taken.items():
        processor, wall = (statistics.median(clock) / length for clock in zip(*spent, strict=True))
        rows.append(
            {
                "system": name,
                "sweeps": number,
                "threads": count,
                "audio_seconds": length,
                "processor_seconds": float(f"{processor:.4g}"),
                "wall_seconds": float(f"{wall:.4g}"),
            }
        )
    machine = machine_facts(torch.device("cpu")) | {"load_before": load, "rounds": rounds}
    gmac = VOCOS_MACS_PER_FRAME * spec.sample_rate / spec.hop_length / 1e9
    return {"machine": machine, "products_gmac": gmac, "left_out": left_out, "rows": rows}


def _job(system: System, mel: Tensor, number: int) -> Callable[[], object]:
    return lambda: system.synthesize(mel, number)


def _clocked(run: Callable[[], object]) -> tuple[float, float]:
    processor, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - processor, time.perf_counter() - wall


# Products of Vocos for each frame: 7 taps of 100 bands into 512 channels, 8 blocks of 512 to 1536
# and back, and 512 to the 1026 numbers of a spectrum (Siuzdak, 2023, arXiv 2306.00814; the
# configuration of 13.5 million parameters).
VOCOS_BLOCKS = 8
VOCOS_SHAPES = ((700, 512), *((512, 1536), (1536, 512)) * VOCOS_BLOCKS, (512, 1026))
VOCOS_MACS_PER_FRAME = sum(rows * columns for rows, columns in VOCOS_SHAPES)


def vocos_products(frames: int) -> Callable[[], object]:
    """The matrix products of Vocos alone, without what it does between them, for so many frames."""
    generator = torch.Generator().manual_seed(SEED)
    weights = {shape: torch.randn(shape, generator=generator) for shape in set(VOCOS_SHAPES)}
    inputs = {n: torch.randn(frames, n, generator=generator) for n in {s[0] for s in VOCOS_SHAPES}}
    return lambda: [torch.mm(inputs[shape[0]], weights[shape]) for shape in VOCOS_SHAPES]


# -- the command -----------------------------------------------------------------------------------


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    for number in numbers:
        check_refine(number)
    return sorted(set(numbers))


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure quality against processor time.")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="folder to judge by")
    parser.add_argument("--limit", type=int, default=LIMIT, help="recordings at most")
    parser.add_argument("--sweeps", type=_numbers, default=list(SWEEPS), help="as in 0,2,4")
    parser.add_argument(
        "--model", type=_named, action="append", default=[], metavar="NAME=PATH",
        help="a checkpoint to measure, too",
    )  # fmt: skip
    parser.add_argument("--only", action="append", metavar="SYSTEM", help="only this system")
    parser.add_argument("--times", action="store_true", help="only measure the times, again")
    parser.add_argument("--draw", action="store_true", help="only draw docs/pictures/frontier.png")
    given = parser.parse_args(words)
    result = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}

    def save() -> None:
        save_result(result, FILE)

    if not given.draw:
        try:
            spec = vocoder.load().mel_spec
            at_hand = systems(spec, dict(given.model))
            names = [system.name for system in at_hand]
            for name in given.only or []:
                if name not in names:
                    raise ValueError(f"there is no system {name!r}: choose from {', '.join(names)}")
            if not given.times:
                found = [s for s in at_hand if not given.only or s.name in given.only]
                paths = chosen(given.recordings, given.limit)
                measure_quality(result, found, paths, given.sweeps, spec, save)
        except ValueError as error:
            parser.error(str(error))
        timed = {row["system"] for row in result.get("times", {}).get("rows", [])}
        if given.times or not timed.issuperset(names):
            # One run, so that all compare: a system that is not at hand now loses its times.
            result["times"] = measure_times(at_hand, spec)
            save()
    if not {"times", "values"} <= result.keys():
        parser.error(f"{FILE.name} does not hold both quality and times yet: run without options")
    report.draw(result, PICTURES / "frontier.png")


if __name__ == "__main__":
    main()
