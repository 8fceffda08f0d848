"""Speed, quality and intelligibility, measured: benchmark, evaluate, evaluate-speech."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import vocoder
from vocoder.cli import options
from vocoder.cli.output import print_result, progress_bar, refuse_overwriting, warn


def benchmark(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes on two cores.")] = False,
    json_output: options.Json = False,
    output: options.JsonOutput = None,
    plot: options.PlotOutput = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint", "--model", "-c", help="A trained model to include; may be repeated."
        ),
    ] = None,
    device: options.Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. \\[default: all]")
    ] = None,
    force: options.Force = False,
) -> None:
    """Speed of every family and engine, measured side by side on this machine."""
    refuse_overwriting(force, output, plot)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        warn(f"Other programs use {load:.1f} processors, which will distort the figures.")
    from vocoder.evaluation import benchmark as speed
    from vocoder.evaluation import plots, tables
    from vocoder.evaluation.results import save_result
    from vocoder.evaluation.systems import standard_systems

    models = {f"{name} (trained)": vocoder.load(name) for name in checkpoint or []}
    with progress_bar("benchmark") as progress:
        result = speed.run_benchmark(
            standard_systems(models, quick=quick),
            quick=quick,
            device=device,
            threads=threads,
            progress=progress,
        )
    if output is not None:
        save_result(result, output)
    if plot is not None:
        plots.benchmark(result, plot)
    print_result(result, json_output, lambda r: tables.benchmark(r).render())


def evaluate(
    directory: Annotated[
        Path,
        typer.Argument(
            help="Folder of recordings; of a corpus with metadata.csv, its test utterances."
        ),
    ],
    checkpoint: options.Checkpoint = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another model: adds paired differences.")
    ] = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: Annotated[
        str | None,
        typer.Option(
            "--refine",
            help="Numbers of sweeps of mel consistency, such as 0,4: a row for each. "
            "\\[default: the models' own]",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take only the first so many recordings.")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option("--measures", help="Only these, such as stoi,pesq: pitch takes the longest."),
    ] = None,
    json_output: options.Json = False,
    output: options.JsonOutput = None,
    table: options.MarkdownOutput = None,
    plot: options.PlotOutput = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Quality of copy synthesis: recordings to mels and back, measured against the recordings."""
    refuse_overwriting(force, output, table, plot)
    name = checkpoint or "default"
    if against == name:
        raise ValueError(f"{name} cannot be compared with itself: give --against another model")
    sweeps = None
    if refine is not None:
        sweeps = [options.refinement(value) for value in refine.split(",")]
    from vocoder.evaluation import copy_synthesis, plots, tables
    from vocoder.evaluation.results import save_result

    models = {name: vocoder.load(checkpoint)}
    if against is not None:
        models[against] = vocoder.load(against)
    with progress_bar("evaluate") as progress:
        result = copy_synthesis.evaluate(
            models,
            directory,
            limit=limit,
            measures=None if measures is None else measures.replace(" ", "").split(","),
            temperature=temperature,
            seed=seed,
            refine=sweeps,
            device=device,
            progress=progress,
        )
    for reason in result["skipped"].values():
        warn(f"vocoder: skipped: {reason}")
    for reason in result["left_out"].values():
        warn(f"vocoder: left out: {reason}")
    if output is not None:
        save_result(result, output)
    if table is not None:
        tables.copy_synthesis(result).write(table)
    if plot is not None:
        plots.copy_synthesis(result, plot)
    print_result(result, json_output, lambda r: tables.copy_synthesis(r).render())


def evaluate_speech(
    directory: Annotated[
        Path, typer.Argument(help="English corpus with metadata.csv, in LJSpeech's layout.")
    ],
    checkpoint: options.Checkpoint = None,
    acoustic: options.Acoustic = None,
    prefix: Annotated[
        str, typer.Option(help="Only ids that begin so: one voice of a corpus of several.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Take at most so many held-out sentences.")
    ] = 50,
    temperature: options.Temperature = None,
    acoustic_temperature: options.AcousticTemperature = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json_output: options.Json = False,
    output: options.JsonOutput = None,
    table: options.MarkdownOutput = None,
    force: options.Force = False,
) -> None:
    """Word error rate of text to speech, and of recordings of the same sentences."""
    refuse_overwriting(force, output, table)
    from vocoder.evaluation import recognition, tables
    from vocoder.evaluation.results import save_result

    with progress_bar("evaluate") as progress:
        result = recognition.evaluate_speech(
            vocoder.load_acoustic(acoustic, device),
            vocoder.load(checkpoint, device=device),
            directory,
            limit=limit,
            prefix=prefix,
            temperature=temperature,
            acoustic_temperature=acoustic_temperature,
            seed=seed,
            progress=progress,
        )
    if output is not None:
        save_result(result, output)
    if table is not None:
        tables.recognition(result).write(table)
    print_result(result, json_output, lambda r: tables.recognition(r).render())
