"""A base density with a harmonic part: noise where sound is noise, a tone where it is voiced."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bijection import Bijection, promote


class SourceFilter(Bijection):
    r"""Takes a known tone out of whitened frequency bands; with noise, puts it back.

    .. math::
        w = \frac{u - \mu}{\sigma}, \qquad u = \mu + \sigma w, \qquad
        \log|\det| = -\sum \log\sigma

    .. math::
        \mu = h\,(\cos\psi\, E + \sin\psi\, Q), \qquad
        \log\sigma = \tfrac12 \log(1 - h^2) + l

    u (batch, bands, frames) are whitened bands, E and Q the same transform of a harmonic source of
    unit power and of its quadrature (`vocoder.nn.MelSource`): so the filter of the source-filter
    model of speech is a gain h and a rotation psi for each band. E and Q are functions of the
    condition and a phase, so the density of u given the condition and the phase is exact.
    Temperature scales w alone: the tone keeps its level.

    .. math:: h = 0.99\, v\, s(a), \qquad \psi = \operatorname{atan2}(c, 1 + d), \qquad
        l = 1.5 \tanh(g / 1.5)

    with v the voicing, from 0 to 1, and s the logistic function. a, c, d and g come from a small
    convolutional network of the condition whose last layer starts at zero but for the bias of a: h
    starts at 0.95 below 4 kHz and falls to 0.1 above it. l is bounded, since a network meets voices
    that it was not trained on.

    The condition (batch, n_seen + ... + 2 bands, frames) starts with the channels that the network
    sees, of which the last two are v and v ln(F0); it ends with E and Q. What lies between is not
    used.

    Args:
        bands: number of frequency bands.
        n_seen: channels that the network sees.
        sample_rate: of the audio, in Hz, for the start of a.
        channels: width of the network.
        kernel_size: taps of its first layer; odd.
    """

    def __init__(
        self, bands: int, n_seen: int, sample_rate: int, channels: int = 192, kernel_size: int = 5
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: it must be odd")
        self.bands = bands
        self.n_seen = n_seen
        self.first = nn.Conv1d(n_seen, channels, kernel_size, padding=kernel_size // 2)
        self.middle = nn.Conv1d(channels, channels, 3, padding=1)
        self.last = nn.Conv1d(channels, 4 * bands, 1)
        self.reach = kernel_size // 2 + 1
        """Frames before and after a frame on which its tone and noise depend."""
        centres = (torch.arange(bands, dtype=torch.float64) + 0.5) * sample_rate / 2 / bands
        share = _LOW_SHARE - (_LOW_SHARE - _HIGH_SHARE) * torch.sigmoid(
            (centres - _EDGE_HZ) / _WIDTH_HZ
        )
        with torch.no_grad():
            # As if the mel were scaled by 1/5 and shifted by 1: log-mels lie between -11 and 1.
            assert self.first.bias is not None
            self.first.bias.add_(self.first.weight[:, :-2].sum(dim=(1, 2)))
            self.first.weight[:, :-2] /= 5
            self.last.weight.zero_()
            assert self.last.bias is not None
            self.last.bias.zero_()
            self.last.bias[:bands] = torch.logit(share / _LARGEST)

    def coefficients(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h cos(psi), h sin(psi) and log sigma, (batch, bands, frames), in at least float32."""
        seen = condition[:, : self.n_seen]
        # In half precision 1 - h^2 would be mostly rounding, and the network is small.
        with torch.autocast(condition.device.type, enabled=False):
            seen = seen.to(self.first.weight.dtype)
            x = F.gelu(self.first(seen))
            x = x + F.gelu(self.middle(x))
            assert self.last.bias is not None
            # A product: PyTorch's 1x1 convolution of one sequence takes twice as long.
            y = torch.matmul(self.last.weight[:, :, 0], x) + self.last.bias[:, None]
        return coefficients_of(y.to(promote(y.dtype)), seen[:, -2:-1])

    def _parts(self, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """mu and log sigma."""
        channels = 0 if condition is None else condition.shape[1]
        if condition is None or channels < self.n_seen + 2 * self.bands:
            raise ValueError(
                f"got {channels} channels as condition: a source and filter need at least "
                f"{self.n_seen + 2 * self.bands}"
            )
        of_e, of_q, log_sigma = self.coefficients(condition)
        e, q = condition[:, -2 * self.bands :].chunk(2, dim=1)
        return of_e * e + of_q * q, log_sigma

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        tone, log_sigma = self._parts(condition)
        return (x - tone) * torch.exp(-log_sigma), -log_sigma.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        tone, log_sigma = self._parts(condition)
        return tone + torch.exp(log_sigma) * z


def coefficients_of(outputs: Tensor, voicing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """h cos(psi), h sin(psi) and log sigma of what the network gives; channels are axis 1.

    Args:
        outputs: a, c, d and g side by side, 4 * bands channels.
        voicing: v, one channel.
    """
    a, c, d, g = outputs.chunk(4, dim=1)
    share = _LARGEST * voicing.to(a.dtype) * torch.sigmoid(a)
    log_sigma = 0.5 * torch.log1p(-share.square()) + _BOUND * torch.tanh(g / _BOUND)
    d = 1 + d
    turned = share * torch.rsqrt(c.square() + d.square() + _FAINT)
    return turned * d, turned * c, log_sigma


_LOW_SHARE, _HIGH_SHARE = 0.95, 0.1
_EDGE_HZ, _WIDTH_HZ = 4000.0, 500.0
_LARGEST = 0.99
_BOUND = 1.5
_FAINT = 1e-12
