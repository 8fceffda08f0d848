"""Text to audio: say."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vocoder.atomic import exit_on_termination
from vocoder.cli import options
from vocoder.cli.loading import load, load_acoustic
from vocoder.cli.output import (
    audio_output,
    print_audio_summary,
    progress_bar,
    refuse_audio_output,
)


def say(
    output: options.AudioOutput,
    text: Annotated[
        str | None, typer.Argument(help="English text to read, or - for standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Text file to read (UTF-8), of any length.")
    ] = None,
    checkpoint: options.Checkpoint = None,
    acoustic: options.Acoustic = None,
    speaking_rate: Annotated[
        float, typer.Option("--speaking-rate", "-r", help="2 is twice as fast, 0.5 half as fast.")
    ] = 1.0,
    temperature: options.Temperature = None,
    acoustic_temperature: options.AcousticTemperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Read English text aloud into a file or a pipe, sentence by sentence."""
    refuse_audio_output(force, output)
    to_read = _read_text(text, file)
    from vocoder.text.speech import sentences, speak

    parts = sentences(to_read)
    model = load(checkpoint, device)
    started = time.perf_counter()
    pieces = speak(
        parts,
        load_acoustic(acoustic, device),
        model,
        temperature=temperature,
        acoustic_temperature=acoustic_temperature,
        speaking_rate=speaking_rate,
        seed=seed,
        refine=refine,
    )
    with (
        exit_on_termination(),
        audio_output(output, model.sample_rate) as audio,
        progress_bar("say") as progress,
    ):
        progress(0, len(parts), "say")
        for done, piece in enumerate(pieces, 1):
            audio.write(piece)
            progress(done, len(parts), "say")
    print_audio_summary(output, audio.samples, model.sample_rate, time.perf_counter() - started)


def _read_text(text: str | None, file: Path | None) -> str:
    """The text to say: from the argument, standard input (-) or the file."""
    if (text is None) == (file is None):
        raise ValueError('give what to say, once: "some text", - for standard input, or --file')
    if text is not None and text != "-":
        return text
    try:
        if file is not None:
            return file.read_text(encoding="utf-8-sig")
        if sys.stdin is None:
            raise ValueError("standard input is closed: give the text, or --file")
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file or 'standard input'} is not UTF-8 text ({error.reason} at byte {error.start}): "
            "save it as UTF-8"
        ) from error
