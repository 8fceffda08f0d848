"""Mels of other conventions into those of a `MelSpec`: logarithm, floor and normalisation.

Bands, sample rate and hop decide what was summed: a mel that differs there must be computed again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import Array, MelError, as_tensor, check_mel

Statistic = float | npt.NDArray[Any] | Tensor

_CONVERTED = {"log_base", "floor", "center"}


def convert_mel(
    mel: Array,
    source: MelSpec | str,
    target: MelSpec | str,
    *,
    mean: Statistic = 0.0,
    std: Statistic = 1.0,
) -> Array:
    r"""A mel of one convention in another that sums the same bands.

    .. math:: M'[m, k] = \max\Bigl(\frac{\ln b}{\ln b'} (\sigma_m M[m, k] + \mu_m),\;
        \log_{b'} \epsilon'\Bigr)

    with b and b' the bases of source and target, :math:`\epsilon'` the floor of the target, and
    :math:`\mu, \sigma` the statistics by which an acoustic model normalised its mels.

    If the frames of one are centred (`MelSpec.center`) and those of the other are not, the values
    stay and the audio moves by half a hop: audio from a centred mel is that much late in a model
    whose frames are not, so ``audio[..., hop_length // 2:]`` is in step with the source.

    Args:
        mel: (n_mels, frames) or (batch, n_mels, frames), floating point; a torch tensor or a numpy
            array. It is not changed.
        source: the MelSpec that `std * mel + mean` follows, or the name of a preset.
        target: the MelSpec to convert to, such as `model.mel_spec`, or the name of a preset.
        mean, std: of the source's normalisation, in its logarithm: a number, or one for each band,
            (n_mels,).

    Returns:
        The mel of the target, of the shape and kind of ``mel``, float32.

    Raises:
        MelError: source and target differ in what cannot be converted (sample rate, hop, window,
            bands, power), the source has the higher floor, or the mel cannot come from the source.
        ValueError: there is no such preset; mean or std have another shape or are not finite, or
            std is not greater than 0.

    Warns:
        UserWarning: the mel looks like another convention (`check_mel`).
    """
    origin, goal = _spec(source), _spec(target)
    _check_convertible(origin, goal, source if isinstance(source, str) else "the source")
    values = as_tensor(mel, "A mel")
    if values.is_floating_point() and values.ndim >= 2 and values.shape[-2] == origin.n_mels:
        scale = _statistic("std", std, origin, values)
        if not bool((scale > 0).all()):
            raise ValueError("std must be greater than 0 in every band.")
        values = values.float() * scale + _statistic("mean", mean, origin, values)
    check_mel(values, origin)
    converted = (values.float() * (origin.nats / goal.nats)).clamp(min=goal.log_floor)
    return converted if isinstance(mel, Tensor) else converted.detach().numpy()


def mel_from_linear(
    spectrogram: Array, target: MelSpec | str, *, power: float = 1.0, epsilon: float = 0.0
) -> Array:
    r"""The log-mel of a linear spectrogram, as VITS and Tacotron have them.

    .. math:: M[m, k] = \log_b \max\Bigl(\sum_f F[m, f]\, |X[f, k]|^p,\; \epsilon_M\Bigr), \qquad
        |X| = \bigl(\max(S^{2/q} - \epsilon, 0)\bigr)^{1/2}

    with S the spectrogram, q its ``power``, and the other symbols of `MelSpec`, whose floor is
    :math:`\epsilon_M`. The spectrogram must have the sample rate, n_fft, hop and Hann window of the
    target: only its number of bins can be checked. `convert_mel` says what centred frames do.

    Args:
        spectrogram: S, (n_fft // 2 + 1, frames) or (batch, n_fft // 2 + 1, frames), floating point,
            0 or more, without a logarithm; of audio in [-1, 1]. It is not changed.
        target: the MelSpec to convert to, or the name of a preset.
        power: 1.0 if S holds magnitudes, 2.0 for powers.
        epsilon: what the source adds to the power before the square root: 1e-6 in VITS and Piper.

    Returns:
        (n_mels, frames) or (batch, n_mels, frames), float32, of the kind of ``spectrogram``.

    Raises:
        MelError: the spectrogram has another shape, values below 0, or values that audio in
            [-1, 1] cannot have.
        ValueError: there is no such preset, power is neither 1 nor 2, or epsilon is negative or
            not finite.
    """
    goal = _spec(target)
    if power not in (1.0, 2.0):
        raise ValueError(f"power must be 1 for magnitudes or 2 for powers, got {power!r}.")
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be 0 or more, got {epsilon!r}.")
    values = as_tensor(spectrogram, "A spectrogram")
    bins = goal.n_fft // 2 + 1
    if not values.is_floating_point() or values.ndim not in (2, 3) or values.shape[-2] != bins:
        raise MelError(
            f"A linear spectrogram must be ({bins}, frames) or (batch, {bins}, frames), floating "
            f"point, got {values.dtype} of shape {tuple(values.shape)}: n_fft is {goal.n_fft}."
        )
    if bool((values < 0).any()):
        raise MelError("The spectrogram has values below 0, so it holds logarithms: undo them.")
    # In float64, as LogMel: epsilon leaves few digits of quiet bins in float32.
    squares = values.double() if power == 2 else values.double().square()
    squares = (squares - epsilon).clamp(min=0)
    summed = goal.filters().to(values.device).double() @ squares.pow(goal.power / 2)
    mel = (summed.clamp(min=goal.floor).log() / goal.nats).float()
    check_mel(mel, goal)
    return mel if isinstance(spectrogram, Tensor) else mel.detach().numpy()


def _spec(mel_spec: MelSpec | str) -> MelSpec:
    return MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec


def _check_convertible(source: MelSpec, target: MelSpec, name: str) -> None:
    goal = target.to_dict()
    differences = [
        f"{field} is {value} there and {goal[field]} here"
        for field, value in source.to_dict().items()
        if field not in _CONVERTED and value != goal[field]
    ]
    if source.floor > target.floor * (1 + 1e-6):
        differences.append(
            f"what lies below its floor, {source.floor:g}, is lost, and the floor here is "
            f"{target.floor:g}"
        )
    if differences:
        raise MelError(
            f"A mel of {name} cannot be converted exactly: {', '.join(differences)}; compute the "
            "mel from audio with model.mel, or train a vocoder with the mel_spec of the source."
        )


def _statistic(name: str, value: Statistic, spec: MelSpec, mel: Tensor) -> Tensor:
    statistic = torch.as_tensor(value, dtype=torch.float32, device=mel.device)
    shape = tuple(statistic.shape)
    if shape not in ((), (spec.n_mels,)):
        raise ValueError(f"{name} must be one number or {spec.n_mels}, got shape {shape}.")
    if not bool(statistic.isfinite().all()):
        raise ValueError(f"{name} must be finite.")
    return statistic if statistic.ndim == 0 else statistic[:, None]
