"""What commands do before and after their work: refuse output paths, show progress, print."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vocoder.audio import AudioWriter, WavStream
    from vocoder.models.base import Array


def refuse_overwriting(force: bool, *outputs: Path | None) -> None:
    """Refuse paths that cannot be written, or that exist and may not be overwritten.

    To be called before the work, so that minutes of it are not thrown away. None is skipped.

    Raises:
        ValueError: one sentence with the reason.
    """
    for output in outputs:
        if output is None:
            continue
        if output.exists() and not force:
            raise ValueError(f"{output} exists: choose another name, or overwrite it with --force")
        if output.is_dir():
            raise ValueError(f"{output} is a directory: name a file in it")
        if not output.parent.is_dir():
            raise ValueError(f"there is no directory {output.parent} to write {output.name} into")
        if not os.access(output.parent, os.W_OK):
            raise ValueError(f"the directory {output.parent} cannot be written to")


def refuse_audio_output(force: bool, output: Path) -> None:
    """`refuse_overwriting`, and suffixes that stand for no audio format that can be written.

    Standard output (-) is refused if it is a terminal.
    """
    if _is_standard_output(output):
        if sys.stdout is None or sys.stdout.isatty():
            raise ValueError(
                "standard output is a terminal: send the audio to a player or a file, such as "
                "`| aplay`"
            )
        return
    from vocoder.audio.writing import checked_path

    refuse_overwriting(force, output)
    checked_path(output)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error, so that standard output holds results only.

    Yields:
        A function of (steps done, steps in total, label).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)

        def progress(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield progress


def audio_output(output: Path, sample_rate: int) -> AudioWriter | WavStream:
    """What to write audio to piece by piece, in a with block."""
    from vocoder.audio import AudioWriter, WavStream

    if _is_standard_output(output):
        return WavStream(sys.stdout.buffer, sample_rate)
    return AudioWriter(output, sample_rate)


def write_pieces(output: Path, pieces: Iterable[Array], sample_rate: int, started: float) -> None:
    """Write audio as it is generated, then print its summary.

    Args:
        output: the file, or - for standard output.
        pieces: (samples,) each.
        sample_rate: in Hz.
        started: `time.perf_counter` when the work began.
    """
    import time

    from vocoder.atomic import exit_on_termination

    with exit_on_termination(), audio_output(output, sample_rate) as audio:
        for piece in pieces:
            if len(piece):
                audio.write(piece)
    print_audio_summary(output, audio.samples, sample_rate, time.perf_counter() - started)


def print_audio_summary(output: Path, samples: int, sample_rate: int, seconds: float) -> None:
    """One line: the file, its length, and the speed it was generated at."""
    length = samples / sample_rate
    to_stream = _is_standard_output(output)
    typer.echo(
        f"{'standard output' if to_stream else output}: {length:.2f} s at {sample_rate:,} Hz, "
        f"generated in {seconds:.2f} s ({length / seconds:.1f} times real time)",
        err=to_stream,
    )


def _is_standard_output(output: Path) -> bool:
    return str(output) == "-"


def print_result(
    result: dict[str, Any], as_json: bool, render: Callable[[dict[str, Any]], RenderableType]
) -> None:
    """Print a measurement as JSON, or as the table that `render` makes of it."""
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(render(result))


def warn(message: str) -> None:
    """Print a warning to standard error, in yellow."""
    typer.secho(message, fg=typer.colors.YELLOW, err=True)


@contextlib.contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Within the block, warnings for users are printed like errors, without their place."""
    before = warnings.showwarning

    def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
        if category is UserWarning:
            warn(f"vocoder: warning: {message}")
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
