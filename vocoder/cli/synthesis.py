"""Mels, recordings and text to audio: synthesize, resynthesize, refine, say; mel, the way back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

import vocoder
from vocoder.atomic import write_atomic
from vocoder.cli import options
from vocoder.cli.corpora import say_lines
from vocoder.cli.output import (
    audio_input,
    progress_bar,
    refuse_audio_output,
    refuse_overwriting,
    write_pieces,
)


def synthesize(
    mel: Annotated[
        Path, Argument(help="Log-mel spectrogram: a .npy array (bands, frames), or a batch of one.")
    ],
    output: options.AudioOutput,
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Audio from a log-mel spectrogram in a .npy file."""
    refuse_audio_output(force, output)
    from vocoder.audio.reading import read_mel
    from vocoder.models.pieces import from_mel

    spectrogram = read_mel(mel)
    model = vocoder.load(checkpoint, device=device)
    how = {"temperature": temperature, "seed": seed, "refine": refine, "restore": restore}
    write_pieces(output, from_mel(model, spectrogram, **how), model.sample_rate)


def resynthesize(
    audio: options.AudioInput,
    output: options.AudioOutput,
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Copy synthesis: the mel spectrogram of a recording, turned back into audio."""
    refuse_audio_output(force, output)
    from vocoder.audio import AudioReader
    from vocoder.models.pieces import from_recording

    model = vocoder.load(checkpoint, device=device)
    how = {"temperature": temperature, "seed": seed, "refine": refine, "restore": restore}
    reader = AudioReader(audio_input(audio), model.sample_rate)
    write_pieces(output, from_recording(model, reader, **how), model.sample_rate)


def mel(
    audio: options.AudioInput,
    output: Annotated[Path, Option("--output", "-o", help="File to write, .npy.")],
    preset: options.MelSpec = "ljspeech",
    force: options.Force = False,
) -> None:
    """The log-mel spectrogram of a recording, as a .npy array (bands, frames)."""
    refuse_overwriting(force, output)
    if output.suffix.lower() != ".npy":
        raise ValueError(f"{output} is not a .npy file: give -o a name that ends in .npy")
    import numpy as np
    import torch

    from vocoder.atomic import atomic_path
    from vocoder.audio import AudioReader, LogMel, MelSpec

    spec = MelSpec.preset(preset)
    reader = AudioReader(audio_input(audio), spec.sample_rate)
    mel = torch.cat(list(LogMel(spec).stream(reader)), dim=1).numpy()
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        np.save(file, mel)
    typer.echo(f"{output}: {spec.n_mels} bands, {mel.shape[1]} frames, {preset}")


def refine(
    audio: options.AudioInput,
    mel: Annotated[Path, Argument(help="The log-mel spectrogram that it should have, .npy.")],
    output: options.AudioOutput,
    iterations: Annotated[int, Option("--iterations", "-n", help="Number of iterations.")] = 16,
    preset: options.MelSpec = "ljspeech",
    force: options.Force = False,
) -> None:
    """Match any audio to a mel by Griffin-Lim-style iterations, without a model."""
    refuse_audio_output(force, output)
    from vocoder.audio import MelSpec, check_refine, mel_distance, read_audio
    from vocoder.audio.reading import read_mel
    from vocoder.backends.refinement import refine_audio

    check_refine(iterations)
    spec = MelSpec.preset(preset)
    target = read_mel(mel).copy()
    recording, _ = read_audio(audio_input(audio), spec.sample_rate)
    before = mel_distance(recording.numpy(), target, spec)
    refined = refine_audio(recording.numpy(), target, spec, iterations)
    write_pieces(output, [refined], spec.sample_rate)
    typer.echo(
        f"log-mel distance {before:.3f} nats before, {mel_distance(refined, target, spec):.3f} "
        f"after {iterations} iterations",
        err=str(output) == "-",
    )


def say(
    output: options.AudioOutput,
    text: Annotated[str | None, Argument(help="English text, or - for standard input.")] = None,
    file: Annotated[Path | None, Option(help="Text file to read (UTF-8), of any length.")] = None,
    checkpoint: options.Checkpoint = None,
    acoustic: options.Acoustic = None,
    voice: Annotated[str | None, Option(help="Of the acoustic model. \\[default: first]")] = None,
    speaking_rate: Annotated[
        float, Option("--rate", "--speaking-rate", "-r", help="2 is twice as fast, 0.5 half.")
    ] = 1.0,
    pitch: Annotated[float, Option("--pitch", "-p", help="Semitones up; down if negative.")] = 0.0,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    lines: Annotated[
        Path | None,
        Option(
            help="Text file with a text, or id|text, on each line: -o is the folder of a file for "
            "each, 0001.wav or ID.wav. What is there and newer stays, unless --force is given."
        ),
    ] = None,
    are_phonemes: Annotated[
        bool, Option("--phonemes", help="The text is phonemes, spaces between, _ between words.")
    ] = False,
    timestamps: Annotated[Path | None, Option(help="JSON file for words and their times.")] = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Read English text aloud into a file or a pipe, sentence by sentence."""
    if lines is not None:
        if (text, file, timestamps) != (None, None, None):
            raise ValueError("--lines goes without another text, --file and --timestamps")
    else:
        refuse_audio_output(force, output)
        refuse_overwriting(force, timestamps)
    to_read = _read_text(text, lines or file)
    from vocoder.pretrained import load_text_to_mel
    from vocoder.text.speech import Word, phoneme_sentences, sentences, speak

    read = phoneme_sentences if are_phonemes else sentences
    parts = [] if lines else read(to_read)  # refuses what cannot be read before models are loaded
    model = vocoder.load(checkpoint, device=device)
    reader = load_text_to_mel(acoustic, device)
    if are_phonemes and reader.reads_text:
        raise ValueError(f"{acoustic} reads letters: leave out --phonemes, or give another model")
    how: dict[str, Any] = {"voice": voice, "speaking_rate": speaking_rate, "pitch": pitch}
    how |= {"temperature": temperature, "seed": seed, "refine": refine, "restore": restore}
    if lines is not None:
        speak([], reader, model, **how)  # refuses wrong arguments before the first line

        def line(text: str) -> Iterator[Any]:
            return speak(read(text), reader, model, **how)

        say_lines(lines, to_read, output, model.sample_rate, force, line)
        return
    for part in parts:
        reader.indices(part.read_by(reader))  # checks them
    words: list[Word] = []
    pieces = speak(parts, reader, model, **how, words=None if timestamps is None else words)

    def spoken() -> Iterator[Any]:
        with progress_bar("say") as progress:
            progress(0, len(parts), "say")
            for done, piece in enumerate(pieces, 1):
                yield piece
                progress(done, len(parts), "say")

    write_pieces(output, spoken(), model.sample_rate)
    if timestamps is not None:
        content = json.dumps([word._asdict() for word in words], ensure_ascii=False, indent=1)
        write_atomic(timestamps, f"{content}\n".encode())


def _read_text(text: str | None, file: Path | None) -> str:
    """The text to say: from the argument, standard input (-) or the file."""
    if (text is None) == (file is None):
        raise ValueError('give what to say, once: "some text", - for standard input, or --file')
    try:
        if file is not None:
            return file.read_text(encoding="utf-8-sig")
        if text != "-":
            return str(text).encode().decode()
        if sys.stdin is None:
            raise ValueError("standard input is closed: give the text, or --file")
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeError as error:
        name = file or ("standard input" if text == "-" else "the text")
        raise ValueError(f"{name} is not UTF-8 ({error}): save it in a file as UTF-8") from error
