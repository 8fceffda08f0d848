"""The page: its tabs, what their buttons call, and the server. The only module that imports gradio.

Each handler calls a function of `tasks` and turns what it returns into what the page shows; what
goes wrong and can be mended is shown in the page as one sentence.
"""

from __future__ import annotations

import functools
import html
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from vocoder.evaluation import METRICS

from . import pictures, tasks
from .models import Models, Notify

TEMPERATURE = 0.667
"""What the page begins with; the package's default."""

_LOOK = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    # Fonts of the visitor's own system: nothing to fetch.
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)

_CSS = """
.figures { overflow-x: auto; }
.figures table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.figures table, .figures tr, .figures th, .figures td { border: 0; }
.figures th, .figures td { padding: 0.4rem 0.5rem; text-align: right; vertical-align: bottom; }
.figures td { border-top: 1px solid var(--border-color-primary); white-space: nowrap; }
.figures th { font-weight: 600; color: var(--body-text-color-subdued); }
.figures tr th:first-child, .figures tr td:first-child { text-align: left !important; }
.figures small { color: var(--body-text-color-subdued); }
.figures .bar { height: 0.4rem; background: var(--border-color-primary); }
.figures .bar div { height: 100%; background: var(--color-accent); }
.figures strong { color: var(--color-accent); }
.figures p { margin: 0.6rem 0 0; color: var(--body-text-color-subdued); }
"""

_INTRODUCTION = """# flow-vocoder

A vocoder that is a normalizing flow: it turns mel spectrograms into speech in one parallel pass,
and knows exactly how likely any recording is. Everything here is computed on the machine that
serves this page; nothing leaves it, and what you upload is deleted when the page is shut down.
"""

_LIKELIHOOD_NOTE = (
    "Log-likelihood: nats per sample of audio in [-1, 1], given the mel of the recording; 16-bit "
    "audio is dequantised with uniform noise. It tells how well a model knows recordings, not how "
    "good made audio sounds."
)

_TEXTS = [
    "The birch canoe slid on the smooth planks.",
    "All samples of this sentence were made at once, in one parallel pass.",
    "A normalizing flow is an invertible network from sound to noise; this is it, run backwards.",
]

# File, and what the page calls it. Where they come from: NOTICE beside them.
_RECORDINGS = {
    "russian.flac": "recorded speech, Russian",
    "english-female.flac": "synthetic English, female",
    "english-male.flac": "synthetic English, a voice never trained on",
}


def build(models: Models) -> gr.Blocks:
    """The page for these models; loads none of them."""
    # One computation at a time: they share the cores, and the times shown should be true.
    turn: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "compute"}
    # The age at which files of a page that is left running are deleted, and how often, in seconds.
    with gr.Blocks(title="flow-vocoder", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(_INTRODUCTION)
        with gr.Tabs():
            with gr.Tab("Text to speech", id="say"):
                _text_to_speech(models, turn)
            with gr.Tab("Copy synthesis", id="copy"):
                _copy_synthesis(models, turn)
            with gr.Tab("Flow against autoregressive", id="compare"):
                _comparison(models, turn)
            with gr.Tab("Latent space", id="latent"):
                _latent_space(models, turn)
    return page


def serve(models: Models, host: str, port: int | None, share: bool) -> None:
    """Serve the page until it is interrupted.

    Args:
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: the port; None for the first free one from 7860 on.
        share: publish the page through gradio's tunnel, for whoever has the link.

    Raises:
        OSError: the port is taken.
    """
    # So that a service manager's way of stopping it deletes the visitors' files, too.
    # A terminal that is closed, too, unless that is to be ignored (nohup).
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="vocoder-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(models)
        page.queue(max_size=20)
        _, address, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            theme=_LOOK,
            css=_CSS,
            max_file_size=tasks.UPLOAD_LIMIT,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        sys.stdout.write(f"The demo is at {public or address} (Ctrl-C stops it)\n")
        sys.stdout.flush()
        page.block_thread()


# -- the tabs ------------------------------------------------------------------------------------


def _text_to_speech(models: Models, turn: dict[str, Any]) -> None:
    if not models.has_acoustic:
        gr.Markdown(
            "No acoustic model is bundled with this version: start the demo with "
            "`--acoustic runs/NAME/model` to have text read.",
            elem_id="say-lacking",
        )
    with gr.Row():
        with gr.Column(scale=2):
            text = gr.Textbox(
                value=_TEXTS[0],
                label="Text",
                info=f"English, at most {tasks.TEXT_LIMIT} characters",
                lines=3,
                max_length=tasks.TEXT_LIMIT,
                elem_id="say-text",
            )
            with gr.Row():
                temperature = _temperature()
                rate = gr.Slider(0.5, 2.0, 1.0, step=0.05, label="Speaking rate")
            seed = _seed()
            button = gr.Button(
                "Speak", variant="primary", elem_id="say-button", interactive=models.has_acoustic
            )
            gr.Examples([[text] for text in _TEXTS], [text], label="Examples")
        with gr.Column(scale=3):
            audio = _player("Speech", "say-audio")
            picture = _picture("Waveform and mel spectrogram", "say-picture")
            figures = _figures("say-figures")

    @_answering
    def speak(
        text: str,
        temperature: float,
        rate: float,
        seed: int | None,
        progress: gr.Progress = gr.Progress(),
    ) -> tuple[Any, ...]:
        made = tasks.speak(models, text, temperature, rate, seed, _shown(progress))
        rows = [["Speech", f"{made.sound.seconds:.2f} s", *_pace(made.timing)]]
        read = f"What was read: {'  '.join(made.phonemes)}"
        return (
            _heard(made.sound),
            pictures.waveform_and_mel(made.sound, made.mel, made.mel_spec),
            _table(["", "lasts", "made in", "times real time"], rows, [read, _machine_note()]),
        )

    gr.on(
        [button.click, text.submit],
        speak,
        [text, temperature, rate, seed],
        [audio, picture, figures],
        api_name="say",
        show_progress_on=[picture],
        **turn,
    )


def _copy_synthesis(models: Models, turn: dict[str, Any]) -> None:
    gr.Markdown(
        "A recording becomes a mel spectrogram, which keeps neither phase nor pitch exactly; the "
        "flow makes audio from that alone."
    )
    with gr.Row():
        with gr.Column(scale=2):
            recording = _recorder("Recording", "copy-recording")
            with gr.Row():
                temperature = _temperature()
                seed = _seed()
            button = gr.Button("Resynthesise", variant="primary", elem_id="copy-button")
            _recordings([recording])
        with gr.Column(scale=3):
            with gr.Row():
                original = _player("Recording", "copy-original")
                made = _player("Flow", "copy-audio")
            picture = _picture("Mel spectrograms", "copy-picture")
            figures = _figures("copy-figures")

    @_answering
    def resynthesise(
        path: str | None,
        temperature: float,
        seed: int | None,
        progress: gr.Progress = gr.Progress(),
    ) -> tuple[Any, ...]:
        result = tasks.copy_synthesis(models, path, temperature, seed, _shown(progress))
        taken, times = _pace(result.timing)
        rows = [
            ["made in", "", taken],
            ["times real time", "", times],
            ["log-likelihood, nats per sample", *map(_nats, result.likelihoods)],
        ]
        for name, value in result.scores.items():
            metric = METRICS[name]
            unit = f", {metric.unit}" if metric.unit else ""
            rows.append([f"{metric.title}{unit} ({metric.better} is better)", "", _number(value)])
        return (
            _heard(result.original),
            _heard(result.made),
            pictures.mels(["Recording", "Flow"], result.mels, [result.mel_spec] * 2),
            _table(["", "recording", "flow"], rows, [_LIKELIHOOD_NOTE, _machine_note()]),
        )

    button.click(
        resynthesise,
        [recording, temperature, seed],
        [original, made, picture, figures],
        api_name="copy_synthesis",
        show_progress_on=[picture],
        **turn,
    )


def _comparison(models: Models, turn: dict[str, Any]) -> None:
    gr.Markdown(
        "The same mel spectrogram through three ways of making audio: a flow, all samples at once; "
        "WaveNet, each sample from those before it; Griffin-Lim, which has learnt nothing. The "
        "loudest stretch of the recording is taken, and a short one: WaveNet needs many seconds "
        "for each."
    )
    if not models.has_wavenet:
        gr.Markdown(
            "No autoregressive model is bundled with this version: start the demo with "
            "`--wavenet runs/NAME/model` to compare with one.",
            elem_id="compare-lacking",
        )
    with gr.Row():
        with gr.Column(scale=2):
            recording = _recorder("Recording", "compare-recording")
            with gr.Row():
                seconds = gr.Slider(0.25, tasks.EXCERPT_LIMIT, 1.0, step=0.25, label="Seconds")
                temperature = _temperature()
            with gr.Row():
                engine = gr.Radio(
                    [("compiled (numba)", "compiled"), ("cached (PyTorch)", "cached")],
                    value="compiled",
                    label="WaveNet's engine",
                )
                seed = _seed()
            with gr.Row():
                button = gr.Button(
                    "Compare",
                    variant="primary",
                    elem_id="compare-button",
                    interactive=models.has_wavenet,
                )
                stop = gr.Button("Stop", elem_id="compare-stop")
            _recordings([recording])
        with gr.Column(scale=3):
            figures = _figures("compare-figures")
            with gr.Row():
                original = _player("Recording", "compare-original")
                flow = _player("Flow", "compare-flow")
            with gr.Row():
                wavenet = _player("WaveNet", "compare-wavenet")
                phases = _player("Griffin-Lim", "compare-griffin-lim")
            picture = _picture("Mel spectrograms", "compare-picture")

    @_answering
    def compare(
        path: str | None,
        seconds: float,
        temperature: float,
        engine: str | None,
        seed: int | None,
        progress: gr.Progress = gr.Progress(),
    ) -> Iterator[tuple[Any, ...]]:
        keys = (tasks.RECORDING, tasks.FLOW, tasks.WAVENET, tasks.GRIFFIN_LIM)
        shown: set[str] = set()
        for state in tasks.compare(
            models, path, seconds, temperature, seed, engine, _shown(progress)
        ):
            heard: list[Any] = []
            for key in keys:
                entry = state.entries[key]
                if entry.progress < 1 or key in shown:
                    heard.append(gr.skip())
                else:
                    shown.add(key)
                    heard.append(gr.Audio(value=_heard(entry.sound), label=entry.name))
            drawn: Any = gr.skip()
            if not state.status:
                entries = [state.entries[key] for key in keys]
                drawn = pictures.mel_row(
                    [entry.name for entry in entries],
                    [entry.mel for entry in entries if entry.mel is not None],
                    [entry.mel_spec for entry in entries if entry.mel_spec is not None],
                )
            yield (_comparison_table(state), *heard, drawn)

    started = button.click(
        compare,
        [recording, seconds, temperature, engine, seed],
        [figures, original, flow, wavenet, phases, picture],
        api_name="compare",
        show_progress_on=[figures],
        show_progress="minimal",
        **turn,
    )
    stop.click(None, cancels=[started])


def _latent_space(models: Models, turn: dict[str, Any]) -> None:
    gr.Markdown(
        "The flow is invertible: audio given its mel becomes latents, Gaussian noise for a good "
        "model, and latents become audio. Temperature scales the noise that audio is made from; "
        "between the latents of two recordings lie others."
    )
    with gr.Tabs():
        with gr.Tab("Temperature", id="sweep"):
            _sweep(models, turn)
        with gr.Tab("Interpolation", id="interpolate"):
            _interpolation(models, turn)


def _sweep(models: Models, turn: dict[str, Any]) -> None:
    temperatures = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    with gr.Row():
        with gr.Column(scale=2):
            recording = _recorder("Recording", "sweep-recording")
            seed = _seed()
            button = gr.Button("Sweep from 0 to 1", variant="primary", elem_id="sweep-button")
            _recordings([recording])
        with gr.Column(scale=3):
            picture = _picture("Mel spectrograms", "sweep-picture")
            players = _players([f"Temperature {t:g}" for t in temperatures], "sweep-audio")
            figures = _figures("sweep-figures")

    @_answering
    def sweep(
        path: str | None, seed: int | None, progress: gr.Progress = gr.Progress()
    ) -> tuple[Any, ...]:
        walk = tasks.sweep(models, path, seed, temperatures, _shown(progress))
        titles = [f"{temperature:g}" for temperature in temperatures]
        return _walked(walk, "temperature", titles, [_LIKELIHOOD_NOTE])

    button.click(
        sweep,
        [recording, seed],
        [picture, figures, *players],
        api_name="temperature_sweep",
        show_progress_on=[picture],
        **turn,
    )


def _interpolation(models: Models, turn: dict[str, Any]) -> None:
    steps = 5
    shares = [f"{100 * index // (steps - 1)} %" for index in range(steps)]
    with gr.Row():
        with gr.Column(scale=2):
            first = _recorder("First recording", "interpolate-first")
            second = _recorder("Second recording", "interpolate-second")
            condition = gr.Radio(
                [("of the first recording", "first"), ("in between as well", "between")],
                value="first",
                label="Mel spectrogram that the latents are decoded with",
            )
            button = gr.Button("Interpolate", variant="primary", elem_id="interpolate-button")
            russian, female, male = (str(path) for path in _recording_files())
            gr.Examples(
                [[female, male], [male, female], [female, russian]],
                [first, second],
                label="Examples",
                example_labels=["female to male", "male to female", "English to Russian"],
            )
        with gr.Column(scale=3):
            picture = _picture("Mel spectrograms", "interpolate-picture")
            players = _players([f"{share} of the way" for share in shares], "interpolate-audio")
            figures = _figures("interpolate-figures")

    @_answering
    def interpolate(
        first: str | None,
        second: str | None,
        condition: tasks.Condition,
        progress: gr.Progress = gr.Progress(),
    ) -> tuple[Any, ...]:
        walk = tasks.interpolate(models, first, second, condition, steps, _shown(progress))
        given = {
            "first": "the mel of the first recording: the words stay, and all that the mel leaves "
            "open goes over from one recording to the other",
            "between": "a mel in between, band by band and frame by frame",
        }[condition]
        notes = [
            f"Both recordings are cut to the length of the shorter, {walk.seconds:.2f} s. Their "
            f"latents, each given its own mel, are {walk.angle:.1f}° apart (90°: unrelated) and "
            f"have a root mean square of {walk.rms[0]:.3f} and {walk.rms[1]:.3f} (1: standard "
            "normal); between them runs a great circle.",
            f"Decoded with {given}. At 0 % it is the first recording again, to within "
            f"{walk.reconstruction:.0e} of full scale.",
            _LIKELIHOOD_NOTE,
        ]
        return _walked(walk, "of the way", shares, notes)

    button.click(
        interpolate,
        [first, second, condition],
        [picture, figures, *players],
        api_name="interpolate",
        show_progress_on=[picture],
        **turn,
    )


def _walked(
    walk: tasks.Walk, axis: str, titles: Sequence[str], notes: Sequence[str]
) -> tuple[Any, ...]:
    """What the page shows of a walk: picture, figures, and a sound for each player."""
    rows = [
        [title, _nats(point.likelihood), f"{point.distance:.3f}"]
        for title, point in zip(titles, walk.points, strict=True)
    ]
    return (
        pictures.mel_row(
            titles, [point.mel for point in walk.points], [walk.mel_spec] * len(walk.points)
        ),
        _table([axis, "log-likelihood", "log-mel distance, nats"], rows, notes),
        *(_heard(point.sound) for point in walk.points),
    )


# -- pieces of the page --------------------------------------------------------------------------


def _temperature() -> gr.Slider:
    return gr.Slider(0.0, 1.0, TEMPERATURE, step=0.001, label="Temperature")


def _seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=tasks.SEED_LIMIT)


def _recorder(label: str, name: str) -> gr.Audio:
    return gr.Audio(
        label=f"{label}, at most {tasks.SECONDS_LIMIT:g} s",
        sources=["upload", "microphone"],
        type="filepath",
        buttons=["download"],
        elem_id=name,
    )


def _player(label: str, name: str) -> gr.Audio:
    return gr.Audio(label=label, interactive=False, buttons=["download"], elem_id=name)


def _players(labels: Sequence[str], name: str) -> list[gr.Audio]:
    """Players two in a row."""
    made = []
    for first in range(0, len(labels), 2):
        with gr.Row():
            for index in range(first, min(first + 2, len(labels))):
                made.append(_player(labels[index], f"{name}-{index}"))
    return made


def _picture(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        show_label=False,
        alt_text=label,
        interactive=False,
        format="png",
        buttons=["download", "fullscreen"],
        elem_id=name,
    )


def _figures(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, elem_classes="figures")


def _recording_files() -> list[Path]:
    folder = Path(str(resources.files("vocoder.demo"))) / "examples"
    return [folder / name for name in _RECORDINGS]


def _recordings(inputs: list[gr.Audio]) -> None:
    gr.Examples(
        [[str(path)] for path in _recording_files()],
        inputs,
        label="Examples",
        example_labels=list(_RECORDINGS.values()),
    )


def _heard(sound: tasks.Sound | None) -> tuple[int, Any] | None:
    # In 16 bits, since gradio raises floating point to full scale.
    return None if sound is None else (sound.sample_rate, sound.pcm())


def _comparison_table(state: tasks.Comparison) -> str:
    judges = {key: state.entries[key].name for key in state.judges}
    head = ["", "made in", "times real time", "log-mel distance, nats"]
    head += [f"log-likelihood by {name}" for name in judges.values()]
    rows = []
    for entry in state.entries.values():
        name = f"{html.escape(entry.name)}<br><small>{html.escape(entry.how)}</small>"
        if 0 < entry.progress < 1:
            name += f'<div class="bar"><div style="width: {entry.progress:.1%}"></div></div>'
        rows.append(
            [
                name,
                *_pace(entry.timing),
                "" if entry.distance is None else f"{entry.distance:.3f}",
                *(_nats(entry.likelihoods.get(judge)) for judge in judges),
            ]
        )
    where = (
        f"The loudest {state.seconds:.2f} s of the recording, from {state.start:.2f} s on, through "
        "each."
    )
    notes = [where, *state.notes, _LIKELIHOOD_NOTE, _machine_note()]
    status = f"<p><strong>{html.escape(state.status)}</strong></p>" if state.status else ""
    return status + _table(head, rows, notes, escaped=True)


def _table(
    head: Iterable[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
    escaped: bool = False,
) -> str:
    """An HTML table with notes below it."""

    def cells(tag: str, row: Iterable[str], plain: bool) -> str:
        return "".join(f"<{tag}>{html.escape(cell) if plain else cell}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row, not escaped)}</tr>" for row in rows)
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table><tr>{cells('th', head, True)}</tr>{body}</table>{below}"


def _pace(timing: tasks.Timing | None) -> list[str]:
    if timing is None:
        return ["", ""]
    times = timing.times_real_time
    return [f"{timing.taken:.3g} s", f"{times:.0f}" if times >= 10 else f"{times:#.2g}"]


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return text.replace("-", "−")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _machine_note() -> str:
    import torch

    threads = torch.get_num_threads()
    return f"Measured on this machine's CPU, {threads} thread{'s' if threads > 1 else ''}."


# -- answering -----------------------------------------------------------------------------------

_MENDABLE = (ValueError, OSError, ImportError, NotImplementedError)


def _answering(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors, where a visitor can mend them, are shown in the page."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def answer(*arguments: Any) -> Any:
            try:
                yield from handler(*arguments)
            except _MENDABLE as error:
                raise _in_the_page(error) from error
    else:

        @functools.wraps(handler)
        def answer(*arguments: Any) -> Any:
            try:
                return handler(*arguments)
            except _MENDABLE as error:
                raise _in_the_page(error) from error

    return answer


def _in_the_page(error: Exception) -> gr.Error:
    message = str(error)
    if message.split(" ")[0].isalpha():  # and no name of a file
        message = message[:1].upper() + message[1:]
    return gr.Error(html.escape(message), duration=None, print_exception=False)


def _shown(progress: gr.Progress) -> Notify:
    return lambda share, message: progress(share, desc=message)
