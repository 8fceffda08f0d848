"""Pieces of the page that the tabs share: controls, players, tables of figures, error messages."""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from vocoder.models import Vocoder

from .models import Models, Notify
from .sound import LARGEST_SEED, LONGEST_SECONDS, MOST_SWEEPS, Sound, Timing

COMPUTING: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "compute"}
"""Options of every event that computes: one at a time, since all share the processor and the times
shown should be true."""

CSS = """
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
.why { color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.figures p { margin: 0.6rem 0 0; color: var(--body-text-color-subdued); }
@media (max-width: 640px) {
  .figures table { font-size: var(--text-xs); }
  .figures th, .figures td { padding: 0.3rem 0.2rem; overflow-wrap: break-word; }
  .figures td:first-child { white-space: normal; }
  .picture .image-frame { padding-top: 2.2rem; }  /* below its buttons */
}
"""

PACE = ("computed in", "times real time")
"""Headings of `pace`."""

LIKELIHOOD_NOTE = (
    "Log-likelihood: nats per sample of audio in [-1, 1], given the mel of the recording; 16-bit "
    "audio is dequantised with uniform noise. It measures how well a model predicts recordings, "
    "not how good its own audio sounds."
)

_EXAMPLES = Path(str(resources.files("vocoder.demo"))) / "examples"

# Where they come from: NOTICE in their folder.
RECORDINGS = {
    str(_EXAMPLES / "russian.flac"): "recorded speech, Russian",
    str(_EXAMPLES / "english-female.flac"): "synthetic English, female",
    str(_EXAMPLES / "english-male.flac"): "synthetic English, a voice never trained on",
}
"""The example recordings: path -> what the page calls it."""

# -- controls and players ------------------------------------------------------------------------


def temperature(models: Models) -> gr.Slider:
    """The temperature, at first the family's default."""
    default = models.family.default_temperature
    return gr.Slider(0.0, 1.0, default, step=0.001, label="Temperature")


def sweeps(models: Models, name: str) -> gr.Slider:
    """The sweeps of mel consistency, at first the model's own number."""
    return gr.Slider(
        0,
        MOST_SWEEPS,
        min(models.default_refine, MOST_SWEEPS),
        step=1,
        label="Sweeps of mel consistency",
        info="Each brings the mel of the audio closer to the one it is made from; 0 for none",
        elem_id=name,
    )


def seed() -> gr.Number:
    """The seed."""
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED)


def recorder(label: str, name: str) -> gr.Audio:
    """A place for a recording: uploaded, recorded or an example."""
    return gr.Audio(
        label=f"{label}, at most {LONGEST_SECONDS:g} s",
        sources=["upload", "microphone"],
        type="filepath",
        buttons=["download"],
        elem_id=name,
    )


def example_recordings(target: gr.Audio) -> None:
    """Buttons that put an example into a `recorder`."""
    gr.Examples(
        [[path] for path in RECORDINGS],
        [target],
        label="Examples",
        example_labels=list(RECORDINGS.values()),
    )


def player(label: str, name: str) -> gr.Audio:
    """A player of what was computed; see `playable`."""
    return gr.Audio(label=label, interactive=False, buttons=["download"], elem_id=name)


def players(
    labels_and_names: Sequence[tuple[str, str]], notes: Sequence[str] = ()
) -> list[gr.Audio]:
    """Players, two in a row, with a note under each if there are any."""
    placed = []
    for first in range(0, len(labels_and_names), 2):
        with gr.Row():
            for index, pair in enumerate(labels_and_names[first : first + 2], first):
                with gr.Column(min_width=260):
                    placed.append(player(*pair))
                    if notes:
                        gr.Markdown(notes[index], elem_classes="why")
    return placed


def picture(label: str, name: str) -> gr.Image:
    """A place for a picture."""
    return gr.Image(
        label=label,
        show_label=False,
        alt_text=label,
        interactive=False,
        format="png",
        buttons=["download", "fullscreen"],
        elem_id=name,
        elem_classes="picture",
    )


def figures(name: str) -> gr.HTML:
    """A place for a `table`."""
    return gr.HTML(elem_id=name, elem_classes="figures")


# -- values as the page shows them ---------------------------------------------------------------


def playable(sound: Sound | None) -> tuple[int, Any] | None:
    """A sound for a `player`."""
    # In 16 bits, since gradio raises floating point to full scale.
    return None if sound is None else (sound.sample_rate, sound.pcm())


def table(
    head: Iterable[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
    escaped: bool = False,
) -> str:
    """An HTML table with notes below it; ``escaped``: the cells of the rows are HTML already."""

    def cells(tag: str, row: Iterable[str], plain: bool) -> str:
        return "".join(f"<{tag}>{html.escape(cell) if plain else cell}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row, not escaped)}</tr>" for row in rows)
    below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return f"<table><tr>{cells('th', head, True)}</tr>{body}</table>{below}"


def pace(timing: Timing | None) -> list[str]:
    """The cells below `PACE`."""
    if timing is None:
        return ["", ""]
    times = timing.times_real_time
    return [f"{timing.taken:.3g} s", f"{times:.0f}" if times >= 10 else f"{times:#.2g}"]


def likelihood_heading(family: type[Vocoder]) -> str:
    """Heading of log-likelihoods by models of this family."""
    bound = " (lower bound)" if family.likelihood == "lower bound" else ""
    return f"log-likelihood{bound}, nats per sample"


def nats(value: float | None) -> str:
    """A log-likelihood."""
    if value is None:
        return "–"
    if abs(value) < 100:
        text = f"{value:.2f}"
    else:
        text = f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.0e}".replace("e+", "e")
    return text.replace("-", "−")


def number(value: float | None) -> str:
    """A score."""
    return "–" if value is None else f"{value:.3f}"


def machine_note() -> str:
    """Where times were measured."""
    threads = torch.get_num_threads()
    return f"Measured on this machine's CPU, {threads} thread{'s' if threads > 1 else ''}."


# -- handlers ------------------------------------------------------------------------------------

_CORRECTABLE = (ValueError, OSError, ImportError, NotImplementedError)


def answering(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose errors, where a visitor can do something about them, appear in the page."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def answer(*arguments: Any) -> Any:
            try:
                yield from handler(*arguments)
            except _CORRECTABLE as error:
                raise _in_the_page(error) from error
    else:

        @functools.wraps(handler)
        def answer(*arguments: Any) -> Any:
            try:
                return handler(*arguments)
            except _CORRECTABLE as error:
                raise _in_the_page(error) from error

    return answer


def _in_the_page(error: Exception) -> gr.Error:
    message = str(error)
    if message.split(" ")[0].isalpha():  # not the name of a file
        message = message[:1].upper() + message[1:]
    return gr.Error(html.escape(message), duration=None, print_exception=False)


def notifying(progress: gr.Progress) -> Notify:
    """A `Notify` that shows in the page how far things are."""
    return lambda share, message: progress(share, desc=message)
