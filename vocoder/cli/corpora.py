"""Synthesis of many files: synthesize-corpus, and say --lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

import vocoder
from vocoder.atomic import exit_on_termination
from vocoder.cli import options
from vocoder.cli.output import progress_bar

if TYPE_CHECKING:
    from vocoder.bulk.items import Outcome


def synthesize_corpus(
    source: Annotated[
        Path,
        Argument(
            metavar="MANIFEST|DIRECTORY",
            help="Folder of mels (.npy) or recordings, searched through; or a text file with a "
            "path on each line, relative to its own folder.",
        ),
    ],
    output: Annotated[Path, Option("--output", "-o", help="Folder to write each NAME.wav into.")],
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    device: options.Device = "auto",
    workers: Annotated[
        int, Option(min=1, help="Processes; several, or a cluster, take the extra ray.")
    ] = 1,
    address: Annotated[
        str | None, Option(help="Ray cluster to run on, or auto. \\[default: this machine alone]")
    ] = None,
) -> None:
    """Audio from a whole corpus of mels, or of recordings by copy synthesis.

    Run the same command again to go on after an interruption. Exits with status 1 if some files
    failed: failed.csv says which and why.
    """
    from vocoder.bulk import items, rendering
    from vocoder.bulk.cluster import render_on_ray

    settings = rendering.Settings(checkpoint, temperature, seed, refine, restore, device)
    found, failed = items.find(source, output)
    spec = vocoder.load(checkpoint).mel_spec
    renderer = (settings, output, rendering.begin(settings, source, output))

    def outcomes() -> Iterator[Outcome]:
        yield from failed
        there = [item for item in found if rendering.is_there(item, output)]
        yield from (items.Outcome(item.name) for item in there)
        work = items.longest_first(set(found) - set(there), spec)
        if workers == 1 and address is None:
            yield from map(rendering.Renderer(*renderer).render, work)
        else:
            yield from render_on_ray(work, renderer, workers, address)

    _collect(outcomes(), len(found) + len(failed), output, "rendering")


def say_lines(
    source: Path, content: str, output: Path, rate: int, force: bool, speak: Callable[[str], Any]
) -> None:
    """Speak each line of a file into a file of its own; failures are listed, the others made."""
    from vocoder.atomic import file_name
    from vocoder.bulk.items import Item, Outcome
    from vocoder.bulk.rendering import is_there, make_folder, write
    from vocoder.corpus import columns

    texts = [line.strip() for line in content.splitlines() if line.strip()]
    if not texts:
        raise ValueError(f"{source} has no lines to say: give at least one")
    make_folder(output)

    def outcomes() -> Iterator[Outcome]:
        names = {""}
        for number, line in enumerate(texts, 1):
            id, *rest = columns(line) if "|" in line else (f"{number:04d}", line)
            item = Item(file_name(id.strip()), source)
            if item.name in names:
                failure = f"another line has the id {id!r}, or it is empty"
                yield Outcome(f"line {number}", failure=failure)
            elif is_there(item, output) and not force:
                yield Outcome(item.name)
            else:
                yield write(item, output, rate, partial(speak, rest[0]))
            names.add(item.name)

    _collect(outcomes(), len(texts), output, "say")


def _collect(outcomes: Iterator[Outcome], total: int, output: Path, title: str) -> None:
    """Take all outcomes, write their lists, print a summary; exit with 1 if some failed."""
    from vocoder.bulk.rendering import FAILED, WARNINGS, write_lists

    found: list[Outcome] = []
    started = time.perf_counter()
    with exit_on_termination(), progress_bar(title) as progress:
        for outcome in outcomes:
            found.append(outcome)
            progress(len(found), total, title)
    seconds = time.perf_counter() - started
    write_lists(output, found)
    columns = zip(*((o.seconds, o.failure, o.warning) for o in found), strict=True)
    made, failed, doubtful = (sum(map(bool, column)) for column in columns)
    length = sum(outcome.seconds for outcome in found)
    there = len(found) - failed - made
    typer.echo(
        f"{output}: {made} files, {length / 60:.1f} min of audio in {seconds:.1f} s "
        f"({length / seconds:.1f} times real time, {made / seconds:.2f} files a second)"
        + (f"; {there} were there already" if there else "")
    )
    if doubtful:
        typer.echo(f"{doubtful} with a warning: see {output / WARNINGS}", err=True)
    if failed:
        typer.echo(f"{failed} of {len(found)} failed: see {output / FAILED}", err=True)
        raise typer.Exit(1)
