"""Discriminators: networks that score how much audio sounds like a recording."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

SLOPE = 0.1
"""Of the leaky rectifiers, for negative inputs."""


class Discriminator(nn.Module):
    """Convolutions over two axes; a subclass says how audio is laid out on them.

    Weight normalised, with leaky rectifiers in between. The last one has a single output channel.
    """

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(parametrizations.weight_norm(layer) for layer in layers)

    def arranged(self, audio: Tensor) -> Tensor:
        """Audio (batch, samples) as the input of the convolutions, (batch, 1, height, width)."""
        raise NotImplementedError

    def forward(self, audio: Tensor) -> list[Tensor]:
        """The layers' outputs, (batch, channels, height, width) each; the last holds the scores.

        Args:
            audio: (batch, samples), in [-1, 1].
        """
        hidden = self.arranged(audio)
        features = []
        for layer in self.layers[:-1]:
            hidden = F.leaky_relu(layer(hidden), SLOPE)
            features.append(hidden)
        return [*features, self.layers[-1](hidden)]


class PeriodDiscriminator(Discriminator):
    r"""Scores audio folded at a period, which shows what repeats at it.

    Sample t is at row :math:`\lfloor t / p \rfloor` and column :math:`t \bmod p`; the convolutions
    run along the columns, so each sees every p-th sample. The end is reflected to whole rows.
    Paper: HiFi-GAN (Kong et al., 2020), with fewer and narrower layers.

    Args:
        period: p, in samples.
        channels: width of the first layer; each of the others doubles it.
        n_layers: strided layers, each of which keeps every third row.
    """

    def __init__(self, period: int, channels: int, n_layers: int = 4) -> None:
        if period < 1:
            raise ValueError(f"a period is {period}: it is a number of samples, at least 1")
        widths = [1, *(channels * 2**layer for layer in range(n_layers))]
        layers = [
            nn.Conv2d(before, after, (5, 1), (3, 1), padding=(2, 0))
            for before, after in pairwise(widths)
        ]
        super().__init__([*layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))])
        self.period = period

    def arranged(self, audio: Tensor) -> Tensor:
        missing = -audio.shape[1] % self.period
        if missing:
            audio = F.pad(audio.unsqueeze(1), (0, missing), mode="reflect").squeeze(1)
        return audio.unflatten(1, (-1, self.period)).unsqueeze(1)


class SpectrogramDiscriminator(Discriminator):
    r"""Scores a log-magnitude spectrogram: :math:`\tfrac12 \log(|X|^2 + 10^{-6})`.

    X is the STFT at a hop of a quarter of its length. The offset is about 20 dB above the noise of
    16 bits: the quietest parts of recordings carry dither, not speech. Paper: UnivNet (Jang et al.,
    2021), with fewer and narrower layers.

    Args:
        n_fft: length of the transform and of its Hann window, in samples; a multiple of 4.
        channels: width.
    """

    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        if n_fft < 4 or n_fft % 4:
            raise ValueError(f"a resolution is {n_fft}: give a multiple of 4 samples")
        strided = [
            nn.Conv2d(before, channels, (9, 3), (2, 1), padding=(4, 1))
            for before in (1, channels, channels)
        ]
        end = [
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, 1, 3, padding=1),
        ]
        super().__init__([*strided, *end])
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def arranged(self, audio: Tensor) -> Tensor:
        window = self.window.to(audio.dtype)
        stft = torch.stft(audio, self.n_fft, self.n_fft // 4, window=window, return_complex=True)
        power = stft.real.square() + stft.imag.square()
        return 0.5 * (power + 1e-6).log().unsqueeze(1)  # (batch, 1, bins, frames)


class Discriminators(nn.Module):
    """Multi-period and multi-resolution discriminators, side by side.

    Args:
        periods: in samples, one `PeriodDiscriminator` each; primes overlap least.
        resolutions: FFT lengths in samples, one `SpectrogramDiscriminator` each.
        channels: width of the first layers.

    Raises:
        ValueError: there is no discriminator, or a size does not suit it; the message says which.
    """

    def __init__(self, periods: Sequence[int], resolutions: Sequence[int], channels: int) -> None:
        super().__init__()
        if not periods and not resolutions:
            raise ValueError("there are no periods and no resolutions: give at least one of them")
        self.longest = max([*resolutions, *periods])
        """Samples that audio must have at least: one transform, or one period."""
        self.each = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, channels) for period in periods),
                *(SpectrogramDiscriminator(size, channels) for size in resolutions),
            ]
        )

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """The features of every discriminator, the scores last: see `Discriminator.forward`."""
        return [one(audio) for one in self.each]
