"""Mels and recordings to audio: synthesize, resynthesize, refine.

All work goes in pieces from the input file to the output, so that memory does not grow with the
length of the audio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocoder.cli import options
from vocoder.cli.loading import load
from vocoder.cli.output import audio_input, refuse_audio_output, write_pieces

if TYPE_CHECKING:
    from torch import Tensor

    from vocoder.audio import MelSpec, Refine
    from vocoder.models import Vocoder


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
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Audio from a log-mel spectrogram in a .npy file."""
    refuse_audio_output(force, output)
    from vocoder.audio.reading import read_mel
    from vocoder.models.pieces import mel_pieces

    spectrogram = read_mel(mel)
    model = load(checkpoint, device)
    pieces = mel_pieces(spectrogram, model.mel_spec)
    audio = _synthesized(model, pieces, temperature, seed, refine)
    write_pieces(output, audio, model.sample_rate)


def resynthesize(
    audio: Annotated[Path, typer.Argument(help="Audio file of any format and sample rate, or -.")],
    output: options.AudioOutput,
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Copy synthesis: the mel spectrogram of a recording, turned back into audio."""
    refuse_audio_output(force, output)
    from vocoder.audio import AudioReader, LogMel
    from vocoder.models.pieces import Counted

    model = load(checkpoint, device)
    with AudioReader(audio_input(audio), model.sample_rate) as reader:
        recording = Counted(reader)
        mel = LogMel(model.mel_spec).stream(recording)
        pieces = _synthesized(model, mel, temperature, seed, refine)
        # The mel covers whole hops; the user expects the length of the recording.
        write_pieces(output, recording.cut(pieces), model.sample_rate)


def refine(
    audio: Annotated[Path, typer.Argument(help="Audio file of any format and sample rate, or -.")],
    mel: Annotated[Path, typer.Argument(help="The log-mel spectrogram that it should have, .npy.")],
    output: options.AudioOutput,
    sweeps: Annotated[int, typer.Option("--sweeps", "-n", help="Number of sweeps.")] = 16,
    preset: Annotated[
        str, typer.Option("--mel-spec", help="Preset that the mel follows.")
    ] = "ljspeech",
    force: options.Force = False,
) -> None:
    """Push audio onto a mel, whatever made it: mel consistency, without a model."""
    refuse_audio_output(force, output)
    from vocoder.audio import AudioReader, MelSpec, check_refine
    from vocoder.audio.reading import read_mel
    from vocoder.audio.refinement import check_frames
    from vocoder.models.pieces import Counted, mel_pieces, unwarned

    check_refine(sweeps)
    spec = MelSpec.preset(preset)
    target = read_mel(mel)
    frames = mel_pieces(target, spec)
    with AudioReader(audio_input(audio), spec.sample_rate) as reader:
        recording = Counted(reader)
        before = _Distance(target, spec)
        for _ in before.measured(recording):
            pass
        check_frames(recording.samples, target.shape[1], spec)
        after = _Distance(target, spec)
        pieces = after.measured(unwarned(_refined(reader, frames, spec, sweeps)))
        write_pieces(output, pieces, spec.sample_rate)
    typer.echo(
        f"log-mel distance {before.mean:.3f} nats before, {after.mean:.3f} after {sweeps} sweeps",
        err=str(output) == "-",
    )


def _synthesized(
    model: Vocoder,
    mel: Iterable[Any],
    temperature: float | None,
    seed: int,
    refine: Refine | None,
) -> Iterator[Any]:
    """Audio of pieces of a mel that is known to be right."""
    from vocoder.models.pieces import unwarned

    return unwarned(model.stream(mel, temperature, seed, refine))


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
    audio: Iterable[Tensor], mel: Iterator[Any], spec: MelSpec, sweeps: int
) -> Iterator[Any]:
    """Audio in pieces pushed onto a mel in pieces."""
    import numpy as np

    from vocoder.engines.refinement import RefineStream

    if sweeps == 0:
        yield from audio
        return
    stream = RefineStream(spec, sweeps)
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
