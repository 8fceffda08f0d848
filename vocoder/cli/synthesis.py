"""Mels, recordings and text to audio: synthesize, resynthesize, refine, say.

Audio passes from input to output in pieces, so that memory does not grow with its length.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import vocoder
from vocoder.cli import options
from vocoder.cli.output import audio_input, progress_bar, refuse_audio_output, warn, write_pieces

if TYPE_CHECKING:
    from torch import Tensor

    from vocoder.audio import MelSpec


def synthesize(
    mel: Annotated[
        Path,
        typer.Argument(
            help="Log-mel spectrogram: a .npy array (bands, frames), or a batch of one."
        ),
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
    from vocoder.models.pieces import mel_pieces, unwarned

    spectrogram = read_mel(mel)
    model = vocoder.load(checkpoint, device=device)
    pieces = mel_pieces(spectrogram, model.mel_spec)
    audio = unwarned(model.stream(pieces, temperature, seed, refine, restore))
    write_pieces(output, audio, model.sample_rate)


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
    from vocoder.audio import AudioReader, LogMel
    from vocoder.models.pieces import Counted, unwarned

    model = vocoder.load(checkpoint, device=device)
    with AudioReader(audio_input(audio), model.sample_rate) as reader:
        recording = Counted(reader)
        mel = LogMel(model.mel_spec).stream(recording)
        pieces = unwarned(model.stream(mel, temperature, seed, refine, restore))
        # The mel covers whole hops; the user expects the length of the recording.
        write_pieces(output, recording.cut(pieces), model.sample_rate)


def refine(
    audio: options.AudioInput,
    mel: Annotated[Path, typer.Argument(help="The log-mel spectrogram that it should have, .npy.")],
    output: options.AudioOutput,
    iterations: Annotated[
        int, typer.Option("--iterations", "-n", help="Number of iterations.")
    ] = 16,
    preset: Annotated[
        str, typer.Option("--mel-spec", help="Preset that the mel follows.")
    ] = "ljspeech",
    force: options.Force = False,
) -> None:
    """Match any audio to a mel by Griffin-Lim-style iterations, without a model."""
    refuse_audio_output(force, output)
    from vocoder.audio import AudioReader, MelSpec, check_refine
    from vocoder.audio.reading import read_mel
    from vocoder.audio.validation import check_frames
    from vocoder.models.pieces import Counted, mel_pieces, unwarned

    check_refine(iterations)
    spec = MelSpec.preset(preset)
    target = read_mel(mel)
    frames = mel_pieces(target, spec)
    with AudioReader(audio_input(audio), spec.sample_rate) as reader:
        recording = Counted(reader)
        before, after = _Distance(target, spec), _Distance(target, spec)
        for _ in before.measured(recording):
            pass
        check_frames(recording.samples, target.shape[1], spec)
        refined = unwarned(_refined(reader, frames, spec, iterations))
        write_pieces(output, after.measured(refined), spec.sample_rate)
    typer.echo(
        f"log-mel distance {before.mean:.3f} nats before, {after.mean:.3f} after {iterations} "
        "iterations",
        err=str(output) == "-",
    )


class _Distance:
    """Mean distance in nats of audio that comes in pieces from a mel: `vocoder.mel_distance`."""

    def __init__(self, target: Any, spec: MelSpec) -> None:
        self.target, self.spec = target, spec
        self.mean = 0.0

    def measured(self, pieces: Iterable[Any]) -> Iterator[Any]:
        """The same pieces; after the last, the mean is known."""
        import numpy as np
        import torch

        from vocoder.audio import LogMel

        passed: list[Any] = []

        def tap() -> Iterator[Tensor]:
            for piece in pieces:
                passed.append(piece)
                yield torch.as_tensor(piece)

        frames, total = 0, 0.0
        for own in LogMel(self.spec).stream(tap()):
            part = np.array(self.target[:, frames : frames + own.shape[1]], np.float32)
            target = torch.from_numpy(part).clamp(min=self.spec.log_floor)
            total += float((own[:, : target.shape[1]] - target).abs().sum())
            frames += own.shape[1]
            yield from passed
            passed.clear()
        yield from passed
        self.mean = self.spec.nats * total / self.target.size


def _refined(
    audio: Iterable[Tensor], mel: Iterator[Any], spec: MelSpec, iterations: int
) -> Iterator[Any]:
    """Audio in pieces matched to a mel in pieces."""
    import numpy as np

    from vocoder.backends.refinement import RefineStream

    if iterations == 0:
        yield from audio
        return
    stream = RefineStream(spec, iterations)
    nothing = np.empty((spec.n_mels, 0), np.float32)
    samples = frames = 0
    for piece in audio:
        samples += len(piece)
        while frames < spec.frames(samples) and (part := next(mel, None)) is not None:
            frames += part.shape[1]
            yield stream.push(np.empty(0, np.float32), part)
        yield stream.push(piece.numpy(), nothing)
    for part in mel:
        yield stream.push(np.empty(0, np.float32), part)
    yield stream.finish()


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
    voice: Annotated[
        str | None, typer.Option("--voice", help="Of the acoustic model. \\[default: its first]")
    ] = None,
    speaking_rate: Annotated[
        float,
        typer.Option("--rate", "--speaking-rate", "-r", help="2 is twice as fast, 0.5 half."),
    ] = 1.0,
    pitch: Annotated[
        float, typer.Option("--pitch", "-p", help="Semitones higher, or lower if negative.")
    ] = 0.0,
    temperature: options.Temperature = None,
    acoustic_temperature: options.AcousticTemperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    restore: options.Restore = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Read English text aloud into a file or a pipe, sentence by sentence."""
    refuse_audio_output(force, output)
    if acoustic_temperature is not None:
        warn("--acoustic-temperature has no effect: the acoustic model draws no noise any more")
    to_read = _read_text(text, file)
    from vocoder.text.speech import sentences, speak

    parts = sentences(to_read)
    model = vocoder.load(checkpoint, device=device)
    pieces = speak(
        parts,
        vocoder.load_acoustic(acoustic, device),
        model,
        voice=voice,
        speaking_rate=speaking_rate,
        pitch=pitch,
        temperature=temperature,
        seed=seed,
        refine=refine,
        restore=restore,
    )

    def spoken() -> Iterator[Any]:
        with progress_bar("say") as progress:
            progress(0, len(parts), "say")
            for done, piece in enumerate(pieces, 1):
                yield piece
                progress(done, len(parts), "say")

    write_pieces(output, spoken(), model.sample_rate)


def _read_text(text: str | None, file: Path | None) -> str:
    """The text to say: from the argument, standard input (-) or the file."""
    if (text is None) == (file is None):
        raise ValueError('give what to say, once: "some text", - for standard input, or --file')
    if text is not None and text != "-":
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError("the text is not UTF-8: give it in a file, saved as UTF-8")
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
