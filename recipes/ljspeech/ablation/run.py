"""Trains variants of a model on the same budget and compares them on held-out speech.

    python recipes/ljspeech/ablation/run.py flow --data data/festvox-ru --max_time 15m \\
        --model.init_args.mel_spec speech-16k

A study is a folder next to this file. Its base is ../config/mdct.yaml with the folder's study.yaml
on top; every other file of the folder is a variant, which states only its difference. Options that
are not this script's go to the recipe, for all runs alike.

Variants are trained one after the other, each in its own process, and judged by copy synthesis of
the same test utterances. Run the same command again to resume: finished variants are skipped,
failed ones retried. --max_time is wall-clock time: on a busy machine give --max_steps instead.

Writes RUNS/STUDY/result.json, of which docs/scripts/ablation.py makes a table.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vocoder.evaluation.copy_synthesis import evaluate
from vocoder.evaluation.results import save_result
from vocoder.evaluation.systems import count_macs
from vocoder.models import Vocoder, load_checkpoint
from vocoder.training.recipe import corpus_folder

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent
BASE = "base"
INTERRUPTED = (130, 143, -2, -15)  # exit codes of a run that was stopped and can be resumed
MEASURES = ("log_likelihood", "stoi", "pesq", "log_mel_distance", "tone_excess", "times_real_time")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``recipe`` holds what is left for the recipe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    studies = sorted(path.parent.name for path in HERE.glob("*/study.yaml"))
    parser.add_argument("study", choices=studies, help="a folder next to this script")
    parser.add_argument("--data", required=True, help="corpus, as in the recipe")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="output folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants; default: all")
    parser.add_argument("--utterances", type=int, default=15, help="at most, of the test set")
    args, args.recipe = parser.parse_known_args(arguments)
    if args.utterances < 1:
        parser.error("--utterances must be 1 or more")
    names = variants(args.study)
    for name in args.only or []:
        if name not in names:
            parser.error(f"there is no variant {name}: choose among {', '.join(names)}")
    return args


def variants(study: str) -> dict[str, Path | None]:
    """Name -> file of every variant of a study; the base comes first and has none."""
    files = sorted(path for path in (HERE / study).glob("*.yaml") if path.name != "study.yaml")
    return {BASE: None, **{path.stem: path for path in files}}


def difference(path: Path | None) -> dict[str, Any]:
    """What a variant changes: dotted option -> value."""

    def leaves(tree: Any, name: str) -> list[tuple[str, Any]]:
        if not isinstance(tree, dict):
            return [(name[1:], tree)]
        return [leaf for key in tree for leaf in leaves(tree[key], f"{name}.{key}")]

    return dict(leaves({} if path is None else yaml.safe_load(path.read_text("utf-8")), ""))


def recipe_words(args: argparse.Namespace, name: str) -> list[str]:
    """The recipe's command line for a variant; the variant comes last and so wins."""
    files = [RECIPE / "config" / "mdct.yaml", HERE / args.study / "study.yaml"]
    words = [word for path in files for word in ("--config", str(path))]
    words += ["--data", args.data, *args.recipe]
    variant = variants(args.study)[name]
    if variant is not None:
        words += ["--config", str(variant)]
    return [*words, "--run", str(args.runs / args.study / name)]


def work(args: argparse.Namespace, name: str) -> int:
    """Train and measure one variant unless that is done; returns the exit code of its training."""
    run, words = args.runs / args.study / name, recipe_words(args, name)
    change = difference(variants(args.study)[name])
    settings = {"words": words, "difference": change, "utterances": args.utterances}
    before = read(run / "result.json")
    if before and before["settings"] != settings:
        raise ValueError(f"{run} has other settings: give another --runs, or remove it")
    if "test" in before:
        print(f"{name}: already finished", flush=True)
        return 0
    run.mkdir(parents=True, exist_ok=True)
    print(f"{name}: training, see {run / 'log.txt'}", flush=True)
    code = train(words, run / "log.txt")
    if code in INTERRUPTED:
        return code
    if code:
        lines = (run / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        result = {"message": next(filter(str.strip, reversed(lines)), "no output")}
    else:
        result = measured(run, args)
    result |= {"name": name, "settings": settings, "difference": change}
    save_result(result, run / "result.json")
    print(f"{name}: {'failed' if code else 'finished'}", flush=True)
    return code


def train(words: Sequence[str], log: Path) -> int:
    """Run the recipe; a signal that stops this script stops the recipe, which saves first."""
    with log.open("ab") as file:
        command = [sys.executable, str(RECIPE / "train.py"), *words]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:  # the terminal has sent it to the recipe too
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def measured(run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Cost and quality of a trained variant."""
    report = read(run / "report.json")
    model = load_checkpoint(run / "model").fused()
    folder = corpus_folder(args.data, RECIPE / "sample")
    found = evaluate(
        {run.name: model}, folder, limit=args.utterances, measures=MEASURES, device="cpu"
    )
    values = [{"utterance": file["file"], **file["values"][run.name]} for file in found["files"]]
    means = {name: row["mean"] for name, row in found["rows"][run.name].items()}
    last = report["validation"][-1]
    return {
        "facts": report["facts"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gmac_per_audio_second": cost(model) / 1e9,
        "look_ahead_frames": model.context_frames[1],
        "steps": last["step"],
        "audio_seconds": last["audio_seconds"],
        "train_seconds": last["train_seconds"],
        "times_real_time_per_core": means["times_real_time"],
        "tone_excess_db": means.get("tone_excess"),
        "temperature": found["about"]["temperature"],
        "test": values,
    }


@torch.no_grad()
def cost(model: Vocoder) -> float:
    """Multiply-accumulates per second of audio of one pass through the model's own layers."""
    spec = model.mel_spec
    frames = round(spec.sample_rate / spec.hop_length)
    mel = torch.zeros(1, spec.n_mels, frames)
    noise = torch.zeros(1, frames, model.noise_per_frame)
    macs = count_macs(lambda: model.sample(mel, noise, 1.0))
    return macs * spec.sample_rate / (frames * spec.hop_length)


def collect(args: argparse.Namespace) -> Path:
    """Write the results of all variants into one file."""
    folder = args.runs / args.study
    found = [read(folder / name / "result.json") for name in variants(args.study)]
    runs, failures = ([row for row in found if key in row] for key in ("test", "message"))
    return save_result({"runs": runs, "failures": failures}, folder / "result.json")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    args = options(arguments)
    for name in args.only or variants(args.study):
        try:
            code = work(args, name)
        except ValueError as error:
            sys.stderr.write(f"run.py: {error}\n")
            return 2
        if code in INTERRUPTED:
            print("stopped; run the same command again to resume", flush=True)
            return code
    print(f"the table of the results: python docs/scripts/ablation.py {collect(args)}", flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # for the speed of synthesis; training runs elsewhere
    sys.exit(main())
