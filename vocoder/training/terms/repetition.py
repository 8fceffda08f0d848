"""Penalty on phases that repeat from frame to frame, heard as tones."""

from __future__ import annotations

import torch
from torch import Tensor

from vocoder.training.step import Step

from .base import Term, in_float32


class Repetition(Term):
    r"""Phase repetition of the step's sample: :math:`R(\hat x)` over a period of two mel frames.

    See `phase_repetition`. Losses on magnitudes alone let a flow give neighbouring frames the same
    phases, heard as tones at multiples of the frame rate.

    Args:
        weight, start: see `Term`. It is easier to stop repeating than to become intelligible
            without repeating, so start late: at half of the budget.
    """

    name = "repetition"

    def forward(self, step: Step) -> Tensor:
        sample = step.sample
        with in_float32(sample.audio):
            return phase_repetition(sample.audio, 2 * step.model.mel_spec.hop_length)


def phase_repetition(audio: Tensor, period: int) -> Tensor:
    r"""How far phases repeat from period to period: tones at multiples of its frequency.

    .. math:: R = \frac{1}{2L} \sum_{l=1}^{L} \operatorname{mean}_b
        \bigl| \operatorname{mean}_{f \in b} A_l(f) \bigr|
        + \operatorname{mean}_f \bigl| A_l(f) \bigr|^2, \qquad
        A_l(f) = \frac{\sum_t C(t + l, f) \, \overline{C(t, f)}}
        {\sum_t |C(t + l, f)| \, |C(t, f)|}, \qquad C = S / \sqrt{|S|}

    S is the STFT with hop and Hann window of one period, sums over t include the batch, b are eight
    bands, and L is 16, or half of the periods if that is less. A is the mean phase advance: R is 1
    where all phases return, and near 0 where phases are random or follow a pitch unrelated to the
    period, as in speech.

    The first term is the autocorrelation of whitened bands (GCC-PHAT: Knapp and Carter, 1976) at l
    periods. Not squared, because slight repetition is already audible: noise of which a seventh of
    the power repeats has lines 4 dB out (`tone_excess_db`). The second term detects repetition with
    a shift.

    Weaker penalties are gamed. If only the phases themselves must differ, flows repeat one sound
    for a while and then another; if all moments count alike, loud ones repeat and quiet ones make
    up for it; if only the next periods are compared, the sound returns after more of them.

    Args:
        audio: (batch, samples), in [-1, 1]; at least one period.
        period: in samples; that of the repetition, or a multiple of it.

    Returns:
        A scalar in [0, 1], without unit.
    """
    window = torch.hann_window(period, device=audio.device, dtype=audio.dtype)
    stft = torch.stft(audio, period, period, period, window, return_complex=True)
    # Magnitudes count as at least 1e-4, so that silence has no phase.
    root = stft.abs().clamp_min(1e-4).sqrt()
    compressed = stft / root
    lags = range(1, min(16, stft.shape[-1] // 2) + 1)
    total = audio.new_zeros(())
    for lag in lags:
        product = (compressed[..., lag:] * compressed[..., :-lag].conj()).sum(dim=(0, 2))
        advance = product / (root[..., lag:] * root[..., :-lag]).sum(dim=(0, 2))
        for band in advance.chunk(8):
            # The gradient of the modulus is NaN at exactly 0, as in silence.
            total = total + (band.mean() + 1e-12).abs() / 8
        total = total + (advance.real.square() + advance.imag.square()).mean()
    return total / (2 * len(lags))
