"""The tab *Copy synthesis*: a recording to its mel and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.evaluation.metrics import METRICS, installed_metrics, measure

from . import pictures
from .models import Models, Notify, silent
from .sound import (
    Sound,
    Timing,
    check_recording,
    check_seed,
    check_sweeps,
    log_likelihood,
    read_recording,
    timed,
)

TITLE = "Copy synthesis"

_QUICK_METRICS = ("log_mel_distance", "stoi", "pesq")


@dataclass(frozen=True)
class Copy:
    """A recording and what the vocoder made of its mel."""

    recording: Sound
    copy: Sound
    mels: tuple[Tensor, Tensor]
    """Of the recording and of the copy."""
    mel_spec: MelSpec
    timing: Timing
    likelihoods: tuple[float | None, float | None]
    """Log-likelihood of the recording and of the copy, nats per sample, given the mel."""
    scores: dict[str, float | None]
    """Measures of the copy by name, see `vocoder.evaluation.METRICS`."""


def copy_synthesis(
    models: Models,
    path: str | None,
    temperature: float | None,
    seed: int | None,
    refine: float | None = None,
    notify: Notify = silent,
) -> Copy:
    """Turn the mel of a recording back into audio, and measure how close it comes.

    Args:
        refine: sweeps of mel consistency; None for the vocoder's own number.

    Raises:
        ValueError: no recording, one that cannot be read, or is too long or too short; a seed,
            temperature or number of sweeps out of range.
    """
    seed, sweeps = check_seed(seed), check_sweeps(refine)
    path = check_recording(path)
    vocoder = models.vocoder(notify)
    spec = vocoder.mel_spec
    recording = read_recording(path, vocoder.sample_rate)
    notify(0.3, "synthesising")
    mel = vocoder.mel(recording.samples)
    samples, timing = timed(
        lambda: vocoder.synthesize(mel, temperature, seed, refine=sweeps), recording.seconds
    )
    copy = Sound(samples[: len(recording.samples)], vocoder.sample_rate)
    notify(0.6, "comparing with the recording")
    # A sound that is cut off would cost more than all the rest of it.
    faded, faded_copy = recording.faded(spec.hop_length), copy.faded(spec.hop_length)
    condition = vocoder.mel(faded.samples)
    metrics = [name for name in _QUICK_METRICS if name in installed_metrics()]
    return Copy(
        recording,
        copy,
        mels=(mel, vocoder.mel(copy.samples)),
        mel_spec=spec,
        timing=timing,
        likelihoods=(
            log_likelihood(vocoder, faded, condition),
            log_likelihood(vocoder, faded_copy, condition),
        ),
        scores=measure(recording.samples, copy.samples, vocoder.sample_rate, spec, metrics),
    )


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    title = models.family.title
    gr.Markdown(
        "A recording is turned into a mel spectrogram, which keeps neither the phase nor the exact "
        f"pitch, and the vocoder ({title}) makes audio from that alone."
    )
    with gr.Row():
        with gr.Column(scale=2):
            recording = widgets.recorder("Recording", "copy-recording")
            widgets.example_recordings(recording)
            with gr.Row():
                temperature = widgets.temperature(models)
                seed = widgets.seed()
            refine = widgets.sweeps(models, "copy-sweeps")
            button = gr.Button("Resynthesise", variant="primary", elem_id="copy-button")
        with gr.Column(scale=3):
            with gr.Row():
                original = widgets.player("Recording", "copy-original")
                copy = widgets.player(title, "copy-audio")
            picture = widgets.picture("Mel spectrograms", "copy-picture")
            figures = widgets.figures("copy-figures")

    @widgets.answering
    def answer(
        path: str | None,
        temperature: float,
        seed: int | None,
        refine: float | None,
        progress: Any = gr.Progress(),
    ) -> tuple[Any, ...]:
        notify = widgets.notifying(progress)
        result = copy_synthesis(models, path, temperature, seed, refine, notify)
        pace = zip(widgets.PACE, widgets.pace(result.timing), strict=True)
        rows = [
            *([name, "", value] for name, value in pace),
            [widgets.likelihood_heading(models.family), *map(widgets.nats, result.likelihoods)],
        ]
        for name, value in result.scores.items():
            metric = METRICS[name]
            unit = f", {metric.unit}" if metric.unit else ""
            heading = f"{metric.title}{unit} ({metric.better} is better)"
            rows.append([heading, "", widgets.number(value)])
        notes = [widgets.LIKELIHOOD_NOTE, widgets.machine_note()]
        return (
            widgets.playable(result.recording),
            widgets.playable(result.copy),
            pictures.mels(["Recording", title], result.mels, [result.mel_spec] * 2),
            widgets.table(["", "recording", title], rows, notes),
        )

    button.click(
        answer,
        [recording, temperature, seed, refine],
        [original, copy, picture, figures],
        api_name="copy_synthesis",
        show_progress_on=[picture],
        **widgets.COMPUTING,
    )
