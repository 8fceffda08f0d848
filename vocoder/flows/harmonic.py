"""A base density with a harmonic part: noise where sound is noise, a tone where it is voiced."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .bijection import Bijection, promote


class HarmonicBase(Bijection):
    r"""Takes a known harmonic part out of whitened frequency bands; with noise, puts it back.

    .. math::
        w = \frac{u - h E}{\sqrt{1 - h^2}}, \qquad
        u = h E + \sqrt{1 - h^2}\, w, \qquad
        \log|\det| = -\tfrac12 \sum \log(1 - h^2)

    u (batch, bands, frames) are whitened bands of unit variance, E the same transform of a
    harmonic source of unit power (`vocoder.audio.source`, then `Mdct`), and h the share of the
    harmonic part, which keeps the variance of u at one if w is standard normal. E is a function of
    the condition and a random phase, so the density of u given the condition and the phase stays
    exact. Temperature scales w alone: the tone keeps its level.

    .. math:: h = 0.99\, v\, \sigma(b + g(c))

    with v the voicing, from 0 to 1: unvoiced frames have h = 0 exactly, and there u = w. The bias b
    starts at a share of 0.95 below 4 kHz that falls to 0.1 above it; g is a small convolutional
    network that starts at zero.

    The condition (batch, n_condition + 1 + bands, frames) holds, in this order, what g sees (the
    mel), v, and E: see `join`. In a `Chain`, whose pieces all get the same condition, wrap the
    others to pass on the first channels alone.

    Args:
        bands: number of frequency bands.
        n_condition: channels that g sees.
        sample_rate: of the audio, in Hz, for the start of b.
        channels, kernel_size: width and taps of g; odd.
    """

    def __init__(
        self,
        bands: int,
        n_condition: int,
        sample_rate: int,
        channels: int = 64,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: it must be odd")
        self.bands = bands
        self.n_condition = n_condition
        centres = (torch.arange(bands, dtype=torch.float64) + 0.5) * sample_rate / 2 / bands
        share = _LOW_SHARE - (_LOW_SHARE - _HIGH_SHARE) * torch.sigmoid(
            (centres - _EDGE_HZ) / _WIDTH_HZ
        )
        start = torch.logit(share / _LARGEST).to(torch.get_default_dtype())
        self.bias = nn.Parameter(start.unsqueeze(1))  # (bands, 1)
        self.network = nn.Sequential(
            nn.Conv1d(n_condition, channels, kernel_size, padding=kernel_size // 2),
            nn.GELU(),
            nn.Conv1d(channels, bands, 1),
        )
        self.reach = kernel_size // 2
        """Frames before and after a frame on which its share depends."""
        with torch.no_grad():
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def join(self, condition: Tensor, voicing: Tensor, harmonic: Tensor) -> Tensor:
        """The condition of this piece.

        Args:
            condition: (batch, n_condition, frames).
            voicing: v, (batch, frames), 0 to 1.
            harmonic: E, (batch, bands, frames).
        """
        return torch.cat([condition, voicing.unsqueeze(1), harmonic], dim=1)

    def share(self, condition: Tensor) -> Tensor:
        """h, (batch, bands, frames), of a condition as `join` makes it."""
        seen, voicing = condition[:, : self.n_condition], condition[:, self.n_condition]
        return _LARGEST * voicing.unsqueeze(1) * torch.sigmoid(self.bias + self.network(seen))

    def _parts(self, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """h E and log(1 - h^2) / 2, in at least float32."""
        channels = self.n_condition + 1 + self.bands
        if condition is None or condition.shape[1] != channels:
            got = "None" if condition is None else f"{condition.shape[1]} channels"
            raise ValueError(
                f"got {got} as condition: a harmonic base needs {channels} (see HarmonicBase.join)"
            )
        share = self.share(condition)
        share = share.to(promote(share.dtype))
        harmonic = condition[:, self.n_condition + 1 :]
        return share * harmonic, 0.5 * torch.log1p(-share.square())

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        tone, log_noise = self._parts(condition)
        return (x - tone) * torch.exp(-log_noise), -log_noise.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        tone, log_noise = self._parts(condition)
        return tone + torch.exp(log_noise) * z


_LOW_SHARE, _HIGH_SHARE = 0.95, 0.1
_EDGE_HZ, _WIDTH_HZ = 4000.0, 500.0
_LARGEST = 0.99
