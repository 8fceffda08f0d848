"""Commands that measure: benchmark, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import vocoder
from vocoder.atomic import write_atomic
from vocoder.cli import options
from vocoder.cli.output import print_result, progress_bar, refuse_overwriting, warn


def benchmark(
    quick: Annotated[bool, Option("--quick", help="Under two minutes on two cores.")] = False,
    json_output: options.Json = False,
    output: options.JsonOutput = None,
    checkpoint: Annotated[
        list[str] | None,
        Option(*options.CHECKPOINT, help="A trained model to include; may be repeated."),
    ] = None,
    device: options.Device = "auto",
    threads: Annotated[int | None, Option(min=1, help="CPU threads. \\[default: all]")] = None,
    force: options.Force = False,
) -> None:
    """Speed of every architecture and backend, and of others, on this machine."""
    refuse_overwriting(force, output)
    from vocoder.evaluation import benchmark as speed
    from vocoder.evaluation import tables

    models = {f"{name} (trained)": vocoder.load(name) for name in checkpoint or []}
    systems = speed.standard_systems(models, quick)
    effort = speed.QUICK if quick else speed.FULL
    with progress_bar("benchmark") as progress:
        result = speed.run_benchmark(
            systems, effort, device=device, threads=threads, progress=progress
        )
    print_result(result, json_output, output, tables.benchmark)


def evaluate(
    directory: Annotated[
        Path,
        Argument(help="Folder of recordings; of a corpus with metadata.csv, its test utterances."),
    ],
    checkpoint: options.Checkpoint = None,
    against: Annotated[
        list[str] | None,
        Option(
            help="Another model to compare with, or hifi-gan or hifi-gan-ljspeech (extra bench); "
            "may be repeated."
        ),
    ] = None,
    acoustic: Annotated[
        str | None,
        Option(
            help="Acoustic model (default: the bundled one): adds rows of text to speech from "
            "the English texts of a corpus."
        ),
    ] = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: Annotated[
        str | None,
        Option(
            help="Numbers of iterations or schedules, such as 0,4,default: a row for each. "
            "\\[default: the models' own]"
        ),
    ] = None,
    limit: Annotated[int | None, Option(min=1, help="Evaluate at most N recordings.")] = None,
    measures: Annotated[str | None, Option(help="Only these, such as stoi,pesq.")] = None,
    json_output: options.Json = False,
    output: options.JsonOutput = None,
    table: Annotated[Path | None, Option(help="Markdown file to write the tables to.")] = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Quality of copy synthesis: recordings to mels and back, measured against the recordings."""
    refuse_overwriting(force, output, table)
    name = checkpoint or "default"
    if name in (against or []):
        raise ValueError(f"{name} cannot be compared with itself: give --against another model")
    from vocoder.evaluation import copy_synthesis, tables
    from vocoder.evaluation.baselines import BASELINES

    models = {name: vocoder.load(checkpoint)}
    for other in against or []:
        models[other] = BASELINES[other]() if other in BASELINES else vocoder.load(other)
    with progress_bar("evaluate") as progress:
        result = copy_synthesis.evaluate(
            models,
            directory,
            acoustic=None if acoustic is None else vocoder.load_acoustic(acoustic, device),
            limit=limit,
            measures=None if measures is None else measures.replace(" ", "").split(","),
            temperature=temperature,
            seed=seed,
            refine=None if refine is None else [*map(options.refinement, refine.split(","))],
            device=device,
            progress=progress,
        )
    for what in ("skipped", "left_out"):
        for reason in result[what].values():
            warn(f"vocoder: {what.replace('_', ' ')}: {reason}")
    if table is not None:
        write_atomic(table, tables.copy_synthesis(result).encode())
    print_result(result, json_output, output, tables.copy_synthesis)
