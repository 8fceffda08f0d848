"""Audio as the page plays it, and recordings as visitors give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import LogMel, MelSpec, read_audio

Notify = Callable[[float, str], object]  # takes the share that is done, 0 to 1, and what is next

SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 60.0  # of recordings that are accepted


@dataclass(frozen=True)
class Version:
    """Audio on the page: (samples,), float32 in [-1, 1]. The page shows its name, a remark below
    it, and figures by the headings of their columns."""

    name: str
    samples: Tensor
    mel_spec: MelSpec
    remark: str = ""
    figures: dict[str, float | None] = field(default_factory=dict)

    @cached_property
    def mel(self) -> Tensor:
        """(n_mels, frames)."""
        return LogMel(self.mel_spec)(self.samples)


def read_recording(path: str | None, sample_rate: int) -> Tensor:
    """A recording, (samples,), as mono audio in [-1, 1], resampled.

    Raises:
        ValueError: no recording, not audio, too short or too long.
    """
    if not path:
        raise ValueError("there is no recording: choose, record or upload one")
    try:
        seconds = soundfile.info(path).duration  # first: a small file can hold hours
    except soundfile.LibsndfileError:
        seconds = SHORTEST_SECONDS  # read_audio says what is wrong
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"the recording lasts {seconds:.2f} s: choose one of {SHORTEST_SECONDS:g} to "
            f"{LONGEST_SECONDS:g} s, or cut it with the scissors below it"
        )
    try:
        return read_audio(path, sample_rate)[0].clamp(-1, 1)
    except (OSError, ValueError) as error:
        # The folder of an upload means nothing to the visitor.
        raise ValueError(str(error).replace(path, Path(path).name)) from error


def picture_of(versions: Sequence[Version]) -> NDArray[np.uint8]:
    """Mel spectrograms in the colours of the first, as pixels (height, width, 3)."""
    columns = min(len(versions), 2)
    rows = -(-len(versions) // columns)
    figure = Figure(figsize=(9, 0.4 + 1.7 * rows), dpi=130, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    low, high = np.percentile(versions[0].mel.numpy(), [1, 99.8]).tolist()
    high = max(high, low + 1e-3)  # the range of silence is 0
    look: Any = {"origin": "lower", "aspect": "auto", "cmap": "magma", "vmin": low, "vmax": high}
    for axis in axes[len(versions) :]:
        axis.set_axis_off()
    for axis, version in zip(axes, versions, strict=False):
        spec, seconds = version.mel_spec, len(version.samples) / version.mel_spec.sample_rate
        axis.imshow(version.mel.numpy(), extent=(0, seconds, 0, spec.n_mels), **look)
        hertz = spec.filters().argmax(dim=1) * spec.sample_rate / spec.n_fft  # of the bands
        places = np.interp([500, 1000, 2000, 4000], hertz, np.arange(spec.n_mels) + 0.5)
        axis.set_yticks(places, ["0.5", "1", "2", "4"])
        axis.set(xlabel="seconds", ylabel="kHz")
        axis.set_title(version.name, loc="left", fontsize=10)
        axis.label_outer()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
