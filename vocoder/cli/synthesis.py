"""Mels and recordings to audio: synthesize, resynthesize, refine, denoise."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import vocoder
from vocoder.cli import options
from vocoder.cli.output import print_audio_summary, refuse_audio_output, write_audio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vocoder.models import Vocoder
    from vocoder.models.base import Array


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
    denoise: options.Denoise = 0.0,
    force: options.Force = False,
) -> None:
    """Audio from a log-mel spectrogram in a .npy file."""
    refuse_audio_output(force, output)
    spectrogram = _read_mel(mel)
    model = vocoder.load(checkpoint)
    started = time.perf_counter()
    audio = model.synthesize(spectrogram, temperature, seed, refine=refine)
    audio = _denoised(audio, model, denoise)
    write_audio(output, audio, model, time.perf_counter() - started)


def resynthesize(
    audio: Annotated[Path, typer.Argument(help="Audio file of any format and sample rate.")],
    output: options.AudioOutput,
    checkpoint: options.Checkpoint = None,
    temperature: options.Temperature = None,
    seed: options.Seed = 0,
    refine: options.Refine = None,
    denoise: options.Denoise = 0.0,
    force: options.Force = False,
) -> None:
    """Copy synthesis: the mel spectrogram of a recording, turned back into audio."""
    refuse_audio_output(force, output)
    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(audio, model.sample_rate)
    started = time.perf_counter()
    result = model.synthesize(model.mel(samples), temperature, seed, refine=refine)
    result = _denoised(result, model, denoise)
    # The mel covers whole hops; the user expects the length of the recording.
    write_audio(output, result[: len(samples)], model, time.perf_counter() - started)


def refine(
    audio: Annotated[Path, typer.Argument(help="Audio file of any format and sample rate.")],
    mel: Annotated[Path, typer.Argument(help="The log-mel spectrogram that it should have, .npy.")],
    output: options.AudioOutput,
    sweeps: Annotated[int, typer.Option("--sweeps", "-n", help="Number of sweeps.")] = 8,
    preset: Annotated[
        str, typer.Option("--mel-spec", help="Preset that the mel follows.")
    ] = "ljspeech",
    force: options.Force = False,
) -> None:
    """Push audio onto a mel, whatever made it: mel consistency, without a model."""
    refuse_audio_output(force, output)
    from vocoder.audio import MelSpec, mel_distance

    spec = MelSpec.preset(preset)
    target = _read_mel(mel)
    samples, _ = vocoder.read_audio(audio, spec.sample_rate)
    before = mel_distance(samples.numpy(), target, spec)
    started = time.perf_counter()
    refined = vocoder.refine_mel(samples.numpy(), target, spec, sweeps)
    seconds = time.perf_counter() - started
    vocoder.write_audio(output, refined, spec.sample_rate)
    print_audio_summary(output, len(refined), spec.sample_rate, seconds)
    after = mel_distance(refined, target, spec)
    typer.echo(f"log-mel distance {before:.3f} nats before, {after:.3f} after {sweeps} sweeps")


def denoise(
    audio: Annotated[Path, typer.Argument(help="Audio that the model generated.")],
    output: options.AudioOutput,
    checkpoint: options.Checkpoint = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How much of the model's tones to subtract; 0 for none. "
            "\\[default: the denoiser's own]"
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Subtract the tones that a model puts into all of its audio."""
    refuse_audio_output(force, output)
    from vocoder.models.denoiser import STRENGTH

    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(audio, model.sample_rate)
    started = time.perf_counter()
    result = _denoised(samples, model, STRENGTH if strength is None else strength)
    write_audio(output, result, model, time.perf_counter() - started)


def _denoised(audio: Array, model: Vocoder, strength: float) -> Array:
    if strength == 0:
        return audio
    from vocoder.models.denoiser import Denoiser

    return Denoiser(model)(audio, strength)


def _read_mel(path: Path) -> NDArray[np.float32]:
    import numpy as np

    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a .npy file with a log-mel spectrogram")
    try:
        with path.open("rb") as file:  # NumPy does not close what it cannot read
            mel = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable .npy array of numbers ({error}): write one with numpy.save"
        ) from error
    if not isinstance(mel, np.ndarray) or mel.dtype.kind != "f":
        what = f"{mel.dtype} numbers" if isinstance(mel, np.ndarray) else "an archive of arrays"
        raise ValueError(
            f"{path} holds {what}: write one array of floating-point numbers with numpy.save"
        )
    mel = mel.astype(np.float32)
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel
