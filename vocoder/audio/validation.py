"""Checks whether a mel can have come from a `MelSpec`, and how to convert one that cannot.

Feeding a vocoder the mel of another convention is the most common mistake with vocoders, and a
silent one: the audio is just bad. A mel that cannot come from the MelSpec is refused, with a guess
at its convention; one that could, but looks like another, is let through with a warning.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from vocoder.audio.mel_spec import PRESETS, MelSpec

#: How far below the floor a mel may reach, in nats of magnitude: acoustic models undershoot.
MARGIN_BELOW = 1.5

#: How far above the mel of the loudest possible audio a mel may reach, in nats of magnitude.
MARGIN_ABOVE = 2.0

#: Mels of fewer frames are too little evidence for a warning.
MIN_FRAMES = 20

#: Distance of the 1 % and 99 % quantiles, in the mel's units, from which base 10 is suspected.
MIN_SPREAD = 3.5

# Below any logarithm in use (the natural one of 1e-15 is -34.5), above the quiet parts of any mel
# in decibels.
_LEAST_LOG = -36.0

_LN10 = math.log(10)


class MelError(ValueError):
    """A mel that cannot have come from the MelSpec it was checked against."""


def check_mel(mel: Tensor, mel_spec: MelSpec) -> None:
    """Check that a mel can have come from a MelSpec.

    A wrong shape or dtype, NaN, infinities, and values outside
    [log_floor - MARGIN_BELOW, log_ceiling + MARGIN_ABOVE] are refused (margins in nats of
    magnitude: they double for power mels and shrink by ln 10 for base 10). The message guesses the
    convention from the values (decibels, another base, linear, audio not scaled to [-1, 1]) and
    gives the expression that converts it.

    A base-10 mel lies inside the range of a natural-log MelSpec. It is refused if its lowest value
    is log10(floor) and occurs several times; if only its range suggests base 10, it is let through
    with a warning. So are mels without negative values, which look like magnitudes without a
    logarithm.

    Args:
        mel: (n_mels, frames) or (batch, n_mels, frames), floating point, on any device.
        mel_spec: the MelSpec it should follow.

    Raises:
        MelError: the mel cannot have come from the MelSpec; one sentence says why and how to
            convert it.

    Warns:
        UserWarning: the mel can have come from the MelSpec, but looks like another convention.
    """
    _check_layout(mel, mel_spec)
    values = mel.detach().float()
    _check_finite(values)
    _check_range(values, mel_spec)
    _check_lookalikes(values, mel_spec)


def _check_layout(mel: Tensor, spec: MelSpec) -> None:
    if not isinstance(mel, Tensor):
        raise MelError(f"A mel must be a torch tensor, got {type(mel).__name__}.")
    if not mel.is_floating_point():
        kind = "complex (a Fourier transform?)" if mel.is_complex() else str(mel.dtype)
        raise MelError(f"A mel must be floating point, since it holds logarithms, but is {kind}.")
    shape = tuple(mel.shape)
    if mel.ndim not in (2, 3):
        raise MelError(
            f"A mel must be (n_mels, frames) or (batch, n_mels, frames), got {mel.ndim} "
            f"{'dimension' if mel.ndim == 1 else 'dimensions'}: shape {shape}."
        )
    bands, frames = shape[-2:]
    if bands != spec.n_mels:
        if frames == spec.n_mels:
            raise MelError(
                f"The mel of shape {shape} is transposed, (frames, n_mels): the MelSpec wants "
                f"(n_mels, frames) with n_mels = {spec.n_mels}, so pass mel.swapaxes(-1, -2)."
            )
        presets = ", ".join(repr(name) for name, p in PRESETS.items() if p.n_mels == bands)
        owners = f" ({bands} is the number of {presets})" if presets else ""
        raise MelError(
            f"The mel of shape {shape} has {bands} bands{owners}, the MelSpec {spec.n_mels}: bands "
            f"cannot be converted, so compute the mel again with this MelSpec."
        )
    if 0 in shape:
        raise MelError(f"The mel of shape {shape} has no {'items' if shape[0] == 0 else 'frames'}.")


def _check_finite(values: Tensor) -> None:
    if all(map(math.isfinite, _extremes(values))):  # aminmax propagates NaN
        return
    finite = values.isfinite()
    first = (~finite).any(dim=-2).nonzero()[0].tolist()  # [frame] or [item, frame]
    where = f"frame {first[-1]}" + (f" of item {first[0]}" if len(first) == 2 else "")
    negative_infinity = int(values.isneginf().sum())
    bad = int((~finite).sum())
    hint = (
        "; the logarithm of 0 is -inf, so clamp to the floor before it"
        if negative_infinity == bad
        else ""
    )
    raise MelError(
        f"The mel holds {bad} NaN or infinite {'value' if bad == 1 else 'values'}, "
        f"the first in {where}{hint}."
    )


def _check_range(values: Tensor, spec: MelSpec) -> None:
    low, high = _limits(spec)
    least, most = _extremes(values)
    if least < low or most > high:
        raise MelError(
            f"The mel's values run from {least:.4g} to {most:.4g}, where the MelSpec, "
            f"{_scale(spec)}, allows {low:.4g} to {high:.4g}: {_advice(values, spec)}."
        )


def _advice(values: Tensor, spec: MelSpec) -> str:
    """What values out of range look like, and the expression that converts them."""
    low, high = _limits(spec)
    least, most = _extremes(values)

    if _looks_linear(values) and spec.log(most) <= high:
        return _linear_advice(spec)

    if least >= low and most <= high + spec.power * spec.log(32768):
        log2 = "math.log(2)" if spec.log_base == "e" else "math.log10(2)"
        return (
            "it looks like the mel of int16 samples, so divide the audio by 32768, or use "
            f"mel - {15 * spec.power:g} * {log2}"
        )

    if spec.log_base == "10" and least >= low * _LN10 and most <= high * _LN10:
        return "it looks like a natural logarithm, so use mel / math.log(10)"

    if least < _LEAST_LOG or most > high:
        factor = 10 if spec.power == 2 or _rests_on(values, 10 * math.log10(spec.floor)) else 20
        scale = (_LN10 if spec.log_base == "e" else 1.0) / factor
        # Decibels relative to the peak have a peak of exactly 0, and may lie lower by any amount.
        relative = abs(most) < 1e-4
        if least * scale >= (low - spec.log_ceiling if relative else low) and most * scale <= high:
            where = "relative to the peak" if relative else f"{factor} * log10 of {_quantity(spec)}"
            reference = "compute it with ref=1.0 and " if relative else ""
            base = " * math.log(10)" if spec.log_base == "e" else ""
            return f"it looks like decibels, {where}, so {reference}use mel / {factor}{base}"
    elif least < low:
        other = "powers" if spec.power == 1 else "magnitudes"
        return (
            f"it looks like a logarithm with a lower floor, so use mel.clip({spec.log_floor:.6g}), "
            f"or compute it again with power={spec.power:g} if it was made of {other}"
        )
    return "compute it with LogMel(mel_spec), or model.mel(audio), from audio in [-1, 1]"


def normalisation(mel: Tensor, spec: MelSpec) -> str:
    """What a mel within the range looks like whose audio is far too loud, in a sentence or two."""
    values = mel.detach().float()
    least, most = _extremes(values)
    mean, deviation = values.mean().item(), values.std().item()
    undo = (
        "undo the normalisation of your acoustic model with the statistics that it was trained with"
    )
    seen = f"Its values run from {least:.3g} to {most:.3g}, with mean {mean:.2g}"
    if least >= -0.01 and most <= 1 + 1e-3:
        guess, advice = "it looks normalised to [0, 1]", "such as mel * (high - low) + low"
    elif least >= -1 - 1e-3 and most <= 1 + 1e-3:
        guess, advice = (
            "it looks normalised to [-1, 1]",
            "such as (mel + 1) / 2 * (high - low) + low",
        )
    elif least < 0 and max(-least, most) <= 4 + 1e-3 and abs(least + most) < 1e-2:
        guess = f"it looks normalised to [{least:.2g}, {most:.2g}]"
        advice = f"such as (mel + {most:.2g}) / {2 * most:.2g} * (high - low) + low"
    elif abs(mean) < 2 and deviation < 2.5:
        guess = "it looks normalised to mean 0 and standard deviation 1"
        advice = "such as mel * std + mean (Matcha-TTS: mel * 2.1 - 5.5 on LJSpeech)"
    else:
        louder = "" if spec.log_base == "e" else " / math.log(10)"
        return (
            f"{seen}: it is of audio beyond [-1, 1], or of another level. Compute it from audio in "
            f"[-1, 1], or lower it, as mel - math.log(4){louder} does by 12 dB."
        )
    return f"{seen}: {guess}, so {undo}, {advice}."


def _check_lookalikes(values: Tensor, spec: MelSpec) -> None:
    """Refuse, or warn about, mels within the range that look like another convention."""
    least, most = _extremes(values)
    if least == most:  # silence or another constant fits any convention
        return
    enough = values.shape[-1] >= MIN_FRAMES
    if enough and _looks_linear(values):
        _warn(f"The mel has no value below 0: {_linear_advice(spec)}.")
        return

    floor10 = math.log10(spec.floor)
    if spec.log_base == "10" or least < floor10 - 1e-3 or most > spec.log_ceiling / _LN10:
        return
    advice = "it looks like a base-10 logarithm, so use mel * math.log(10)"
    if _rests_on(values, floor10):
        raise MelError(
            f"The mel's lowest value, {least:.4g}, is log10 of the floor {spec.floor:g} where the "
            f"MelSpec has the natural logarithm, {spec.log_floor:.4g}: {advice}."
        )
    if enough and _spread(values) > MIN_SPREAD:
        _warn(
            f"The mel's values run from {least:.4g} to {most:.4g}, which the MelSpec, "
            f"{_scale(spec)}, allows, but {advice} if it is one."
        )


def _limits(spec: MelSpec) -> tuple[float, float]:
    """Lowest and highest value let through, in the MelSpec's units."""
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


def _spread(values: Tensor) -> float:
    """Distance between the 1 % and the 99 % quantile, so that a few outliers do not count."""
    flat = values.flatten()
    odd = flat.numel() // 100
    # torch.quantile sorts, which takes a twentieth of the time that synthesis does.
    low, high = flat.kthvalue(1 + odd).values, flat.kthvalue(flat.numel() - odd).values
    return float(high - low)


def _quantity(spec: MelSpec) -> str:
    return "magnitudes" if spec.power == 1 else "powers"


def _scale(spec: MelSpec) -> str:
    base = "natural logarithm" if spec.log_base == "e" else "base-10 logarithm"
    return f"{base} of {_quantity(spec)} with floor {spec.floor:g}"


def _linear_advice(spec: MelSpec) -> str:
    log = "log" if spec.log_base == "e" else "log10"
    return (
        f"it looks like {_quantity(spec)} without the logarithm, so use "
        f"{log}(mel.clip({spec.floor:g}))"
    )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
