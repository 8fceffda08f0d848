"""Mels of other conventions into those of a `MelSpec`: logarithm, floor and normalisation."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import Array, MelError, as_tensor, check_mel

Statistic = float | npt.NDArray[Any] | Tensor


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
    origin, goal = (MelSpec.preset(s) if isinstance(s, str) else s for s in (source, target))
    fields = zip(origin.to_dict().items(), goal.to_dict().values(), strict=True)
    differences = [
        f"{name} is {there} there and {here} here"
        for (name, there), here in fields
        if name not in ("log_base", "floor", "center") and there != here
    ]
    if origin.floor > goal.floor * (1 + 1e-6):
        lost = f"what lies below its floor, {origin.floor:g}, is lost"
        differences.append(f"{lost}, and the floor here is {goal.floor:g}")
    if differences:
        raise MelError(
            f"A mel of {source if isinstance(source, str) else 'the source'} cannot be converted "
            f"exactly: {', '.join(differences)}; compute the mel from audio with model.mel, or "
            "train a vocoder with the mel_spec of the source."
        )
    values = as_tensor(mel, "A mel")
    if values.is_floating_point() and values.ndim >= 2 and values.shape[-2] == origin.n_mels:
        scale = _statistic("std", std, origin, values)
        if not bool((scale > 0).all()):
            raise ValueError("std must be greater than 0 in every band.")
        values = values.float() * scale + _statistic("mean", mean, origin, values)
    check_mel(values, origin)
    converted = (values.float() * (origin.nats / goal.nats)).clamp(min=goal.log_floor)
    return converted if isinstance(mel, Tensor) else converted.detach().numpy()


def _statistic(name: str, value: Statistic, spec: MelSpec, mel: Tensor) -> Tensor:
    statistic = torch.as_tensor(value, dtype=torch.float32, device=mel.device)
    shape = tuple(statistic.shape)
    if shape not in ((), (spec.n_mels,)):
        raise ValueError(f"{name} must be one number or {spec.n_mels}, got shape {shape}.")
    if not bool(statistic.isfinite().all()):
        raise ValueError(f"{name} must be finite.")
    return statistic if statistic.ndim == 0 else statistic[:, None]
