"""Parts of the page that tabs share: controls, results, events."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from gradio.data_classes import FileData
from gradio.processing_utils import save_audio_to_cache

from vocoder.audio import to_pcm16

from .models import Models
from .sound import Version, picture_of

_FOLDER = Path(__file__).parent

MACHINE = f"Computed on this machine by {torch.get_num_threads()} CPU thread(s)."


def settings(models: Models, prefix: str) -> tuple[gr.Dropdown, gr.Slider, gr.Number]:
    """Refinement ("own" stands for None), temperature (at first the page's vocoder's) and seed."""
    schedules: list[Any] = [2, 4, 8, 16, 32, "fast", "default", "best"]
    refine = gr.Dropdown(
        [("the model's own", "own"), ("0, network output only", 0), *schedules],
        label="Refinement",
        info="Iterations that match the output's mel to the input",
        elem_id=f"{prefix}-refine",
    )
    own = models.page.default_temperature
    temperature = gr.Slider(0.0, 1.0, own, step=0.001, label="Temperature")
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    return refine, temperature, seed


def picture(elem_id: str) -> gr.Image:
    """A place for a picture of mels."""
    return gr.Image(
        label="Mel spectrograms",
        show_label=False,
        alt_text="Mel spectrograms",
        interactive=False,
        format="png",
        buttons=["download", "fullscreen"],
        elem_id=elem_id,
        elem_classes="picture",
    )


def playable(version: Version) -> tuple[int, Any]:
    """Rate and samples, in 16 bits, which gradio does not raise to full scale."""
    return version.mel_spec.sample_rate, to_pcm16(version.samples.numpy())


class Results:
    """Versions of the same audio: a player that switches between them, figures and a picture."""

    def __init__(self, prefix: str) -> None:
        self.player = gr.HTML(
            html_template=(_FOLDER / "versions.html").read_text(encoding="utf-8"),
            js_on_load=(_FOLDER / "versions.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id=f"{prefix}-versions",
            elem_classes="versions",
        )
        self.outputs = [self.player, picture(f"{prefix}-picture")]

    def show(self, versions: Sequence[Version], notes: str = "", done: bool = True) -> list[Any]:
        """Values of the player and, if all is done, the picture."""
        headings = list(dict.fromkeys(key for version in versions for key in version.figures))
        rows = []
        for version in versions:
            rate, samples = playable(version)
            path = save_audio_to_cache(samples, rate, "wav", cache_dir=self.player.GRADIO_CACHE)
            figures = [_figure(version.figures.get(heading, "")) for heading in headings]
            row = {"name": version.name, "remark": version.remark, "figures": figures}
            rows.append({**row, "file": FileData(path=path).model_dump()})
        value = {"group": self.player.elem_id, "headings": headings, "rows": rows, "notes": notes}
        return [value, picture_of(versions) if done else gr.skip()]


def _figure(value: float | str | None) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{round(value, 4):#.3g}"
    return "–" if value is None else value


def compute(
    triggers: Sequence[Any],
    function: Callable[..., Iterator[list[Any]]],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    api_name: str,
) -> Any:
    """The event that calls a function of the inputs, with None for "own", and a `Notify`: what it
    yields, its progress and errors appear in the page."""

    def answer(progress: Any = gr.Progress(), *values: Any) -> Iterator[list[Any]]:
        try:
            yield from function(
                *(None if value == "own" else value for value in values),
                lambda share, message: progress(share, desc=message),
            )
        except (ValueError, OSError, ImportError, NotImplementedError) as error:
            # The folder of an upload means nothing to a visitor.
            message = re.sub(r"(?<!\w)/\S+/", "", str(error))
            if message.split(" ")[0].isalpha():  # not the name of a file
                message = message[:1].upper() + message[1:]
            raise gr.Error(html.escape(message), duration=None, print_exception=False) from error

    # One at a time: all share the processor, and the times shown should be true.
    shared = {"concurrency_limit": 1, "concurrency_id": "compute", "show_progress_on": outputs[-1]}
    return gr.on(triggers, answer, inputs, outputs, api_name=api_name, **shared)
