"""Commands about a model: train, info, export, demo, serve."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

import vocoder
from vocoder.cli import options
from vocoder.cli.output import progress_bar, refuse_overwriting

if TYPE_CHECKING:
    from vocoder.models import Vocoder
    from vocoder.text.acoustic import AcousticModel


def train(
    context: typer.Context,
    directory: Annotated[Path, Argument(metavar="DIR", help="Corpus in LJSpeech's layout.")],
    acoustic: Annotated[bool, Option("--acoustic", help="Text to mel, not the vocoder.")] = False,
) -> None:
    """Train a vocoder, or an acoustic model, on a folder of speech.

    Further options are those of the recipe: vocoder train DIR --max_time 4h --run runs/my-voice.
    All of them: vocoder train DIR -- --help.
    """
    if str(directory).startswith("-"):
        raise ValueError(f"give the folder before {directory}: vocoder train DIR {directory}")
    from vocoder.training.recipe import CONFIGS, Recipe, main

    name, kind = "source", Recipe
    if acoustic:
        from vocoder.training.acoustic import AcousticRecipe

        name, kind = "acoustic", AcousticRecipe
    description = f"Train {'an acoustic model' if acoustic else 'a vocoder'} on a corpus."
    recipe = kind(description, CONFIGS / f"{name}.yaml", Path("sample"), "vocoder train")
    raise typer.Exit(main(recipe, [*context.args, "--data", str(directory)]))


def info(
    checkpoint: Annotated[
        str | None,
        Argument(
            help="Checkpoint directory, name of a bundled model, hf:owner/name@revision, or an "
            "exported .onnx file."
        ),
    ] = None,
    json_output: options.Json = False,
) -> None:
    """What a checkpoint is: its architecture, size, mel convention and arguments.

    Takes acoustic models too.
    """
    graph = checkpoint is not None and checkpoint.lower().endswith(".onnx")
    facts = _graph_facts(Path(str(checkpoint))) if graph else _facts(checkpoint)
    if json_output:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        inner = value if isinstance(value, dict) else {}
        text = "" if inner else f"{value:,}" if type(value) is int else value
        typer.echo(f"{name:24} {text}".rstrip())
        for key, field in inner.items():
            typer.echo(f"  {key:22} {field}")


def _facts(name: str | None) -> dict[str, Any]:
    """Of the vocoder of that name, or else of the acoustic model."""
    from vocoder.hub import HubError
    from vocoder.models import Vocoder

    model: Vocoder | AcousticModel
    try:
        model = vocoder.load(name)
    except vocoder.CheckpointError as error:
        if name is None or isinstance(error, HubError):
            raise
        try:
            model = vocoder.load_acoustic(name)
        except vocoder.CheckpointError:
            raise error from None
    facts: dict[str, Any] = {
        "architecture": model.architecture if isinstance(model, Vocoder) else "acoustic model",
        "parameters": sum(p.numel() for p in model.parameters()),
        "sample_rate": model.sample_rate,
    }
    if isinstance(model, Vocoder):
        ahead, frame = model.look_ahead(), 1000 * model.mel_spec.hop_length / model.sample_rate
        facts |= {"context_frames": model.context_frames[0], "look_ahead_frames": ahead}
        facts["look_ahead_ms"] = round(ahead * frame, 1)
        if not model.sequential:
            short = model.look_ahead(look_ahead=4)
            facts |= {"short_look_ahead": 4, "short_look_ahead_ms": round(short * frame, 1)}
        restores = model.restoration is not None
        facts |= {"refine": model.default_refine, "restores mels": restores}
    return facts | {
        "mel_spec": model.mel_spec.to_dict(),
        "config": {k: v for k, v in model.config.items() if k != "mel_spec"},
    }


def _graph_facts(path: Path) -> dict[str, Any]:
    """Of an ONNX graph."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: write one with vocoder export --onnx")
    from vocoder.export import OnnxVocoder

    graph = OnnxVocoder(path, threads=1)
    return {
        "architecture": "ONNX graph",
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "sample_rate": graph.mel_spec.sample_rate,
        "refine": graph.refine,
        "default_temperature": graph.default_temperature,
        "inputs": {item.name: item.shape for item in graph.session.get_inputs()},
        "outputs": {item.name: item.shape for item in graph.session.get_outputs()},
        "mel_spec": graph.mel_spec.to_dict(),
    }


def export(
    onnx: Annotated[Path, Option(help="ONNX graph to write.")],
    checkpoint: options.Checkpoint = None,
    refine: options.Refine = None,
    restore: options.Restore = None,
    force: options.Force = False,
) -> None:
    """Write a flow as an ONNX graph (mel, noise) -> audio, of any batch and length."""
    refuse_overwriting(force, onnx)
    model = vocoder.load(checkpoint)
    from vocoder.export import export_onnx

    with progress_bar("export, up to some minutes"):
        export_onnx(model, onnx, refine, restore)  # type: ignore[arg-type]  # it refuses what is no flow
    typer.echo(f"{onnx}: {onnx.stat().st_size / 1e6:.1f} MB, mel and noise in, audio out")


def demo(
    checkpoint: options.Checkpoint = None,
    autoregressive: Annotated[
        str | None,
        Option(help="Autoregressive model to compare with. \\[default: the bundled one]"),
    ] = None,
    acoustic: options.Acoustic = None,
    host: options.Host = "127.0.0.1",
    port: Annotated[
        int | None, Option(min=1, max=65535, help="Port. \\[default: the first free one from 7860]")
    ] = None,
    device: options.Device = "auto",
) -> None:
    """A page to type, record and listen in, served on this machine."""
    if port is not None:  # before the models are loaded, which takes longer
        _listen(host, port).close()
    from vocoder.demo import without_proxies
    from vocoder.demo.models import Models
    from vocoder.extras import require

    with without_proxies():
        require("gradio", "the demo", "demo")
        from vocoder.demo.page import serve

    serve(Models(checkpoint, autoregressive, acoustic, device), host, port)


def serve(
    checkpoint: options.Checkpoint = None,
    acoustic: options.Acoustic = None,
    host: options.Host = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    queue: Annotated[
        int, Option(min=0, help="Requests that may wait; further ones get a 503.")
    ] = 16,
    device: options.Device = "auto",
) -> None:
    """An HTTP server, compatible with OpenAI's /v1/audio/speech; prints its address when ready."""
    from vocoder.atomic import exit_on_termination
    from vocoder.extras import require
    from vocoder.pretrained import load_text_to_mel

    require("fastapi", "the server", "serve")
    require("uvicorn", "the server", "serve")
    with _listen(host, port) as listening:
        import vocoder.serve as server

        model = vocoder.load(checkpoint, device=device)
        voices = load_text_to_mel(acoustic, device)
        app = server.create_app(model, voices, checkpoint or "default", queue)
        with exit_on_termination(0), contextlib.suppress(KeyboardInterrupt):
            server.serve(app, listening)


def _listen(host: str, port: int) -> socket.socket:
    """A socket there; OSError that says what to do if that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = f"cannot listen on {host}, port {port} ({error.strerror or error})"
        raise OSError(f"{reason}: choose another") from error
