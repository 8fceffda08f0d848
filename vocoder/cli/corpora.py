"""Synthesis of many files: synthesize-corpus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import vocoder
from vocoder.atomic import exit_on_termination
from vocoder.cli import options
from vocoder.cli.output import progress_bar

if TYPE_CHECKING:
    from vocoder.bulk import Outcome


def synthesize_corpus(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|DIRECTORY",
            help="Folder of mels (.npy) or recordings, searched through; or a text file with a "
            "path on each line, relative to its own folder.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write NAME.wav of each into.")
    ],
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    device: options.Device = "auto",
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; several, or a cluster, take the extra ray.")
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to run on, or auto. \\[default: this machine alone]"),
    ] = None,
) -> None:
    """Audio from a whole corpus of mels, or of recordings by copy synthesis.

    Run the same command again to go on after an interruption. Exits with status 1 if some files
    failed: failed.csv says which and why.
    """
    from vocoder.bulk import (
        Outcome,
        Renderer,
        Settings,
        begin,
        find,
        is_there,
        longest_first,
        write_lists,
    )
    from vocoder.bulk.cluster import render_on_ray

    settings = Settings(checkpoint, temperature, seed, refine, restore, device)
    items, failed = find(source, output)
    spec = vocoder.load(checkpoint).mel_spec
    record = begin(settings, source, output)
    outcomes: list[Outcome] = list(failed)
    started = time.perf_counter()
    with exit_on_termination(), progress_bar("reading headers") as progress:
        there = [item for item in items if is_there(item, output)]
        outcomes += [Outcome(item.name) for item in there]
        missing = set(items) - set(there)
        work = longest_first(missing, spec)
        progress(len(there), len(items), "rendering")
        if workers == 1 and address is None:
            results: Iterator[Outcome] = map(Renderer(settings, output, record["model"]), work)
        else:
            results = render_on_ray(work, settings, output, record["model"], workers, address)
        for outcome in results:
            outcomes.append(outcome)
            progress(len(outcomes) - len(failed), len(items), "rendering")
    write_lists(output, outcomes)
    _summarise(output, outcomes, time.perf_counter() - started)


def _summarise(output: Path, outcomes: list[Outcome], seconds: float) -> None:
    from vocoder.bulk.rendering import FAILED, WARNINGS

    failed = sum(bool(o.failure) for o in outcomes)
    made = [o for o in outcomes if o.seconds]
    length = sum(o.seconds for o in made)
    there = len(outcomes) - failed - len(made)
    typer.echo(
        f"{output}: {len(made)} files, {length / 60:.1f} min of audio in {seconds:.1f} s "
        f"({length / seconds:.1f} times real time, {len(made) / seconds:.2f} files a second)"
        + f"; {there} were there already"
        * bool(there)
    )
    doubtful = sum(bool(o.warning) for o in outcomes)
    if doubtful:
        typer.echo(f"{doubtful} with a warning: see {output / WARNINGS}", err=True)
    if failed:
        typer.echo(f"{failed} of {len(outcomes)} failed: see {output / FAILED}", err=True)
        raise typer.Exit(1)
