"""Measures families of vocoders on the same speech, for docs/families_speech.md.

    python docs/scripts/families_speech.py --model flow=default --model VAE=runs/vae \\
        --speech "human voices=data/unheard-speech/development/22k"
    python docs/scripts/families_speech.py --draw

Copy synthesis of some recordings by every model given and by references that are not trained, with
0, 4 and 16 sweeps of mel consistency; likelihood, diversity over seeds, speed and facts of the
training of each model. A model is a run folder, a checkpoint or the name of bundled weights. Every
model goes into docs/results/families_speech.json as soon as it is measured, and stays until another
one is measured under its name or --forget names it. --draw only draws docs/pictures/flow_gan.png,
as does the end of every run; python docs/scripts/tables.py then fills the document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import vocoder
from paths import PICTURES, RESULTS
from vocoder.audio import MelSpec
from vocoder.evaluation import measure
from vocoder.evaluation.copy_synthesis import MEASURES, available, without_reference
from vocoder.evaluation.estimates import estimate
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.plots import new_figure, save_figure
from vocoder.evaluation.recordings import faded_and_dequantised, read_recording
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models import MdctFlow, Vocoder, load_checkpoint

FILE = RESULTS / "families_speech.json"
SWEEPS = (0, 4, 16)
WANTED = (
    "pesq", "stoi", "log_mel_distance", "periodicity_error", "voicing_f1", "tone_excess",
    "log_likelihood",
)  # fmt: skip
LIMIT = 6  # recordings, spread over a folder
SECONDS = 4.0  # of each recording at most
SEEDS = 3  # for the diversity
ROUNDS = 3  # for the speed
SPEC = MelSpec.preset("ljspeech")
REFERENCES = ("Griffin-Lim", "harmonic source")

Synthesize = Callable[[Tensor, int, int], Tensor]
"""From a mel (n_mels, frames), a number of sweeps and a seed to audio."""


# -- models ----------------------------------------------------------------------------------------


def checkpoint(place: str) -> tuple[Path | None, Path | None]:
    """The checkpoint and the run folder of a model, either None where there is none of it."""
    path = Path(place)
    if (path / "model" / "config.json").is_file():
        return path / "model", path
    return (path, None) if path.exists() else (None, None)


def digest(model: Vocoder) -> str:
    """Changes when the weights do; the number of sweeps, which is given here, does not count."""
    config = {key: value for key, value in model.config.items() if key != "refine"}
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for key, value in sorted(model.state_dict().items()):
        found.update(key.encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def training(place: str) -> dict[str, Any]:
    """What a report or a model card says about the training, and a run's parent."""
    path, run = checkpoint(place)
    folder = run or path or Path(vocoder.__file__).parent / "weights" / place
    pages = [folder / name for name in ("report.md", "MODEL_CARD.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages if page.is_file())
    facts: dict[str, Any] = {}
    for key, name in (("audio seen", "audio_seen"), ("training time", "time"), ("steps", "steps")):
        found = re.search(rf"^- {key}: ([\d,.:]+)", text, re.MULTILINE)
        facts[name] = found[1].rstrip(",.:") if found else None
    if run is not None and (run / "config.yaml").is_file():
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        if config.get("start_from"):
            facts["started_from"] = digest(load_checkpoint(config["start_from"]).fused())
            own = [t for t in config["terms"] if t["class_path"].endswith(".Adversarial")]
            facts["adversarial_weight"] = own[0]["init_args"]["weight"] if own else 0.0
    return facts


# -- measuring -------------------------------------------------------------------------------------


def chosen(folder: Path) -> list[Path]:
    """Some recordings, spread evenly over a folder.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".wav", ".flac"))
    if not paths:
        raise ValueError(f"{folder} holds no recordings: give a folder with .wav or .flac files")
    return paths[:: max(1, len(paths) // LIMIT)][:LIMIT]


def quality(
    paths: list[Path], spec: MelSpec, synthesize: Synthesize, model: Vocoder | None
) -> dict[str, Any]:
    """Measures by the number of sweeps, as estimates over recordings."""
    wanted, _ = available(WANTED)
    values: dict[int, dict[str, list[float]]] = {n: {m: [] for m in wanted} for n in SWEEPS}
    for path in paths:
        hops = int(SECONDS * spec.sample_rate) // spec.hop_length
        recording = read_recording(path, spec)[: hops * spec.hop_length]
        mel = vocoder.audio.LogMel(spec)(recording)
        nats = None
        if model is not None and model.likelihood is not None:
            faded, noisy = faded_and_dequantised(recording, path.name, spec)
            frames = len(recording) // spec.hop_length
            nats = float(model.log_prob(noisy, model.mel(faded)[:, :frames])) / len(recording)
        for sweeps in SWEEPS:
            audio = synthesize(mel, sweeps, 0)[: len(recording)]
            compared = [name for name in wanted if name not in ("tone_excess", "log_likelihood")]
            found: dict[str, float | None] = {"log_likelihood": nats}
            found |= measure(recording, audio, spec.sample_rate, spec, compared)
            found |= without_reference(audio, spec, wanted)
            for name, own in values[sweeps].items():
                if (value := found.get(name)) is not None:
                    own.append(value)
    return {str(n): {name: estimate(own) for name, own in row.items()} for n, row in values.items()}


def diversity(mel: Tensor, synthesize: Synthesize) -> float:
    """How far audio of different seeds differs: 0 where it is the same, 1 where it is unrelated."""
    made = torch.stack([synthesize(mel, 0, seed) for seed in range(SEEDS)])
    middle = made.mean(dim=0)
    return float((made - middle).square().sum() / made.square().sum() * SEEDS / (SEEDS - 1))


def speed(mel: Tensor, spec: MelSpec, synthesize: Synthesize) -> float:
    """Seconds of audio per second of processor time, without sweeps."""
    seconds = []
    for turn in range(1 + ROUNDS):  # the first compiles, where there is something to compile
        before = time.process_time()
        synthesize(mel, 0, 0)
        if turn:
            seconds.append(time.process_time() - before)
    return mel.shape[1] * spec.hop_length / spec.sample_rate / statistics.median(seconds)


@torch.no_grad()
def measured(
    spec: MelSpec,
    synthesize: Synthesize,
    speech: dict[str, list[Path]],
    model: Vocoder | None,
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """The entry of one model; speech measured with the same weights before stays."""
    weights = "" if model is None else digest(model)
    if before is None or before["weights"] != weights:
        recording = read_recording(next(iter(speech.values()))[0], spec)
        hops = int(SECONDS * spec.sample_rate) // spec.hop_length
        mel = vocoder.audio.LogMel(spec)(recording[: hops * spec.hop_length])
        before = {
            "weights": weights,
            "diversity": diversity(mel, synthesize),
            "times_real_time": speed(mel, spec, synthesize),
            "speech": {},
        }
    for name, paths in speech.items():
        if name not in before["speech"]:
            before["speech"][name] = quality(paths, spec, synthesize, model)
    return before


def reference(name: str) -> tuple[MelSpec, Synthesize, Vocoder | None]:
    """A vocoder that nothing was learnt for."""
    if name == "Griffin-Lim":
        return SPEC, lambda mel, n, seed: griffin_lim(SPEC, seed, refine=n)(mel), None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        source = MdctFlow(SPEC, n_flows=0, source=True).fused()
    return SPEC, lambda mel, n, seed: source.synthesize(mel, seed=seed, refine=n), None


def trained(place: str) -> tuple[MelSpec, Synthesize, Vocoder]:
    """A model that was."""
    path, _ = checkpoint(place)
    model = vocoder.load(place) if path is None else load_checkpoint(path)
    model = model.fused()
    synthesize = lambda mel, n, seed: model.synthesize(mel, seed=seed, refine=n)  # noqa: E731
    return model.mel_spec, synthesize, model


# -- the curve of Flow-GAN -------------------------------------------------------------------------


def curve(result: dict[str, Any]) -> dict[float | None, dict[str, Any]]:
    """Runs of Flow-GAN by their adversarial weight, after the flow they started from (None)."""
    entries = result["models"].values()
    runs = [e for e in entries if e["training"].get("started_from")]
    parents = {e["training"]["started_from"] for e in runs}
    start = [e for e in entries if e["weights"] in parents]
    runs.sort(key=lambda e: e["training"]["adversarial_weight"])
    pairs = [(None, e) for e in start[:1]]
    return dict(pairs + [(e["training"]["adversarial_weight"], e) for e in runs])


def draw(points: dict[float | None, dict[str, Any]], path: Path) -> None:
    """Held-out nats against quality on the first speech, by adversarial weight and sweeps."""
    speech = next(iter(next(iter(points.values()))["speech"]))
    picture = new_figure(9, 3.6)
    for axes, name in zip(picture.subplots(1, 2), ("pesq", "voicing_f1"), strict=True):
        for sweeps in SWEEPS:
            rows = {w: e["speech"][speech][str(sweeps)] for w, e in points.items()}
            nats = [row["log_likelihood"]["mean"] for row in rows.values()]
            heights = [row[name]["mean"] for row in rows.values()]
            axes.plot(nats, heights, "o-", label=f"{sweeps} sweeps")
            for x, y, weight in zip(nats, heights, rows, strict=True):
                words = "start" if weight is None else f"{weight:g}"
                axes.annotate(words, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set_xlabel("held-out log-likelihood, nats per sample")
        axes.set_ylabel(MEASURES[name].title)
        axes.legend(fontsize="small")
    save_figure(picture, path, dpi=90)


# -- the command -----------------------------------------------------------------------------------


def named(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speech", type=named, action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--model", type=named, action="append", default=[], metavar="NAME=PLACE")
    parser.add_argument("--references", action="store_true", help=", ".join(REFERENCES))
    parser.add_argument("--forget", action="append", default=[], metavar="NAME")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"about": {}, "measures": {}, "recordings": {}, "models": {}}
    if FILE.is_file():
        result = json.loads(FILE.read_text(encoding="utf-8"))
    for name in options.forget:
        result["models"].pop(name, None)
    if not options.draw:
        if not options.speech:
            parser.error("there is no speech to measure on: give --speech NAME=DIR")
        speech = {name: chosen(Path(folder)) for name, folder in options.speech}
        result["about"] = {"threads": 1, "machine": machine_facts(torch.device("cpu"))}
        result["measures"] = {
            name: {"title": m.title, "unit": m.unit, "better": m.better}
            for name, m in MEASURES.items()
            if name in WANTED
        }
        for name, paths in speech.items():
            result["recordings"][name] = [path.name for path in paths]
        jobs = dict.fromkeys(REFERENCES, "") if options.references else {}
        for name, place in {**jobs, **dict(options.model)}.items():
            spec, synthesize, model = trained(place) if place else reference(name)
            entry = measured(spec, synthesize, speech, model, result["models"].get(name))
            entry |= {
                "family": "" if model is None else model.title,
                "likelihood": None if model is None else model.likelihood,
                "parameters": 0 if model is None else sum(p.numel() for p in model.parameters()),
                "sample_rate": spec.sample_rate,
                "training": training(place) if place else {},
            }
            result["models"][name] = entry
            save_result(result, FILE)
            print(f"{name}: measured", flush=True)  # noqa: T201
    save_result(result, FILE)
    points = curve(result)
    if len(points) > 1:
        draw(points, PICTURES / "flow_gan.png")


if __name__ == "__main__":
    main()
