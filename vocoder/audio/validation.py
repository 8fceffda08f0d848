"""Checks of mels and of the audio they give: can a mel have come from a `MelSpec`, is it too loud?

Normalised mels lie within the range of right ones, but are far too loud, which `Clamp` finds.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import lru_cache
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio.mel_spec import PRESETS, MelSpec

log = logging.getLogger(__name__)

Array = TypeVar("Array", Tensor, NDArray[Any])

# How far below the floor and above the mel of the loudest possible audio a mel may reach, in nats
# of magnitude: acoustic models undershoot.
MARGIN_BELOW, MARGIN_ABOVE = 1.5, 2.0
MIN_FRAMES = 20  # mels of fewer frames are too little evidence for a warning
# Distance of the 1 % and 99 % quantiles, in the mel's units, from which base 10 is suspected.
MIN_SPREAD = 3.5
# Share of clamped samples that is worth a warning; the mels of loud recordings have half of it.
WARN_FRACTION = 2e-3
# RMS by `frame_rms` that no frame of a recording has, and the share of such frames from which a
# mel is refused: square waves and clipped speech stay below 1.1, normalised mels have 0.6 to 1.
IMPOSSIBLE, ERROR_FRACTION = 1.15, 0.1
LOUD = 0.5  # RMS that speech with peaks at full scale reaches in one frame of thirty
LOUDEST = 100.0  # peak from which audio given in memory is refused: only whole numbers are so loud
MOST_CHANNELS = 64  # recordings no longer than this are taken for the channels of a longer one
MOST_TEMPERATURE = 1e6  # beyond, samples overflow
_SHORTEST = 0.01  # seconds of window; a shorter one can hold a single pulse of a voice
_FULL_SCALE = 1 - 2.0**-15  # in 16 bits: autoregressive models go no further
_LEAST_LOG = -36.0  # below any logarithm in use, above the quiet parts of any mel in decibels
_LN10 = math.log(10)


class MelError(ValueError):
    """A mel that cannot have come from the MelSpec it was checked against."""


def as_tensor(array: Tensor | NDArray[Any], name: str = "this") -> Tensor:
    """A tensor itself, or a copy of an array, of any strides and byte order; else ValueError."""
    if isinstance(array, Tensor):
        return array
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        raise ValueError(f"{name} must be a torch tensor or a numpy array, got {kind}.")
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is no number from 0 to `MOST_TEMPERATURE`."""
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not (number and 0 <= temperature <= MOST_TEMPERATURE):
        raise ValueError(
            f"temperature is {temperature!r}: it must be a number from 0 up, usually to 1"
        )


def check_layout(audio: Tensor) -> None:
    """Raise ValueError for audio that is not (samples,) or (batch, samples), float, not empty."""
    shape = tuple(audio.shape)
    if not audio.is_floating_point():
        raise ValueError(f"Audio must be floating point, got {audio.dtype}; divide int16 by 32768.")
    if audio.ndim not in (1, 2):
        raise ValueError(f"Audio must be (samples,) or (batch, samples), got shape {shape}.")
    if shape[-1] == 0:
        raise ValueError("The audio has no samples.")
    if audio.ndim == 2 and shape[1] <= MOST_CHANNELS and shape[1] < shape[0]:
        raise ValueError(
            f"Audio of shape {shape} would be a batch of {shape[0]} recordings of {shape[1]} "
            "samples each; if it is (samples, channels), as soundfile reads it, pass audio.mean(1)."
        )


def check_audio(audio: Tensor, most: float = math.inf) -> None:
    """`check_layout`, and raise ValueError for audio that is not finite or has a higher peak."""
    check_layout(audio)
    peak = max(map(abs, _extremes(audio.detach())))
    if not math.isfinite(peak):  # aminmax propagates NaN
        bad = audio.numel() - int(audio.isfinite().sum())
        raise ValueError(f"The audio holds NaN or infinite samples: {bad} of {audio.numel()}.")
    if peak > most:
        raise ValueError(f"The audio's peak is {peak:.4g}: divide int16 samples by 32768.")


def check_frames(samples: int, frames: int, mel_spec: MelSpec) -> None:
    """Raise MelError for a mel that has not as many frames as its audio needs."""
    expected = mel_spec.frames(samples)
    if frames != expected:
        raise MelError(
            f"{samples:,} samples have {expected:,} frames under this MelSpec, but the mel has "
            f"{frames:,}: cut or pad one of them to match."
        )


def pair(audio: Array, mel: Array, mel_spec: MelSpec) -> tuple[Tensor, Tensor]:
    """Audio and its mel as tensors on the device of the audio, checked as for `refine_audio`."""
    samples = as_tensor(audio, "audio")
    target = as_tensor(mel, "mel").to(samples.device)
    check_audio(samples)
    check_mel(target, mel_spec)
    if target.ndim != samples.ndim + 1 or target.shape[:-2] != samples.shape[:-1]:
        raise MelError(
            f"Audio of shape {tuple(samples.shape)} and a mel of shape {tuple(target.shape)} do "
            f"not belong together: give (samples,) and (n_mels, frames), or a batch of both."
        )
    check_frames(samples.shape[-1], target.shape[-1], mel_spec)
    return samples, target


def check_mel(mel: Tensor, mel_spec: MelSpec) -> None:
    """Check that a mel can have come from a MelSpec.

    A wrong shape or dtype, NaN, infinities, and values outside [log_floor - 1.5, log_ceiling + 2]
    are refused (margins in nats of magnitude: they double for power mels and shrink by ln 10 for
    base 10). The message guesses the convention and how to convert it.

    A base-10 mel lies inside the range of a natural-log MelSpec: it is refused if its lowest value
    is log10(floor) and occurs several times. What only looks like base 10 by its range, or like
    magnitudes for want of negative values, is let through with a warning.

    Args:
        mel: (n_mels, frames) or (batch, n_mels, frames), floating point, on any device.
        mel_spec: the MelSpec it should follow.

    Raises:
        MelError: the mel cannot have come from the MelSpec.

    Warns:
        UserWarning: the mel can have come from the MelSpec, but looks like another convention.
    """
    _check_shape(mel, mel_spec)
    values = mel.detach().float()
    least, most = _extremes(values)
    if not (math.isfinite(least) and math.isfinite(most)):  # aminmax propagates NaN
        bad = ~values.isfinite()
        *items, frame = bad.any(dim=-2).nonzero()[0].tolist()
        item = f" of item {items[0]}" if items else ""
        floor = bool((values.isneginf() == bad).all())
        hint = "; the logarithm of 0 is -inf, so clamp to the floor before it" if floor else ""
        raise MelError(
            f"The mel holds NaN or infinity in {int(bad.sum())} of {bad.numel()} values, the first "
            f"in frame {frame}{item}{hint}."
        )
    low, high = _limits(mel_spec)  # in the MelSpec's units
    base = "natural" if mel_spec.log_base == "e" else "base-10"
    range_ = (
        f"The mel's values run from {least:.4g} to {most:.4g}, where the MelSpec, {base} logarithm "
        f"of {_quantity(mel_spec)} with floor {mel_spec.floor:g},"
    )
    if least < low or most > high:
        advice = _advice(values, mel_spec)
        raise MelError(f"{range_} allows {low:.4g} to {high:.4g}: {advice}.")

    # Within the range, but like another convention; a constant, as silence, fits any.
    enough = values.shape[-1] >= MIN_FRAMES
    if least == most:
        return
    if enough and _looks_linear(values):
        warnings.warn(f"The mel has no value below 0: {_linear_advice(mel_spec)}.", stacklevel=2)
        return
    floor10 = math.log10(mel_spec.floor)
    if mel_spec.log_base == "10" or least < floor10 - 1e-3 or most > mel_spec.log_ceiling / _LN10:
        return
    advice = "it looks like a base-10 logarithm, so use mel * math.log(10)"
    if _rests_on(values, floor10):
        raise MelError(
            f"The mel's lowest value, {least:.4g}, is log10 of the floor {mel_spec.floor:g} where "
            f"the MelSpec has the natural logarithm, {mel_spec.log_floor:.4g}: {advice}."
        )
    # Between quantiles of 1 %, so that outliers do not count; torch.quantile sorts, which is slow.
    flat, odd = values.flatten(), values.numel() // 100
    spread = flat.kthvalue(flat.numel() - odd).values - flat.kthvalue(1 + odd).values
    if enough and spread > MIN_SPREAD:
        warnings.warn(f"{range_} may be right, but {advice} if it is one.", stacklevel=2)


def _check_shape(mel: Tensor, spec: MelSpec) -> None:
    if not isinstance(mel, Tensor) or not mel.is_floating_point():
        kind = mel.dtype if isinstance(mel, Tensor) else type(mel).__name__
        raise MelError(f"A mel must be a torch tensor of logarithms, floating point, got {kind}.")
    shape = tuple(mel.shape)
    if mel.ndim not in (2, 3) or 0 in shape:
        kinds = "(n_mels, frames) or (batch, n_mels, frames), not empty"
        raise MelError(f"A mel must be {kinds}, got shape {shape}.")
    bands, frames = shape[-2:]
    if bands == spec.n_mels:
        return
    if frames == spec.n_mels:
        raise MelError(
            f"The mel of shape {shape} is transposed, (frames, n_mels): the MelSpec wants "
            f"(n_mels, frames) with n_mels = {spec.n_mels}, so pass mel.swapaxes(-1, -2)."
        )
    presets = ", ".join(repr(name) for name, p in PRESETS.items() if p.n_mels == bands)
    owners = f" ({bands} is the number of {presets})" if presets else ""
    raise MelError(
        f"The mel of shape {shape} has {bands} bands{owners}, the MelSpec {spec.n_mels}: bands "
        "cannot be converted, so compute the mel again with this MelSpec."
    )


def _advice(values: Tensor, spec: MelSpec) -> str:
    """What values out of range look like, and the expression that converts them."""
    low, high = _limits(spec)
    least, most = _extremes(values)
    natural = spec.log_base == "e"
    if _looks_linear(values) and spec.log(most) <= high:
        return _linear_advice(spec)
    if least >= low and most <= high + spec.power * spec.log(32768):
        log2 = "math.log(2)" if natural else "math.log10(2)"
        return (
            "it looks like the mel of int16 samples, so divide the audio by 32768, or use "
            f"mel - {15 * spec.power:g} * {log2}"
        )
    if not natural and least >= low * _LN10 and most <= high * _LN10:
        return "it looks like a natural logarithm, so use mel / math.log(10)"
    if least < _LEAST_LOG or most > high:
        factor = 10 if spec.power == 2 or _rests_on(values, 10 * math.log10(spec.floor)) else 20
        scale = (_LN10 if natural else 1.0) / factor
        use = f"use mel / {factor}{' * math.log(10)' if natural else ''}"
        # Decibels relative to the peak have a peak of exactly 0, and may lie lower by any amount.
        if abs(most) < 1e-4 and least * scale >= low - spec.log_ceiling:
            return f"it looks like decibels relative to the peak: compute it with ref=1.0 and {use}"
        if most * scale <= high and least * scale >= low:
            return f"it looks like decibels, {factor} * log10 of {_quantity(spec)}, so {use}"
    elif least < low:
        other = "powers" if spec.power == 1 else "magnitudes"
        return (
            f"it looks like a logarithm with a lower floor, so use mel.clip({spec.log_floor:.6g}), "
            f"or compute it again with power={spec.power:g} if it was made of {other}"
        )
    return "compute it with LogMel(mel_spec), or model.mel(audio), from audio in [-1, 1]"


def _limits(spec: MelSpec) -> tuple[float, float]:
    neper = spec.power / spec.nats
    return spec.log_floor - MARGIN_BELOW * neper, spec.log_ceiling + MARGIN_ABOVE * neper


def _extremes(values: Tensor) -> tuple[float, float]:
    least, most = torch.aminmax(values)
    return least.item(), most.item()


def _looks_linear(values: Tensor) -> bool:
    """Magnitudes crowd near 0 below a few peaks; logarithms spread evenly."""
    least, most = _extremes(values)
    return least >= 0 and values.median().item() < 0.2 * most


def _rests_on(values: Tensor, floor: float) -> bool:
    """Whether the lowest value is this floor and occurs several times."""
    least = values.min()
    return abs(least.item() - floor) < 1e-3 and int((values == least).sum()) >= 3


def _quantity(spec: MelSpec) -> str:
    return "magnitudes" if spec.power == 1 else "powers"


def _linear_advice(spec: MelSpec) -> str:
    log = "log" if spec.log_base == "e" else "log10"
    return (
        f"it looks like {_quantity(spec)} without the logarithm, so use "
        f"{log}(mel.clip({spec.floor:g}))"
    )


def frame_rms(mel: Tensor, mel_spec: MelSpec) -> Tensor:
    r"""A lower estimate of the RMS of each frame (frames,), float64, from its log-mel alone.

    .. math:: \mathrm{RMS}^2 \approx \frac{2}{N \sum_n w_n^2} \sum_m b_m \bar{X}_m^2

    (Parseval) with N = n_fft, the window w, the mean magnitude X of band m and its width b, both in
    bins. Audio in [-1, 1] stays below 1.1.
    """
    sums, widths, scale = _bands(mel_spec)
    mean = (mel.detach().cpu().double() * mel_spec.nats).exp() / sums[:, None]
    power = mean.square() if mel_spec.power == 1 else mean
    return (scale * (power * widths[:, None]).sum(0)).sqrt()


@lru_cache(maxsize=8)
def _bands(spec: MelSpec) -> tuple[Tensor, Tensor, float]:
    filters = spec.filters().double().cpu()
    sums = filters.sum(1)
    sums[sums == 0] = math.inf  # filters between two bins measure nothing
    widths = sums / filters.amax(1).clamp(min=1e-30)
    widths[sums.isinf()] = 0
    window = torch.hann_window(spec.win_length, dtype=torch.float64, device="cpu")
    return sums, widths, 2 / (spec.n_fft * window.square().sum().item())


def limited(mel: Tensor, mel_spec: MelSpec) -> Tensor:
    """A mel (n_mels, frames) with frames below `LOUD`: what is louder is lowered in all bands."""
    excess = (frame_rms(mel, mel_spec) / (0.9 * LOUD)).clamp(min=1).log()
    units = excess * (mel_spec.power / mel_spec.nats)
    return (mel - units.to(mel)).clamp(min=mel_spec.log_floor)


class Clamp:
    """Clamps the audio of one item, or of one stream, and refuses mels that are far too loud."""

    def __init__(self, mel_spec: MelSpec, temperature: float) -> None:
        self.mel_spec, self.temperature = mel_spec, temperature
        self._samples = self._clamped = 0
        self._peak = 0.0
        self._frames = self._loud = self._impossible = 0

    def expect(self, mel: Tensor) -> None:
        """Raise MelError for a mel, or the next piece of it, louder than any audio in [-1, 1]."""
        least, most = torch.aminmax(mel)
        short = self.mel_spec.win_length < _SHORTEST * self.mel_spec.sample_rate
        if least == most or short:  # a constant fits any convention
            return
        rms = frame_rms(mel, self.mel_spec)
        self._frames += len(rms)
        self._loud += int((rms > LOUD).sum())
        self._impossible += int((rms > IMPOSSIBLE).sum())
        if self._frames >= MIN_FRAMES and self._impossible > ERROR_FRACTION * self._frames:
            raise MelError(
                f"The mel is too loud for audio in [-1, 1]: {self._impossible:,} of "
                f"{self._frames:,} frames would have an RMS above {IMPOSSIBLE}. "
                f"{_normalisation(mel.detach().float())}"
            )

    def __call__(self, audio: Tensor) -> Tensor:
        """Audio (samples,), of one item or the next piece of a stream, clamped to [-1, 1]."""
        if audio.numel():
            size = audio.abs()
            self._samples += len(audio)
            self._clamped += int((size >= _FULL_SCALE).sum())
            self._peak = max(self._peak, size.max().item())
        return audio.clamp(-1, 1)

    def finish(self) -> None:
        """Warn of what was cut, in the log where the mel is not at fault."""
        if not self._clamped:
            return
        count = f"{self._clamped:,} of {self._samples:,}"
        what = f"Clamped {count} samples to [-1, 1]; the peak was {self._peak:.3g}."
        if self._clamped < WARN_FRACTION * self._samples:
            log.info(what)
        elif self._loud > 0.02 * self._frames >= 0.02 * MIN_FRAMES:
            loud = "The mel is that of very loud audio: lower it, or check its MelSpec."
            warnings.warn(f"{what} {loud}", stacklevel=3)
        else:
            cause = "the temperature is high" if self.temperature > 1 else "the model is too loud"
            log.warning("%s The mel is not that loud: %s.", what, cause)


def _normalisation(mel: Tensor) -> str:
    """What a mel within the range looks like whose audio is far too loud."""
    least, most = _extremes(mel)
    mean, deviation = mel.mean().item(), mel.std().item()
    seen = f"Its values run from {least:.3g} to {most:.3g}, with mean {mean:.2g}"
    if least >= -0.01 and most <= 1 + 1e-3:
        guess, advice = "to [0, 1]", "mel * (high - low) + low"
    elif least < 0 and max(-least, most) <= 4 + 1e-3 and abs(least + most) < 1e-2:
        guess = f"to [{least:.2g}, {most:.2g}]"
        advice = f"(mel + {most:.2g}) / {2 * most:.2g} * (high - low) + low"
    elif abs(mean) < 2 and deviation < 2.5:
        guess = "to mean 0 and standard deviation 1"
        advice = "mel * std + mean (Matcha-TTS: mel * 2.1 - 5.5 on LJSpeech)"
    else:
        return f"{seen}: it is of audio beyond [-1, 1], or of another level: lower it."
    return (
        f"{seen}: it looks normalised {guess}, so undo the normalisation of your acoustic model "
        f"with the statistics that it was trained with, such as {advice}."
    )
