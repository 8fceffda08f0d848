"""Linear prediction read off the mel: the spectral envelope as a filter on past samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vocoder.audio import MelSpec
from vocoder.audio.log_mel import ExactBuffers
from vocoder.audio.pcm import FULL_SCALE

_LAG_WINDOW_HZ = 40.0
_WHITE_NOISE = 1e-4  # of the power: -40 dB


class MelLinearPrediction(ExactBuffers):
    r"""The linear prediction of each sample from those before it, frame by frame, from a log-mel.

    .. math:: \hat x_t = \sum_{k=1}^{K} a_k x_{t-k}, \qquad
        a = \arg\min_a \mathbb E (x_t - \hat x_t)^2 = R^{-1} r, \qquad
        g^2 = r_0 - \sum_k a_k r_k, \quad R_{ij} = r_{|i-j|}

    The autocorrelation r is the inverse Fourier transform of the power spectrum that the mel shows,
    interpolated linearly between the centres of the bands, with a Gaussian lag window of 40 Hz,
    a floor of white noise 40 dB below the signal, and one quantisation step of 16 bits. Hence
    1 / A(z) is stable, and g greater than 0. The Levinson-Durbin recursion solves for a.

    Computed in float64 whatever the autocast; the results have the type of the mel.

    Papers: Linear prediction of speech (Atal and Hanauer, 1971); from mel bands, LPCNet (Valin and
    Skoglund, 2019).

    Args:
        mel_spec: the convention of the mel.
        order: K, 1 or more and less than n_fft / 2.

    Raises:
        ValueError: the order is out of range.
    """

    spectrum: Tensor  # (n_fft // 2 + 1, n_mels)
    window: Tensor  # (order + 1,)

    def __init__(self, mel_spec: MelSpec, order: int) -> None:
        super().__init__()
        if not 1 <= order < mel_spec.n_fft // 2:
            raise ValueError(
                f"the order of linear prediction is {order}: it must be from 1 to "
                f"{mel_spec.n_fft // 2 - 1}, less than half of n_fft"
            )
        self.mel_spec = mel_spec
        self.order = order
        filters = mel_spec.filters().double()
        area = filters.sum(dim=1)
        used = area > 0  # a filter narrower than a bin may hold none
        # Every bin between the centres of two bands belongs to both in part; beyond the first and
        # last centre it has the level of that band.
        bins = torch.arange(filters.shape[1], dtype=torch.float64)
        centres = (filters @ bins)[used] / area[used]
        right = torch.searchsorted(centres, bins).clamp(1, len(centres) - 1)
        a, b = centres[right - 1], centres[right]
        share = ((bins - a) / (b - a).clamp_min(1e-9)).clamp(0, 1)  # bands may share a centre
        spectrum = filters.new_zeros(len(bins), mel_spec.n_mels)
        for neighbour, weight in ((right - 1, 1 - share), (right, share)):
            band = used.nonzero()[neighbour, 0]
            spectrum[torch.arange(len(bins)), band] += weight / area[band]
        lags = torch.arange(order + 1, dtype=torch.float64)
        window = torch.exp(-0.5 * (2 * math.pi * _LAG_WINDOW_HZ * lags / mel_spec.sample_rate) ** 2)
        window[0] += _WHITE_NOISE
        # As a Hann window scales white noise.
        window /= torch.hann_window(mel_spec.win_length, dtype=torch.float64).square().sum()
        self.register_buffer("spectrum", spectrum, persistent=False)
        self.register_buffer("window", window, persistent=False)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a mel (batch, n_mels, frames): a, the RMS of the residual g, and that of the audio.

        Returns:
            (batch, order, frames), and (batch, frames) twice.
        """
        with torch.autocast(mel.device.type, enabled=False):
            bands = (mel.double() * self.mel_spec.nats).exp()
            power = torch.matmul(self.spectrum, bands) ** (2 / self.mel_spec.power)
            r = torch.fft.irfft(power, n=self.mel_spec.n_fft, dim=1)[:, : self.order + 1]
            r = r * self.window.unsqueeze(1)
            r[:, 0] += FULL_SCALE**-2
            coefficients, error = levinson(r)
            return coefficients.to(mel), error.sqrt().to(mel), r[:, 0].sqrt().to(mel)


def levinson(r: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (batch, K, frames) and error (batch, frames) of the best linear prediction.

    The Levinson-Durbin recursion.

    Args:
        r: autocorrelation at lags 0 to K, (batch, K + 1, frames), positive definite.
    """
    error = r[:, 0]
    a = r[:, :0]
    for k in range(1, r.shape[1]):
        reflection = (r[:, k] - (a * r[:, 1:k].flip(1)).sum(dim=1)) / error
        own = reflection.unsqueeze(1)
        a = torch.cat([a - own * a.flip(1), own], dim=1)
        error = error * (1 - reflection.square())
    return a, error
