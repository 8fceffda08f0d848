"""The command `vocoder`: each subcommand reads its arguments, calls the package, and prints.

Heavy imports happen inside the commands, so that `vocoder --help` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import vocoder

if TYPE_CHECKING:
    from vocoder.models import Vocoder
    from vocoder.models.base import Array

app = typer.Typer(
    name="vocoder",
    help="Log-mel spectrograms to speech by a normalizing flow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="Checkpoint directory, or the name of a bundled model. "
        "\\[default: the bundled default]",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Audio file to write.")]
Temperature = Annotated[
    float, typer.Option("--temperature", "-t", help="Scale of the latent noise, usually 0 to 1.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the latent noise.")]
Denoise = Annotated[
    float,
    typer.Option(
        min=0, help="Subtract the model's own tones this strongly, as in vocoder denoise."
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output file.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"flow-vocoder {vocoder.__version__}")
        raise typer.Exit


@app.command()
def synthesize(
    mel: Annotated[
        Path,
        typer.Argument(
            help="Log-mel spectrogram: a .npy array (bands, frames), or a batch of one."
        ),
    ],
    output: Output,
    checkpoint: Checkpoint = None,
    temperature: Temperature = 0.667,
    seed: Seed = 0,
    denoise: Denoise = 0.0,
    force: Force = False,
) -> None:
    """Audio from a log-mel spectrogram in a .npy file."""
    _refuse_output(output, force)
    spectrogram = _read_mel(mel)
    model = vocoder.load(checkpoint)
    started = time.perf_counter()
    audio = model.synthesize(spectrogram, temperature=temperature, seed=seed)
    audio = _without_tones(audio, model, denoise)
    _write(output, audio, model, time.perf_counter() - started)


@app.command()
def resynthesize(
    audio: Annotated[Path, typer.Argument(help="Audio file of any format and sample rate.")],
    output: Output,
    checkpoint: Checkpoint = None,
    temperature: Temperature = 0.667,
    seed: Seed = 0,
    denoise: Denoise = 0.0,
    force: Force = False,
) -> None:
    """Copy synthesis: the mel spectrogram of a recording, turned back into audio."""
    _refuse_output(output, force)
    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(audio, model.sample_rate)
    started = time.perf_counter()
    result = model.synthesize(model.mel(samples), temperature=temperature, seed=seed)
    result = _without_tones(result, model, denoise)
    # The mel describes whole hops; the recording's own length is what the user expects back.
    _write(output, result[: len(samples)], model, time.perf_counter() - started)


@app.command()
def say(
    output: Output,
    text: Annotated[
        str | None, typer.Argument(help="English text to read, or - for standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Text file to read (UTF-8), of any length.")
    ] = None,
    checkpoint: Checkpoint = None,
    acoustic: Annotated[
        str | None,
        typer.Option(help="Acoustic model, text to mel. \\[default: the bundled one]"),
    ] = None,
    speaking_rate: Annotated[
        float, typer.Option("--speaking-rate", "-r", help="2 is twice as fast, 0.5 half as fast.")
    ] = 1.0,
    temperature: Temperature = 0.667,
    acoustic_temperature: Annotated[
        float, typer.Option(help="Scale of the acoustic model's noise; 0 is the most even voice.")
    ] = 0.333,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Read text aloud: English to audio, written as it is made, sentence by sentence."""
    _refuse_output(output, force)
    words = _text_to_say(text, file)
    from vocoder.audio import AudioWriter
    from vocoder.text.speech import sentences, speak

    said = sentences(words)
    model = vocoder.load(checkpoint)
    started = time.perf_counter()
    pieces = speak(
        said,
        vocoder.load_acoustic(acoustic),
        model,
        temperature=temperature,
        acoustic_temperature=acoustic_temperature,
        speaking_rate=speaking_rate,
        seed=seed,
    )
    with (
        _exit_when_told(),
        AudioWriter(output, model.sample_rate) as audio,
        _progress_bar("say") as progress,
    ):
        progress(0, len(said), "say")
        for done, piece in enumerate(pieces, 1):
            audio.write(piece)
            progress(done, len(said), "say")
    _tell(output, audio.samples, model, time.perf_counter() - started)


@app.command("denoise")
def denoise_file(
    audio: Annotated[Path, typer.Argument(help="Audio that the model made.")],
    output: Output,
    checkpoint: Checkpoint = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How much of the model's tones to subtract. \\[default: 0.003]"),
    ] = None,
    force: Force = False,
) -> None:
    """Subtract the tones that a model puts into all of its audio."""
    _refuse_output(output, force)
    from vocoder.models.denoiser import STRENGTH, Denoiser

    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(audio, model.sample_rate)
    started = time.perf_counter()
    result = Denoiser(model)(samples, STRENGTH if strength is None else strength)
    _write(output, result, model, time.perf_counter() - started)


@app.command()
def export(
    onnx: Annotated[Path, typer.Option("--onnx", help="ONNX graph to write.")],
    checkpoint: Checkpoint = None,
    force: Force = False,
) -> None:
    """Write a flow as an ONNX graph (mel, noise) -> audio, of any batch and length."""
    _refuse_overwriting(onnx, force)
    model = vocoder.load(checkpoint)
    from vocoder.engines.onnx import export_onnx

    export_onnx(model, onnx)  # type: ignore[arg-type]  # which says so if it is no flow
    typer.echo(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB, mel and noise in, audio out")


@app.command()
def benchmark(
    quick: Annotated[bool, typer.Option("--quick", help="Under two minutes on two cores.")] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON to standard output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write the result to.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="PNG to draw the result in.")] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", "-c", help="A trained model to include; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. \\[default: all]")
    ] = None,
    force: Force = False,
) -> None:
    """Speed of every family and engine, measured side by side on this machine."""
    import json

    from rich.console import Console

    for path in (output, plot):
        if path is not None:
            _refuse_overwriting(path, force)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        typer.secho(
            f"Other programs use {load:.1f} processors: the figures will be theirs too.",
            fg=typer.colors.YELLOW,
            err=True,
        )
    from vocoder.evaluation import benchmark as speed
    from vocoder.evaluation import plots, tables
    from vocoder.evaluation.results import save_result
    from vocoder.evaluation.systems import standard_systems

    models = {f"{name} (trained)": vocoder.load(name) for name in checkpoint or []}
    with _progress_bar("benchmark") as progress:
        result = speed.run_benchmark(
            standard_systems(models, quick=quick),
            quick=quick,
            device=device,
            threads=threads,
            progress=progress,
        )
    if output is not None:
        save_result(result, output)
    if plot is not None:
        plots.benchmark(result, plot)
    if json_output:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        Console().print(tables.benchmark(result).render())


@app.command()
def evaluate(
    directory: Annotated[
        Path,
        typer.Argument(
            help="Folder of recordings; of a corpus with metadata.csv, its test utterances."
        ),
    ],
    checkpoint: Checkpoint = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another model: adds paired differences.")
    ] = None,
    temperature: Temperature = 0.667,
    seed: Seed = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take only the first so many recordings.")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option("--measures", help="Only these, such as stoi,pesq: pitch takes the longest."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON to standard output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write the result to.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Markdown file to write the tables to.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="PNG to draw the result in.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    force: Force = False,
) -> None:
    """Quality of copy synthesis: recordings to mels and back, measured against the recordings."""
    import json

    from rich.console import Console

    for path in (output, table, plot):
        if path is not None:
            _refuse_overwriting(path, force)
    name = checkpoint or "default"
    if against == name:
        raise ValueError(f"{name} cannot be compared with itself: give --against another model")
    from vocoder.evaluation import copy_synthesis, plots, tables
    from vocoder.evaluation.results import save_result

    models = {name: vocoder.load(checkpoint)}
    if against is not None:
        models[against] = vocoder.load(against)
    with _progress_bar("evaluate") as progress:
        result = copy_synthesis.evaluate(
            models,
            directory,
            limit=limit,
            measures=None if measures is None else measures.replace(" ", "").split(","),
            temperature=temperature,
            seed=seed,
            device=device,
            progress=progress,
        )
    for reason in result["skipped"].values():
        typer.secho(f"vocoder: skipped: {reason}", fg=typer.colors.YELLOW, err=True)
    for reason in result["left_out"].values():
        typer.secho(f"vocoder: left out: {reason}", fg=typer.colors.YELLOW, err=True)
    if output is not None:
        save_result(result, output)
    if table is not None:
        tables.copy_synthesis(result).write(table)
    if plot is not None:
        plots.copy_synthesis(result, plot)
    if json_output:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        Console().print(tables.copy_synthesis(result).render())


@app.command()
def evaluate_speech(
    directory: Annotated[
        Path, typer.Argument(help="English corpus with metadata.csv, in LJSpeech's layout.")
    ],
    checkpoint: Checkpoint = None,
    acoustic: Annotated[
        str | None,
        typer.Option(help="Acoustic model, text to mel. \\[default: the bundled one]"),
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="Only ids that begin so: one voice of a corpus of several.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Take at most so many held-out sentences.")
    ] = 50,
    temperature: Temperature = 0.667,
    acoustic_temperature: Annotated[
        float, typer.Option(help="Scale of the acoustic model's noise.")
    ] = 0.333,
    seed: Seed = 0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON to standard output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write the result to.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Markdown file to write the tables to.")
    ] = None,
    force: Force = False,
) -> None:
    """Word error rate of text to speech, beside that of recordings of the same sentences."""
    import json

    from rich.console import Console

    for path in (output, table):
        if path is not None:
            _refuse_overwriting(path, force)
    from vocoder.evaluation import recognition, tables
    from vocoder.evaluation.results import save_result

    with _progress_bar("evaluate") as progress:
        result = recognition.evaluate_speech(
            vocoder.load_acoustic(acoustic),
            vocoder.load(checkpoint),
            directory,
            limit=limit,
            prefix=prefix,
            temperature=temperature,
            acoustic_temperature=acoustic_temperature,
            seed=seed,
            progress=progress,
        )
    if output is not None:
        save_result(result, output)
    if table is not None:
        tables.recognition(result).write(table)
    if json_output:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        Console().print(tables.recognition(result).render())


@app.command()
def demo(
    checkpoint: Checkpoint = None,
    wavenet: Annotated[
        str | None,
        typer.Option(help="Autoregressive model to compare with. \\[default: the bundled one]"),
    ] = None,
    acoustic: Annotated[
        str | None,
        typer.Option(help="Acoustic model that reads text. \\[default: the bundled one]"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port. \\[default: the first free one from 7860]"),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Publish the page through gradio's servers.")
    ] = False,
) -> None:
    """A page to type, record and listen in, served on this machine."""
    if port is not None:
        _refuse_taken_port(host, port)
    from vocoder.demo.models import Models
    from vocoder.evaluation.extras import require

    require("gradio", "the demo", "demo")
    models = Models(checkpoint, wavenet, acoustic)
    from vocoder.demo.page import serve

    serve(models, host, port, share)


@app.command()
def info(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Checkpoint directory, or the name of a bundled model.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a checkpoint is: its family, size, mel convention and arguments.

    Takes acoustic models too.
    """
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table

    from vocoder.checkpoints import CheckpointError
    from vocoder.models import Vocoder
    from vocoder.pretrained import load_acoustic
    from vocoder.text.acoustic import AcousticModel

    model: Vocoder | AcousticModel
    try:
        model = vocoder.load(checkpoint)
    except CheckpointError as error:
        if checkpoint is None:
            raise
        try:
            model = load_acoustic(checkpoint)
        except CheckpointError:
            raise error from None
    facts: dict[str, Any] = {
        "family": model.family if isinstance(model, Vocoder) else "acoustic model",
        "parameters": sum(p.numel() for p in model.parameters()),
        "sample_rate": model.sample_rate,
    }
    if isinstance(model, Vocoder):
        past, ahead = model.context_frames
        milliseconds = 1000 * model.mel_spec.hop_length / model.sample_rate
        facts |= {
            "context_frames": past,
            "look_ahead_frames": ahead,
            "look_ahead_ms": round(ahead * milliseconds, 1),
        }
    facts |= {
        "mel_spec": dataclasses.asdict(model.mel_spec),
        "config": {k: v for k, v in model.config.items() if k != "mel_spec"},
    }
    if json_output:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        if isinstance(value, dict):
            table.add_row(f"[bold]{name}[/]", "")
            for key, inner in value.items():
                table.add_row(f"  {key}", str(inner))
        else:
            table.add_row(
                f"[bold]{name}[/]", f"{value:,}" if isinstance(value, int) else str(value)
            )
    Console().print(table)


def _text_to_say(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ValueError('give what to say, once: "some text", - for standard input, or --file')
    if text is not None and text != "-":
        return text
    try:
        if file is None:
            if sys.stdin is None:
                raise ValueError("standard input is closed: give the text, or --file")
            return sys.stdin.buffer.read().decode("utf-8-sig")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file or 'standard input'} is not UTF-8 text ({error.reason} at byte {error.start}): "
            "save it as UTF-8"
        ) from error


@contextlib.contextmanager
def _exit_when_told() -> Iterator[None]:
    """An exception instead of sudden death, so that half-written files are cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    # A terminal that is closed, too, unless that is to be ignored (nohup).
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    before = {n: signal.getsignal(n) for n in numbers if n is not None}
    before = {n: handler for n, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _without_tones(audio: Array, model: Vocoder, strength: float) -> Array:
    """Denoised, unless the strength is 0."""
    if strength == 0:
        return audio
    from vocoder.models.denoiser import Denoiser

    return Denoiser(model)(audio, strength)


def _read_mel(path: Path) -> np.ndarray:  # type: ignore[name-defined]  # noqa: F821
    import zipfile

    import numpy as np

    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a .npy file with a log-mel spectrogram")
    try:
        with path.open("rb") as file:  # NumPy leaves what it cannot read open
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
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel  # a batch of one


@contextlib.contextmanager
def _progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar that is told (steps done, steps in all, what is next)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    # The bar goes to standard error, so that --json leaves standard output to the JSON.
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)

        def progress(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield progress


def _refuse_taken_port(host: str, port: int) -> None:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot listen on {host}, port {port} ({reason}): choose another") from error


def _refuse_overwriting(output: Path, force: bool) -> None:
    # Before the work, so that minutes of it are not thrown away.
    if output.exists() and not force:
        raise ValueError(f"{output} exists: choose another name, or overwrite it with --force")
    if output.is_dir():
        raise ValueError(f"{output} is a directory: name a file in it")
    if not output.parent.is_dir():
        raise ValueError(f"there is no directory {output.parent} to write {output.name} into")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"the directory {output.parent} cannot be written to")


def _refuse_output(output: Path, force: bool) -> None:
    """For audio, whose format is told by the suffix."""
    from vocoder.audio.files import checked_path

    _refuse_overwriting(output, force)
    checked_path(output)


def _write(output: Path, audio: object, model: Vocoder, seconds: float) -> None:
    vocoder.write_audio(output, audio, model.sample_rate)  # type: ignore[arg-type]
    _tell(output, len(audio), model, seconds)  # type: ignore[arg-type]


def _tell(output: Path, samples: int, model: Vocoder, seconds: float) -> None:
    length = samples / model.sample_rate
    typer.echo(
        f"{output}: {length:.2f} s at {model.sample_rate:,} Hz, made in {seconds:.2f} s "
        f"({length / seconds:.1f} times real time)"
    )


def main() -> None:
    """Entry point: what a user can mend is said in one sentence, without a traceback."""
    try:
        app()
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        # MelError, CheckpointError and AudioError are ValueErrors.
        typer.secho(f"vocoder: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
