"""The tab *Latent space*: audio by temperature, and between the latents of two recordings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.models import Vocoder

from . import pictures
from .models import Models, Notify, silent
from .sound import Sound, check_recording, check_seed, log_likelihood, read_recording

TITLE = "Latent space"

LONGEST_USED = 15.0
"""Seconds of a recording that are used, from its beginning."""

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

STEPS = 5
"""Points of an interpolation, both ends included."""

Condition = Literal["first", "between"]
"""The mel that latents are decoded with: the first recording's, or one between the two."""


@dataclass(frozen=True)
class Point:
    """Audio decoded from one point of the latent space."""

    at: float
    """The temperature, or the share of the way from the first recording to the second."""
    sound: Sound
    mel: Tensor
    likelihood: float | None
    """Log-likelihood in nats per sample, given the mel that it was decoded with."""
    distance: float
    """Log-mel distance from the mel that it was decoded with, nats."""


@dataclass(frozen=True)
class Walk:
    """Points of the latent space, in order."""

    points: list[Point]
    mel_spec: MelSpec
    seconds: float
    """Duration of each of them."""


@dataclass(frozen=True)
class Arc(Walk):
    """Points between the latents of two recordings."""

    angle: float
    """Between the latents of the two, degrees."""
    rms: tuple[float, float]
    """Root mean square of the latents of each: 1 where they are standard normal."""
    reconstruction: float
    """Largest difference between the first recording and its decoded latents, full scale 1."""


def sweep(
    models: Models,
    path: str | None,
    seed: int | None,
    temperatures: Sequence[float] = TEMPERATURES,
    notify: Notify = silent,
) -> Walk:
    """Audio from the mel of a recording at several temperatures, with the same noise.

    Raises:
        ValueError: no recording, one that cannot be read, or is too long or too short; a seed out
            of range.
    """
    seed = check_seed(seed)
    path = check_recording(path)
    vocoder = models.vocoder(notify)
    recording = _beginning(read_recording(path, vocoder.sample_rate), vocoder)
    mel = vocoder.mel(recording.samples)
    points = []
    for index, temperature in enumerate(temperatures):
        notify(index / len(temperatures), f"temperature {temperature:g}")
        # Without sweeps, which would leave the point of the latent space.
        samples = vocoder.synthesize(mel, temperature, seed, refine=0)
        points.append(_point(vocoder, temperature, samples, mel))
    return Walk(points, vocoder.mel_spec, recording.seconds)


def interpolate(
    models: Models,
    first: str | None,
    second: str | None,
    condition: Condition,
    steps: int = STEPS,
    notify: Notify = silent,
) -> Arc:
    r"""Audio along the great circle from the latents of one recording to those of another.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)}{\sin\theta} z_0 + \frac{\sin(t\theta)}{\sin\theta}
        z_1, \qquad \cos\theta = \frac{\langle z_0, z_1 \rangle}{\|z_0\| \|z_1\|}

    where :math:`z_i = f(x_i; m_i)`, each recording being given its own mel. Latents of many
    dimensions lie near a sphere, which a straight line would leave. The longer recording is cut to
    the length of the shorter. z(t) is decoded with the mel of the first recording
    (``condition="first"``: only what the mel leaves open changes) or with :math:`(1 - t) m_0 +
    t m_1` (``"between"``: from one recording to the other). Paper: White, 2016, "Sampling
    generative networks".

    Args:
        steps: number of points, both ends included.

    Raises:
        ValueError: a recording is missing or cannot be used.
        CheckpointError: the model is not a flow.
    """
    paths = check_recording(first, "first "), check_recording(second, "second ")
    flow = models.flow(notify)
    notify(0.0, "audio to latents")
    sounds = [_beginning(read_recording(path, flow.sample_rate), flow) for path in paths]
    length = min(len(sound.samples) for sound in sounds)
    hop = flow.mel_spec.hop_length
    audio = [sound.excerpt(0, length).faded(hop).samples for sound in sounds]
    mels = [flow.mel(samples) for samples in audio]
    with torch.no_grad():
        z_0, z_1 = (
            flow.forward(samples, mel)[0].double() for samples, mel in zip(audio, mels, strict=True)
        )
        cosine = (z_0 * z_1).sum() / (z_0.norm() * z_1.norm())
        angle = float(torch.arccos(cosine.clamp(-1, 1)))
        points = []
        for t in np.linspace(0, 1, steps).tolist():
            notify(t, f"latents to audio, {t:.0%} of the way")
            z = _between(z_0, z_1, t, angle).float()
            mel = mels[0] if condition == "first" else torch.lerp(mels[0], mels[1], t)
            samples = flow.inverse(z, mel)
            if t == 0:
                reconstruction = float((samples - audio[0]).abs().max())
            points.append(_point(flow, t, samples, mel))
    return Arc(
        points,
        flow.mel_spec,
        length / flow.sample_rate,
        angle=math.degrees(angle),
        rms=(_rms(z_0), _rms(z_1)),
        reconstruction=reconstruction,
    )


def _beginning(sound: Sound, model: Vocoder) -> Sound:
    """A recording, or the beginning of a long one, in whole frames, with faded ends."""
    hop = model.mel_spec.hop_length
    frames = min(len(sound.samples), round(LONGEST_USED * sound.sample_rate)) // hop
    return sound.excerpt(0, frames * hop).faded(hop)


def _between(z_0: Tensor, z_1: Tensor, t: float, angle: float) -> Tensor:
    if math.sin(angle) < 1e-6:  # the same recording twice: the circle has no direction
        return torch.lerp(z_0, z_1, t)
    return (math.sin((1 - t) * angle) * z_0 + math.sin(t * angle) * z_1) / math.sin(angle)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _point(model: Vocoder, at: float, samples: Tensor, mel: Tensor) -> Point:
    # Judged before it is clipped: a few clipped samples can cost more than all the rest.
    likelihood = log_likelihood(model, Sound(samples, model.sample_rate), mel)
    sound = Sound(samples.clamp(-1, 1), model.sample_rate)
    own = model.mel(sound.samples)
    frames = min(own.shape[1], mel.shape[1])
    distance = float(model.mel_spec.distance(own[:, :frames], mel[:, :frames]))
    return Point(at, sound, own, likelihood, distance)


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    gr.Markdown(
        "The flow is invertible: given its mel, audio becomes latents, which are Gaussian noise if "
        "the model is good, and latents become audio. *Temperature* scales the noise that audio is "
        "made from; *Interpolation* goes from the latents of one recording to those of another."
    )
    with gr.Tabs():
        with gr.Tab("Temperature", id="sweep"):
            _temperature_layout(models)
        with gr.Tab("Interpolation", id="interpolate"):
            _interpolation_layout(models)


def _temperature_layout(models: Models) -> None:
    import gradio as gr

    from . import widgets

    with gr.Row():
        with gr.Column(scale=2):
            recording = widgets.recorder("Recording", "sweep-recording")
            widgets.example_recordings(recording)
            seed = widgets.seed()
            button = gr.Button("Sweep from 0 to 1", variant="primary", elem_id="sweep-button")
        with gr.Column(scale=3):
            players = widgets.players(
                [(f"Temperature {t:g}", f"sweep-audio-{i}") for i, t in enumerate(TEMPERATURES)]
            )
            picture = widgets.picture("Mel spectrograms", "sweep-picture")
            figures = widgets.figures("sweep-figures")

    @widgets.answering
    def answer(
        path: str | None, seed: int | None, progress: Any = gr.Progress()
    ) -> tuple[Any, ...]:
        walk = sweep(models, path, seed, TEMPERATURES, widgets.notifying(progress))
        return _shown(models, walk, "temperature", [f"{t:g}" for t in TEMPERATURES])

    button.click(
        answer,
        [recording, seed],
        [picture, figures, *players],
        api_name="temperature_sweep",
        show_progress_on=[picture],
        **widgets.COMPUTING,
    )


def _interpolation_layout(models: Models) -> None:
    import gradio as gr

    from . import widgets

    shares = [f"{100 * index // (STEPS - 1)} %" for index in range(STEPS)]
    with gr.Row():
        with gr.Column(scale=2):
            first = widgets.recorder("First recording", "interpolate-first")
            second = widgets.recorder("Second recording", "interpolate-second")
            russian, female, male = widgets.RECORDINGS
            gr.Examples(
                [[female, male], [male, female], [female, russian]],
                [first, second],
                label="Examples",
                example_labels=["female to male", "male to female", "English to Russian"],
            )
            condition = gr.Radio(
                [("of the first recording", "first"), ("between the two", "between")],
                value="first",
                label="Mel spectrogram to decode with",
            )
            button = gr.Button("Interpolate", variant="primary", elem_id="interpolate-button")
        with gr.Column(scale=3):
            players = widgets.players(
                [
                    (f"{share} of the way", f"interpolate-audio-{i}")
                    for i, share in enumerate(shares)
                ]
            )
            picture = widgets.picture("Mel spectrograms", "interpolate-picture")
            figures = widgets.figures("interpolate-figures")

    @widgets.answering
    def answer(
        first: str | None,
        second: str | None,
        condition: Condition,
        progress: Any = gr.Progress(),
    ) -> tuple[Any, ...]:
        arc = interpolate(models, first, second, condition, STEPS, widgets.notifying(progress))
        given = {
            "first": "the mel of the first recording: the words stay, and only what the mel leaves "
            "open changes",
            "between": "a mel between the two, band by band and frame by frame",
        }[condition]
        notes = [
            f"Both recordings are cut to the length of the shorter, {arc.seconds:.2f} s. Their "
            f"latents are {arc.angle:.1f}° apart (90°: unrelated) and have a root mean square of "
            f"{arc.rms[0]:.3f} and {arc.rms[1]:.3f} (1: standard normal). The path between them is "
            "a great circle.",
            f"Decoded with {given}. At 0 % it is the first recording again, to within "
            f"{arc.reconstruction:.0e} of full scale.",
        ]
        return _shown(models, arc, "of the way", shares, notes)

    button.click(
        answer,
        [first, second, condition],
        [picture, figures, *players],
        api_name="interpolate",
        show_progress_on=[picture],
        **widgets.COMPUTING,
    )


def _shown(
    models: Models, walk: Walk, axis: str, titles: Sequence[str], notes: Sequence[str] = ()
) -> tuple[Any, ...]:
    """A walk on the page: the picture, the figures, and a sound for each player."""
    from . import widgets

    mels = [point.mel for point in walk.points]
    head = [axis, widgets.likelihood_heading(models.family), "log-mel distance, nats"]
    rows = [
        [title, widgets.nats(point.likelihood), f"{point.distance:.3f}"]
        for title, point in zip(titles, walk.points, strict=True)
    ]
    return (
        pictures.mel_row(titles, mels, [walk.mel_spec] * len(mels)),
        widgets.table(head, rows, [*notes, widgets.LIKELIHOOD_NOTE]),
        *(widgets.playable(point.sound) for point in walk.points),
    )
