"""Synthesis of many files: synthesize-corpus, and say --lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from vocoder import bulk
    from vocoder.bulk.cluster import render_on_ray

    settings = bulk.Settings(checkpoint, temperature, seed, refine, restore, device)
    items, failed = bulk.find(source, output)
    spec = vocoder.load(checkpoint).mel_spec
    model = bulk.begin(settings, source, output)
    started = time.perf_counter()
    with exit_on_termination(), progress_bar("reading headers") as progress:
        there = [item for item in items if bulk.is_there(item, output)]
        work = bulk.longest_first(set(items) - set(there), spec)
        outcomes = [*failed, *(bulk.Outcome(item.name) for item in there)]
        progress(len(there), len(items), "rendering")
        if workers == 1 and address is None:
            results: Iterator[Outcome] = map(bulk.Renderer(settings, output, model), work)
        else:
            results = render_on_ray(work, settings, output, model, workers, address)
        for outcome in results:
            outcomes.append(outcome)
            progress(len(outcomes) - len(failed), len(items), "rendering")
    bulk.write_lists(output, outcomes)
    _summarise(output, outcomes, time.perf_counter() - started)


def say_lines(
    source: Path,
    content: str,
    output: Path,
    sample_rate: int,
    force: bool,
    speak: Callable[[str], Iterator[Any]],
) -> None:
    """Speak each line of a file into a file of its own; failures are listed, the others made."""
    from vocoder import bulk
    from vocoder.atomic import file_name
    from vocoder.audio import AudioWriter
    from vocoder.bulk.rendering import audio_path
    from vocoder.corpus import columns

    texts = [line.strip() for line in content.splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{source} has no lines to say: give at least one")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: name a folder")
    output.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, bulk.Outcome] = {}
    started = time.perf_counter()
    with exit_on_termination(), progress_bar("say") as progress:
        for number, line in enumerate(texts, 1):
            id, *rest = columns(line) if "|" in line else (f"{number:04d}", line)
            name = file_name(id.strip())
            item, failure, audio = bulk.Item(name, str(source)), "", None
            if name in outcomes or not name:
                name, failure = f"line {number}", f"another line has the id {id!r}, or it is empty"
            elif force or not bulk.is_there(item, output):
                try:
                    pieces = speak(rest[0])
                    with AudioWriter(audio_path(item, output), sample_rate) as audio:
                        for piece in pieces:
                            audio.write(piece)
                except (ValueError, OSError) as error:
                    failure, audio = str(error), None
            outcomes[name] = bulk.Outcome(
                name, audio.samples / sample_rate if audio else 0, failure
            )
            progress(number, len(texts), "say")
    bulk.write_lists(output, outcomes.values())
    _summarise(output, list(outcomes.values()), time.perf_counter() - started)


def _summarise(output: Path, outcomes: list[Outcome], seconds: float) -> None:
    from vocoder.bulk.rendering import FAILED, WARNINGS

    failed, made, doubtful = (
        sum(bool(of) for of in column)
        for column in zip(*((o.failure, o.seconds, o.warning) for o in outcomes), strict=True)
    )
    length = sum(o.seconds for o in outcomes)
    there = len(outcomes) - failed - made
    typer.echo(
        f"{output}: {made} files, {length / 60:.1f} min of audio in {seconds:.1f} s "
        f"({length / seconds:.1f} times real time, {made / seconds:.2f} files a second)"
        + f"; {there} were there already"
        * bool(there)
    )
    if doubtful:
        typer.echo(f"{doubtful} with a warning: see {output / WARNINGS}", err=True)
    if failed:
        typer.echo(f"{failed} of {len(outcomes)} failed: see {output / FAILED}", err=True)
        raise typer.Exit(1)
