"""The scale of frequency bands, read off the mel: whitens speech before any training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vocoder.audio.mel_spec import MelSpec


class BandScale(nn.Module):
    r"""Minus the log standard deviation of each MDCT band, read off the mel.

    .. math:: s(m) = -(A m + a) - g(m)

    A interpolates the log-mel linearly in frequency at the band centres, and a removes the gains
    of window and mel filters, so that Gaussian noise of standard deviation sigma gives
    :math:`s \approx -\log\sigma` before any training; both are then learnt. g is a small
    convolutional network that starts at zero.

    Shapes: mel (batch, n_mels or more, frames) to (batch, bands, frames); channels after the mel's
    are not used.

    Args:
        mel_spec: the convention of the mel.
        bands: number of MDCT bands.
        channels, kernel_size: width and taps of g.
    """

    def __init__(self, mel_spec: MelSpec, bands: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(mel_spec.n_mels, bands, 1)
        self.network = nn.Sequential(
            nn.Conv1d(mel_spec.n_mels, channels, kernel_size, padding=kernel_size // 2),
            nn.GELU(),
            nn.Conv1d(channels, bands, 1),
        )
        self.reach = kernel_size // 2
        """Frames before and after a frame on which its scale depends."""
        weight, bias = _band_interpolation(mel_spec, bands)
        with torch.no_grad():
            self.linear.weight.copy_(-weight.unsqueeze(-1))
            assert self.linear.bias is not None
            self.linear.bias.copy_(-bias)
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def forward(self, mel: Tensor) -> Tensor:
        mel = mel[:, : self.linear.in_channels]
        result: Tensor = self.linear(mel) - self.network(mel)
        return result


def _band_interpolation(mel_spec: MelSpec, bands: int) -> tuple[Tensor, Tensor]:
    """(bands, n_mels) and (bands,): log standard deviation of a band from the log-mel."""
    filters = mel_spec.filters().double()  # (n_mels, bins)
    bins = torch.linspace(0, mel_spec.sample_rate / 2, filters.shape[1], dtype=torch.float64)
    area = filters.sum(dim=1).clamp_min(1e-12)
    mel_centres = (filters @ bins) / area
    centres = (torch.arange(bands, dtype=torch.float64) + 0.5) * mel_spec.sample_rate / 2 / bands
    right = torch.searchsorted(mel_centres, centres).clamp(1, mel_spec.n_mels - 1)
    left = right - 1
    fraction = (centres - mel_centres[left]) / (mel_centres[right] - mel_centres[left])
    # Bands outside the mel's range take the value of its nearest filter.
    fraction = fraction.clamp(0, 1)
    rows = torch.arange(bands)
    weight = torch.zeros(bands, mel_spec.n_mels, dtype=torch.float64)
    weight[rows, left] += 1 - fraction
    weight[rows, right] += fraction
    # For white noise of unit variance |X| is Rayleigh with E|X| = sqrt(pi/4 sum w^2), and
    # E|X|^2 = sum w^2; a periodic Hann window has sum w^2 = 3/8 of its length.
    energy = 3 / 8 * mel_spec.win_length
    gain = math.pi / 4 * energy if mel_spec.power == 1 else energy
    log_gain = area.log() + mel_spec.power / 2 * math.log(gain)
    weight_nats = weight * mel_spec.nats / mel_spec.power
    bias = -(weight @ log_gain) / mel_spec.power
    dtype = torch.get_default_dtype()
    return weight_nats.to(dtype), bias.to(dtype)
