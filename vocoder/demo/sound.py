"""What the tabs share: sound, its timing and likelihood, and recordings as visitors give them.

Limits are checked here and in the tabs' functions, so that they hold whoever calls. What a visitor
can correct is raised as a ValueError of one sentence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import MelSpec, dequantise, fade, read_audio, to_pcm16
from vocoder.audio.containers import duration
from vocoder.models import Vocoder

LONGEST_SECONDS = 60.0
"""The longest recording that is accepted."""

SHORTEST_SECONDS = 0.2
"""The shortest recording that is accepted."""

LARGEST_SEED = 2**31 - 1

MOST_SWEEPS = 32
"""The largest number of sweeps of mel consistency."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sound:
    """Mono audio: samples (samples,), float32 in [-1, 1], and its rate in Hz."""

    samples: Tensor
    sample_rate: int
    quantised: bool = False
    """Whether it is 16-bit audio, as recordings and the output of autoregressive models are; a
    flow's output is not. A density needs 16-bit audio dequantised."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.sample_rate

    def pcm(self) -> NDArray[np.int16]:
        """The samples in 16 bits."""
        return to_pcm16(self.samples.numpy())

    def excerpt(self, first: int, length: int) -> Sound:
        """``length`` samples of it, from sample ``first`` on."""
        return replace(self, samples=self.samples[first : first + length])

    def faded(self, length: int) -> Sound:
        """The same with the ends faded over ``length`` samples, as in training (`fade`)."""
        length = min(length, len(self.samples))
        return replace(self, samples=torch.from_numpy(fade(self.samples.numpy(), length)))


@dataclass(frozen=True)
class Timing:
    """How long it took to compute ``audio`` seconds of audio, in seconds."""

    taken: float
    audio: float

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of computation."""
        return self.audio / self.taken


def timed(make: Callable[[], Result], seconds: float) -> tuple[Result, Timing]:
    """The result of a function that makes ``seconds`` of audio, and the time of its second call.

    The first call prepares for these sizes.
    """
    make()
    start = time.perf_counter()
    result = make()
    return result, Timing(time.perf_counter() - start, seconds)


def check_recording(path: str | None, which: str = "") -> str:
    """The path of a recording that can be used; cheap, so it comes before any model is loaded.

    Args:
        which: such as "first ", if there are several recordings.

    Raises:
        ValueError: no recording, not audio, too short or too long.
    """
    if not path:
        raise ValueError(f"there is no {which}recording: choose, record or upload one")
    try:
        # The header only: a small file can hold hours.
        seconds = duration(path)
    except (ValueError, soundfile.LibsndfileError):
        read_recording(path, None)  # raises, and says what is wrong
        raise
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ValueError(
            f"the {which}recording lasts {seconds:.2f} s: choose one of {SHORTEST_SECONDS:g} to "
            f"{LONGEST_SECONDS:g} s, or cut it with the scissors below it"
        )
    return path


def read_recording(path: str, sample_rate: int | None) -> Sound:
    """A recording as mono sound, resampled to a rate; None keeps its own."""
    try:
        samples, rate = read_audio(path, sample_rate)
    except (ValueError, OSError) as error:
        # The folder of an upload means nothing to the visitor.
        raise ValueError(str(error).replace(path, Path(path).name)) from error
    return Sound(samples.clamp(-1, 1), rate, quantised=True)


def check_seed(seed: int | None) -> int:
    """The seed, if there is one in the range."""
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"the seed is {seed}: give a whole number from 0 to {LARGEST_SEED}")
    return int(seed)


def check_sweeps(sweeps: float | None) -> int | None:
    """The number of sweeps of mel consistency, if it is in the range; None for the model's own."""
    if sweeps is None:
        return None
    if not 0 <= sweeps <= MOST_SWEEPS or sweeps != int(sweeps):
        raise ValueError(
            f"the number of sweeps is {sweeps}: give a whole number from 0 to {MOST_SWEEPS}"
        )
    return int(sweeps)


def log_likelihood(model: Vocoder, sound: Sound, mel: Tensor) -> float | None:
    """Nats per sample given a mel; None if the family has no likelihood, or it is not finite.

    Quantised sound is dequantised with uniform noise.
    """
    if model.likelihood is None:
        return None
    audio = sound.samples
    if sound.quantised:
        audio = torch.from_numpy(dequantise(sound.pcm(), np.random.default_rng(0)))
    frames = -(-len(audio) // model.mel_spec.hop_length)
    with torch.no_grad():
        value = float(model.log_prob(audio, mel[:, :frames])) / len(audio)
    return value if math.isfinite(value) else None


def convention(spec: MelSpec) -> str:
    """A mel convention in short, for messages."""
    return f"{spec.sample_rate:,} Hz, {spec.n_mels} bands"
