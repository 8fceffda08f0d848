"""The tab *Latent space*: audio by temperature, and between the latents of two recordings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vocoder.audio import Refine

from .models import Models
from .sound import Notify, Version, beginning, read_recording, silent

TITLE = "Latent space"


def by_temperature(
    models: Models,
    path: str | None,
    name: str,
    refine: Refine | None = None,
    seed: int | None = 0,
    notify: Notify = silent,
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
) -> list[Version]:
    """Audio from the mel of a recording at several temperatures, with the same noise.

    Raises:
        ValueError: no recording, or one that cannot be used.
    """
    vocoder = models.vocoders[name]
    spec = vocoder.mel_spec
    mel = vocoder.mel(beginning(read_recording(path, spec.sample_rate), spec))
    points = []
    for index, temperature in enumerate(temperatures):
        notify(index / len(temperatures), f"temperature {temperature:g}")
        samples = vocoder.synthesize(mel, temperature, seed or 0, refine=refine).cpu()
        points.append(Version(f"Temperature {temperature:g}", samples, spec).compare(mel))
    return points


def interpolate(
    models: Models,
    first: str | None,
    second: str | None,
    name: str,
    refine: Refine | None = None,
    notify: Notify = silent,
    steps: int = 5,
) -> tuple[list[Version], str]:
    r"""Audio along the great circle from the latents of one recording to those of another.

    .. math:: z(t) = \frac{\sin((1 - t)\theta)}{\sin\theta} z_0 + \frac{\sin(t\theta)}{\sin\theta}
        z_1, \qquad \cos\theta = \frac{\langle z_0, z_1 \rangle}{\|z_0\| \|z_1\|}

    where :math:`z_i = f(x_i; m_i)`, each recording being given its own mel. Latents of many
    dimensions lie near a sphere, which a straight line would leave. z(t) is decoded with the mel
    :math:`(1 - t) m_0 + t m_1`. Paper: White, 2016, "Sampling generative networks".

    Args:
        name: of a flow.
        refine: iterations that match the mel of each point to the one that it is decoded with.
        steps: points, both ends included.

    Returns:
        The points, and what is to be said of the path.

    Raises:
        ValueError: a recording is missing or cannot be used.
    """
    flow: Any = models.vocoders[name]
    spec = flow.mel_spec
    audio = [
        beginning(read_recording(path, spec.sample_rate, which), spec)
        for path, which in ((first, "first "), (second, "second "))
    ]
    length = min(map(len, audio))
    audio = [beginning(samples[:length], spec) for samples in audio]
    mels = [flow.mel(samples) for samples in audio]
    points = []
    error = 0.0
    with torch.no_grad():
        z_0, z_1 = (flow.forward(x, mel)[0].double() for x, mel in zip(audio, mels, strict=True))
        cosine = (z_0 * z_1).sum() / (z_0.norm() * z_1.norm())
        angle = float(torch.arccos(cosine.clamp(-1, 1)))
        for t in np.linspace(0, 1, steps).tolist():
            notify(t, f"{t:.0%} of the way")
            z = math.sin((1 - t) * angle) * z_0 + math.sin(t * angle) * z_1
            z = z / math.sin(angle) if angle > 1e-6 else z_0  # the same recording twice
            mel = torch.lerp(mels[0], mels[1], t)
            samples = flow.inverse(z.float(), mel)
            if t == 0:
                error = float((samples - audio[0]).abs().max())
            levels = flow.default_refine if refine is None else refine
            pair = (x.unsqueeze(0).to(flow.device) for x in (samples, mel))
            samples = flow.refine_audio(*pair, levels)[0]
            version = Version(f"{t:.0%} of the way", samples.clamp(-1, 1).cpu(), spec)
            points.append(version.compare(mel))
    rms = [float(z.square().mean().sqrt()) for z in (z_0, z_1)]
    return points, (
        "Both recordings are cut to the length of the shorter. Their latents are "
        f"{math.degrees(angle):.1f}° apart (90°: unrelated) and have a root mean square of "
        f"{rms[0]:.3f} and {rms[1]:.3f} (1: standard normal). Before refinement, 0% of the way is "
        f"the first recording to within {error:.0e} of full scale."
    )


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    flows = [name for name, model in models.vocoders.items() if hasattr(model, "inverse")]
    if not flows:
        gr.Markdown("No model here is a flow: start the demo with the checkpoint of one.")
        return
    gr.Markdown(
        "A flow is invertible: given its mel, audio becomes latents, which are Gaussian noise if "
        "the model is good, and latents become audio. *Temperatures* scales the noise that audio "
        "is made from; *Interpolate* goes from one recording to another."
    )
    with gr.Row():
        with gr.Column(scale=2):
            first = widgets.recorder("Recording", "latent-first")
            second = widgets.recorder("Second recording, to interpolate", "latent-second")
            russian, female, male = widgets.RECORDINGS
            gr.Examples(
                [[female, male], [male, female], [female, russian]],
                [first, second],
                label="Examples",
                example_labels=["female to male", "male to female", "English to Russian"],
            )
            with gr.Group():
                name = widgets.vocoder(models, flows, "latent-model")
                refine, seed = widgets.refinement("latent-refine"), widgets.seed()
            with gr.Row():
                scale = gr.Button("Temperatures", variant="primary", elem_id="latent-temperatures")
                between = gr.Button("Interpolate", variant="primary", elem_id="latent-interpolate")
        with gr.Column(scale=3):
            results = widgets.Results("latent")

    def temperatures(*arguments: Any) -> Iterator[list[Any]]:
        yield results.show(by_temperature(models, *arguments))

    def interpolation(*arguments: Any) -> Iterator[list[Any]]:
        yield results.show(*interpolate(models, *arguments))

    inputs = [first, name, refine, seed]
    widgets.compute([scale.click], temperatures, inputs, results.outputs, "temperatures")
    inputs = [first, second, name, refine]
    widgets.compute([between.click], interpolation, inputs, results.outputs, "interpolate")
