"""Pictures of sound for the page: waveforms and mel spectrograms, as arrays of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import MelSpec

from .sound import Sound

Pixels = NDArray[np.uint8]
"""(height, width, 3)."""

_INK = "#334155"
_WAVE = "#4f46e5"
_LABEL: dict[str, Any] = {"fontsize": 9, "color": _INK}
_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
_COLUMNS = 900  # about the width of a picture in pixels


def waveform_and_mel(sound: Sound, mel: Tensor, spec: MelSpec) -> Pixels:
    """The waveform above the mel spectrogram (n_mels, frames)."""
    figure = Figure(figsize=(9, 4.2), dpi=130, layout="constrained")
    wave, picture = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    _draw_wave(wave, sound)
    image = _draw_mel(picture, mel, spec, _range(mel))
    picture.set_xlabel("seconds", **_LABEL)
    _draw_scale(figure, image, [picture], spec)
    return _pixels(figure)


def mels(titles: Sequence[str], spectrograms: Sequence[Tensor], specs: Sequence[MelSpec]) -> Pixels:
    """Mel spectrograms one below the other, in the colour range of the first."""
    count = len(titles)
    figure = Figure(figsize=(9, 1.1 + 1.9 * count), dpi=130, layout="constrained")
    axes = figure.subplots(count, 1, squeeze=False)[:, 0]
    scale = _range(spectrograms[0])
    for axis, title, mel, spec in zip(axes, titles, spectrograms, specs, strict=True):
        image = _draw_mel(axis, mel, spec, scale)
        axis.set_title(title, loc="left", fontsize=11, color=_INK)
    axes[-1].set_xlabel("seconds", **_LABEL)
    _draw_scale(figure, image, list(axes), specs[0])
    return _pixels(figure)


def mel_row(
    titles: Sequence[str], spectrograms: Sequence[Tensor], specs: Sequence[MelSpec]
) -> Pixels:
    """Mel spectrograms side by side, in the colour range of the first."""
    count = len(titles)
    figure = Figure(figsize=(9, 2.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    scale = _range(spectrograms[0])
    for axis, title, mel, spec in zip(axes, titles, spectrograms, specs, strict=True):
        _draw_mel(axis, mel, spec, scale)
        axis.set_title(title, loc="left", fontsize=11, color=_INK)
        axis.set_xlabel("seconds", **_LABEL)
    for axis, before, spec in zip(axes[1:], specs, specs[1:], strict=False):
        axis.set_ylabel("")
        if spec == before:
            axis.set_yticklabels([])
    return _pixels(figure)


def _draw_wave(axis: Any, sound: Sound) -> None:
    samples = sound.samples.numpy()
    step = max(len(samples) // _COLUMNS, 1)
    blocks = samples[: len(samples) // step * step].reshape(-1, step)
    times = (np.arange(len(blocks)) + 0.5) * step / sound.sample_rate
    axis.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), color=_WAVE, linewidth=0.6)
    peak = max(float(np.abs(samples).max()), 0.01)
    axis.set_ylim(-1.05 * peak, 1.05 * peak)
    axis.tick_params(colors=_INK, labelsize=9, labelbottom=False, bottom=False)
    axis.set_ylabel("amplitude", **_LABEL)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _draw_mel(axis: Any, mel: Tensor, spec: MelSpec, scale: tuple[float, float]) -> Any:
    seconds = mel.shape[1] * spec.hop_length / spec.sample_rate
    image = axis.imshow(
        mel.cpu().numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="magma",
        extent=(0, seconds, 0, spec.n_mels),
        vmin=scale[0],
        vmax=scale[1],
    )
    places, labels = _frequency_ticks(spec)
    axis.set_yticks(places, labels)
    axis.set_ylabel("kHz", **_LABEL)
    axis.tick_params(colors=_INK, labelsize=9)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def _draw_scale(figure: Figure, image: Any, axes: list[Any], spec: MelSpec) -> None:
    scale = figure.colorbar(image, ax=axes, pad=0.01)
    scale.set_label(_unit(spec), **_LABEL)
    scale.ax.tick_params(colors=_INK, labelsize=9)


def _frequency_ticks(spec: MelSpec) -> tuple[list[float], list[str]]:
    """Positions and labels of frequencies among the bands, by the filters' centres of mass."""
    filters = spec.filters().double().numpy()
    hertz = np.linspace(0, spec.sample_rate / 2, filters.shape[1])
    centres = (filters @ hertz) / np.maximum(filters.sum(axis=1), 1e-12)
    shown = [tick for tick in _TICKS_HZ if spec.fmin <= tick <= spec.fmax]
    places = np.interp(shown, centres, np.arange(spec.n_mels) + 0.5)
    return places.tolist(), [f"{tick / 1000:g}" for tick in shown]


def _range(mel: Tensor) -> tuple[float, float]:
    low, high = np.percentile(mel.cpu().numpy(), [1, 99.8]).tolist()
    return low, max(high, low + 1e-3)  # the range of silence is 0


def _unit(spec: MelSpec) -> str:
    what = "magnitude" if spec.power == 1 else "power"
    return f"log {what}" if spec.log_base == "e" else f"log10 {what}"


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
