"""The definition of a mel spectrogram: every number it depends on, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_SIZES = ("n_fft", "hop_length", "win_length")
_MOST = {"sample_rate": 1_000_000, **dict.fromkeys(_SIZES, 32_768), "n_mels": 1_024}
_ALLOWED = {
    "mel_scale": ("slaney", "htk"),
    "mel_norm": ("slaney", None),
    "power": (1.0, 2.0),
    "log_base": ("e", "10"),
    "center": (True, False),
}

# Slaney's scale (Auditory Toolbox, 1998): 200/3 Hz per mel up to 1 kHz, then 27 mels per factor of
# 6.4. HTK's: 2595 log10(1 + f / 700).
_SLANEY_HZ_PER_MEL = 200 / 3
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(hz: npt.NDArray[np.float64], scale: str) -> npt.NDArray[np.float64]:
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    above = _SLANEY_KNEE_MEL + np.log(np.maximum(hz, 1.0) / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_KNEE_HZ, hz / _SLANEY_HZ_PER_MEL, above)


def _mel_to_hz(mel: npt.NDArray[np.float64], scale: str) -> npt.NDArray[np.float64]:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_KNEE_MEL))
    return np.where(mel < _SLANEY_KNEE_MEL, mel * _SLANEY_HZ_PER_MEL, above)


@dataclass(frozen=True, kw_only=True)
class MelSpec:
    r"""Everything that defines a log-mel spectrogram.

    .. math:: M[m, k] = \log_b \max\Bigl(\sum_f F[m, f]\, |X[f, k]|^p,\; \epsilon\Bigr)

    where X is the short-time Fourier transform of audio in [-1, 1] under a periodic Hann window
    (not normalised), f a frequency bin, k a frame, F the triangular mel filters, p `power`, b
    `log_base` and ε `floor`.

    With `center=False` (the convention of HiFi-GAN) the audio is zero-padded at its
    end to a whole number of hops, and frame k is centred on the middle of samples [k * hop, (k +
    1) * hop): there are ceil(samples / hop) frames. With `center=True` (Tacotron 2, librosa) frame
    k is centred on sample k * hop: there are 1 + floor(samples / hop) frames. 1,000 samples at hop
    256 make 4 frames either way, 1,024 samples make 4 and 5.

    Attributes:
        sample_rate: of the audio, in Hz, at most 1,000,000.
        n_fft: length of the Fourier transform, in samples, at most 32,768.
        hop_length: distance between frames, in samples.
        win_length: length of the Hann window, in samples, centred in the n_fft samples of a frame:
            hop_length <= win_length <= n_fft.
        n_mels: number of mel bands, at most 1,024.
        fmin: lower edge of the lowest band, in Hz.
        fmax: upper edge of the highest band, in Hz, at most sample_rate / 2.
        mel_scale: "slaney" (linear below 1 kHz, logarithmic above) or "htk".
        mel_norm: "slaney" (every filter has the same area) or None (every filter peaks at 1).
        power: 1.0 for magnitudes, 2.0 for powers.
        log_base: "e" or "10".
        floor: smallest value before the logarithm; greater than 0.
        center: where frames lie, as above.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    win_length: int
    n_mels: int
    fmin: float
    fmax: float
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney"] | None = "slaney"
    power: float = 1.0
    log_base: Literal["e", "10"] = "e"
    floor: float = 1e-5
    center: bool = False

    def __post_init__(self) -> None:
        def check(right: bool, message: str) -> None:
            if not right:
                raise ValueError(f"MelSpec.{message}")

        for name, most in _MOST.items():
            value: Any = getattr(self, name)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            check(whole, f"{name} must be a whole number, got {value!r}.")
            check(1 <= value <= most, f"{name} must be from 1 to {most:,}, got {value}.")
            object.__setattr__(self, name, int(value))
        for name in ("fmin", "fmax", "power", "floor"):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            # YAML reads 1e-5 as text.
            hint = " (YAML wants a point in 1.0e-5)" if isinstance(value, str) else ""
            check(number, f"{name} must be a number, got {value!r}{hint}.")
            check(math.isfinite(value), f"{name} must be finite, got {value}.")
            object.__setattr__(self, name, float(value))
        for name, allowed in _ALLOWED.items():
            value, choices = getattr(self, name), " or ".join(map(repr, allowed))
            right = value in allowed and (name != "center" or isinstance(value, bool))
            check(right, f"{name} must be {choices}, got {value!r}.")
        for small, large in (("win_length", "n_fft"), ("hop_length", "win_length")):
            a, b = getattr(self, small), getattr(self, large)
            check(a <= b, f"{small} ({a}) must not exceed {large} ({b}).")
        low, high, nyquist = self.fmin, self.fmax, self.sample_rate / 2
        check(low >= 0, f"fmin must be at least 0 Hz, got {low:g}.")
        check(high > low, f"fmax ({high:g}) must lie above fmin ({low:g}).")
        check(high <= nyquist, f"fmax ({high:g}) lies above half the sample rate ({nyquist:g}).")
        check(self.floor > 0, f"floor must be greater than 0, got {self.floor:g}.")

    @classmethod
    def preset(cls, name: str) -> MelSpec:
        """The named MelSpec of `PRESETS`; ValueError that lists them if there is none."""
        if name not in PRESETS:
            raise ValueError(f"There is no MelSpec preset {name!r}: choose {', '.join(PRESETS)}.")
        return PRESETS[name]

    def to_dict(self) -> dict[str, int | float | str | bool | None]:
        """The fields as plain values, for JSON or YAML."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelSpec:
        """The inverse of `to_dict`; fields with a default may be left out.

        ValueError if a key is unknown or missing, or a value is refused; the message names it.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        if unknown := [repr(key) for key in values if key not in fields]:
            raise ValueError(f"MelSpec has no {', '.join(unknown)}, only {', '.join(fields)}.")
        needed = [name for name, default in fields.items() if default is dataclasses.MISSING]
        if missing := [repr(name) for name in needed if name not in values]:
            raise ValueError(f"MelSpec needs {', '.join(missing)}.")
        return cls(**values)

    def frames(self, samples: int) -> int:
        """Number of frames in the mel of this many samples."""
        if self.center:
            return 1 + samples // self.hop_length
        return -(-samples // self.hop_length)

    @property
    def padding(self) -> tuple[int, int]:
        """Reflected samples that the transform adds before and after the audio."""
        if self.center:
            return self.n_fft // 2, self.n_fft // 2
        left = (self.n_fft - self.hop_length) // 2
        return left, self.n_fft - self.hop_length - left

    def log(self, value: float) -> float:
        """The logarithm of a number in this MelSpec's base."""
        return math.log(value) if self.log_base == "e" else math.log10(value)

    @property
    def nats(self) -> float:
        """One unit of this mel's logarithm in nats: 1 for base e, ln 10 for base 10."""
        return 1.0 if self.log_base == "e" else math.log(10)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean absolute difference of two log-mels of one shape, in nats; a scalar."""
        return self.nats * (a - b).abs().mean()

    @property
    def log_floor(self) -> float:
        """The value of silence, the lowest that a mel of this MelSpec can have."""
        return self.log(self.floor)

    @cached_property
    def log_ceiling(self) -> float:
        """An upper bound of the mel of audio in [-1, 1], in this MelSpec's base.

        |X| is at most the sum of the window, which is win_length / 2, so the bound is the log of
        max_m sum_f F[m, f] * (win_length / 2) ** power. Speech stays well below it.
        """
        gain = self.filters().sum(dim=1).max().item()
        # The gain is 0 if every filter falls between two bins; then the floor is the bound.
        return self.log(max(gain * (self.win_length / 2) ** self.power, self.floor))

    def filters(self) -> Tensor:
        """The mel filters F, (n_mels, n_fft // 2 + 1), float32: triangles on the mel scale.

        The n_mels + 2 edges are equally spaced in mel from fmin to fmax. Filter m rises from edge m
        to edge m + 1 and falls to edge m + 2.
        """
        # In float64: torchaudio's float32 filters are off by 0.2 % at their feet, which shows in
        # bands next to much louder ones. librosa's are exact, but importing it takes seconds.
        mel_low, mel_high = _hz_to_mel(np.array([self.fmin, self.fmax]), self.mel_scale)
        edges = _mel_to_hz(np.linspace(mel_low, mel_high, self.n_mels + 2), self.mel_scale)
        bins = np.arange(self.n_fft // 2 + 1) * self.sample_rate / self.n_fft
        widths = np.diff(edges)[:, None]
        distances = bins - edges[:, None]  # (n_mels + 2, n_fft // 2 + 1)
        rising = distances[:-2] / widths[:-1]
        falling = -distances[2:] / widths[1:]
        filters = np.maximum(0.0, np.minimum(rising, falling))
        if self.mel_norm == "slaney":
            filters *= 2.0 / (edges[2:] - edges[:-2])[:, None]
        return torch.from_numpy(filters.astype(np.float32))


_LJSPEECH = MelSpec(
    sample_rate=22050, n_fft=1024, hop_length=256, win_length=1024, n_mels=80, fmin=0, fmax=8000
)
_CHANGES: dict[str, dict[str, Any]] = {
    "ljspeech": {},
    "speech-16k": {"sample_rate": 16000},
    "speech-24k": {"sample_rate": 24000, "n_mels": 100, "fmax": 12000.0},
    "speech-44k": {
        **{"sample_rate": 44100, "n_fft": 2048, "hop_length": 512, "win_length": 2048},
        **{"n_mels": 128, "fmax": 22050.0},
    },
    "tacotron2": {"center": True},
    "espnet": {"fmin": 80.0, "fmax": 7600.0, "log_base": "10", "floor": 1e-10, "center": True},
}

PRESETS: Mapping[str, MelSpec] = MappingProxyType(
    {name: dataclasses.replace(_LJSPEECH, **changes) for name, changes in _CHANGES.items()}
)
"""MelSpecs by name. "ljspeech" is the convention of HiFi-GAN, "speech-*" the same at other sample
rates. "tacotron2" (with WaveGlow and FastPitch) and "espnet" are those of text-to-speech toolkits.
"""
