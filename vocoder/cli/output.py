"""Checks of output paths, progress and messages of commands."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from vocoder.models.base import Array


def refuse_overwriting(force: bool, *outputs: Path | None) -> None:
    """Refuse, before the work, paths that cannot be written or may not be overwritten."""
    for output in filter(None, outputs):
        if output.exists() and not force:
            raise ValueError(f"{output} exists: choose another name, or overwrite it with --force")
        if output.is_dir():
            raise ValueError(f"{output} is a directory: name a file in it")
        if not output.parent.is_dir():
            raise ValueError(f"there is no directory {output.parent} to write {output.name} into")
        if not os.access(output.parent, os.W_OK):
            raise ValueError(f"the directory {output.parent} cannot be written to")


def refuse_audio_output(force: bool, output: Path) -> None:
    """`refuse_overwriting`, suffixes of no audio format, and a terminal for standard output (-)."""
    if str(output) != "-":
        from vocoder.audio.writing import checked_path

        refuse_overwriting(force, output)
        checked_path(output)
    elif sys.stdout is None or sys.stdout.isatty():
        raise ValueError(
            "standard output is a terminal: send the audio to a player or a file, such as `| aplay`"
        )


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error; yields a function of (steps done, steps in total, label)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)

        def progress(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield progress


def write_pieces(output: Path, pieces: Iterable[Array], sample_rate: int) -> None:
    """Write audio (to standard output for -) as it is generated; print its length and speed."""
    from vocoder.atomic import exit_on_termination
    from vocoder.audio import AudioStream, AudioWriter

    to_stream = str(output) == "-"
    file: Any = AudioStream(sys.stdout.buffer, sample_rate) if to_stream else None
    until_first = 0.0
    started = time.perf_counter()
    with exit_on_termination(), file or AudioWriter(output, sample_rate) as audio:
        for piece in filter(len, pieces):
            audio.write(piece)
            until_first = until_first or time.perf_counter() - started
    seconds = time.perf_counter() - started
    length = audio.samples / sample_rate
    typer.echo(
        f"{'standard output' if to_stream else output}: {length:.2f} s at {sample_rate:,} Hz in "
        f"{seconds:.2f} s, {length / seconds:.1f} times real time, {until_first:.2f} s until the "
        "first audio",
        err=to_stream,
    )


def audio_input(path: Path) -> Path | IO[bytes]:
    """The file to read audio from: standard input, unless it is closed or a terminal, for -."""
    if str(path) != "-":
        return path
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("standard input has no audio: pipe some into it, or name a file")
    return sys.stdin.buffer


def print_result(
    result: dict[str, Any], as_json: bool, output: Path | None, render: Callable[[Any], str]
) -> None:
    """Write a measurement as JSON; print it so, or as the Markdown that `render` makes of it."""
    from vocoder.evaluation.results import save_result

    if output is not None:
        save_result(result, output)
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console, text = Console(), render(result)
    if console.is_terminal:
        console.print(Markdown(text))
    else:  # as it is, so that no cell is cut short
        typer.echo(text)


def warn(message: str) -> None:
    """Print a warning to standard error, in yellow."""
    typer.secho(message, fg=typer.colors.YELLOW, err=True)
