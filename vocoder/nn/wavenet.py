"""The parts of WaveNet: causal stack, distribution of a 16-bit sample, linear prediction."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.audio.log_mel import ExactBuffers
from vocoder.audio.pcm import FULL_SCALE

from .networks import convolve, gated_layers
from .pitch import filters_of, interpolation

STEP = 1 / FULL_SCALE
"""Distance of neighbouring levels of 16-bit audio in [-1, 1): one quantisation step."""

SMALLEST_SCALE = STEP / 4  # added to every scale, so that no bin is much wider than its component
LOG_SCALES = -4.0, 2.0  # range of r: a residual of the usual size g costs at most 55 nats
COLDEST = 1e-6  # temperature below which the likeliest component is taken, whatever the noise


class LogisticMixture(NamedTuple):
    r"""Probability of the 65,536 levels of 16-bit audio, from a mixture of logistic densities.

    A sample is :math:`x = q / 32768` with whole q from -32768 to 32767, :math:`\Delta = 1/32768`:

    .. math:: P(q) = \sum_{i=1}^{M} \pi_i
        \Bigl[\sigma\Bigl(\frac{x + \Delta/2 - \mu_i}{s_i}\Bigr) -
        \sigma\Bigl(\frac{x - \Delta/2 - \mu_i}{s_i}\Bigr)\Bigr], \qquad
        \pi = \mathrm{softmax}(l)

    with l, mu and s (batch, M, time). The first bin begins at minus infinity and the last ends at
    infinity. Papers: PixelCNN++ (Salimans et al., 2017), Parallel WaveNet (van den Oord et al.,
    2018).
    """

    logits: Tensor
    means: Tensor
    scales: Tensor

    @classmethod
    def of(cls, output: Tensor, centre: Tensor, gain: Tensor) -> Self:
        r"""The mixture with :math:`\mu_i = c + g m_i` and :math:`s_i = \Delta / 4 + g e^{r_i}` from
        l, m and r, (batch, 3 M, time), of a network, and c and g, (batch, time).
        """
        logits, means, log_scales = output.chunk(3, dim=1)
        gain = gain.unsqueeze(1)
        scales = SMALLEST_SCALE + gain * log_scales.clamp(*LOG_SCALES).exp()
        return cls(logits, centre.unsqueeze(1) + gain * means, scales)

    def log_prob(self, levels: Tensor) -> Tensor:
        """log P(q) in nats, (batch, time), of levels q (batch, time), as `levels_of` gives them."""
        q = levels.to(self.means.dtype).unsqueeze(1)
        centred = q * STEP - self.means  # exact in floating point close to the mean
        below = F.logsigmoid((centred + STEP / 2) / self.scales)
        above = F.logsigmoid((STEP / 2 - centred) / self.scales)
        # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)): nothing cancels.
        each = below + above + torch.log(-torch.expm1(-STEP / self.scales))
        each = torch.where(q <= -FULL_SCALE, below, torch.where(q >= FULL_SCALE - 1, above, each))
        return torch.logsumexp(F.log_softmax(self.logits, dim=1) + each, dim=1)

    def sample(self, choice: Tensor, value: Tensor, temperature: float) -> Tensor:
        r"""A level of each time, as audio in [-1, 1), (batch, time).

        .. math:: x = \mu_i + \tau s_i \epsilon, \qquad i \sim \mathrm{softmax}(l / \tau)

        rounded to a level. ``choice``, uniform on [0, 1), chooses i; ``value`` is epsilon.
        """
        index = self.logits.argmax(dim=1, keepdim=True)
        if temperature >= COLDEST:
            cumulative = F.softmax(self.logits / temperature, dim=1).cumsum(1)
            index = (cumulative <= choice.unsqueeze(1)).sum(dim=1, keepdim=True)
            index = index.clamp(max=self.logits.shape[1] - 1)
        mean, scale = (x.gather(1, index).squeeze(1) for x in (self.means, self.scales))
        return levels_of(mean + temperature * scale * value) * STEP


def levels_of(audio: Tensor) -> Tensor:
    """q, whole numbers of float type, of audio in [-1, 1]; q + u with u in [-1/2, 1/2) is q."""
    return torch.floor(audio / STEP + 0.5).clamp(-FULL_SCALE, FULL_SCALE - 1)


def logistic_noise(uniform: Tensor) -> Tensor:
    """Standard logistic noise from uniform noise on [0, 1) in float32."""
    # The middle of each of the 2^24 cells in which float32 draws uniform numbers.
    return torch.logit(uniform.double() + 2**-25).to(uniform.dtype)


class CausalGatedStack(nn.Module):
    r"""WaveNet's residual stack: output t sees inputs up to t and the condition of its frames.

    With h the hidden channels of layer l, dilation :math:`d_l = 2^{l \bmod cycle}`, K taps and
    condition c at time t,

    .. math::
        a, b &= \sum_{k=0}^{K-1} W_{l,k} h_{t - k d_l} + V_l c_t \\
        r, y_l &= R_l (\tanh a \odot \sigma(b)) \\
        h &\leftarrow h + r

    and the output is two 1x1 convolutions, each behind a ReLU, of :math:`\sum_l y_l / \sqrt{L}`.
    Before the first input everything is zero. V_l is applied to frames of ``hop`` samples and
    interpolated linearly between their middles. ``channels`` is C, ``n_layers`` L and
    ``kernel_size`` K. Paper: WaveNet (van den Oord et al., 2016).
    """

    def __init__(
        self,
        in_channels: int,
        condition_channels: int,
        out_channels: int,
        hop: int,
        channels: int,
        n_layers: int,
        cycle: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.channels, self.n_layers, self.kernel_size = channels, n_layers, kernel_size
        self.dilations = [2 ** (layer % cycle) for layer in range(n_layers)]
        # Weights of the frames before, own and after, (3, hop).
        p = (torch.arange(hop, dtype=torch.float64) + 0.5) / hop - 0.5
        weights = torch.stack([(-p).clamp_min(0), 1 - p.abs(), p.clamp_min(0)])
        self.interpolation = nn.Buffer(weights.to(torch.get_default_dtype()), persistent=False)
        self.start = nn.Conv1d(in_channels, channels, 1)
        self.condition = nn.Conv1d(condition_channels, 2 * channels * n_layers, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, kernel_size, dilation=dilation, bias=False)
            for dilation in self.dilations
        )
        self.residual_skip = nn.ModuleList(
            nn.Conv1d(channels, channels if layer == n_layers - 1 else 2 * channels, 1)
            for layer in range(n_layers)
        )
        first, last = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, out_channels, 1)
        self.head = nn.Sequential(nn.ReLU(), first, nn.ReLU(), last)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(batch, out_channels, frames * hop) from x (batch, in_channels, frames * hop) and the
        condition (batch, condition_channels, frames + 2), one more frame on each side.
        """
        hidden = convolve(self.start, x.transpose(1, 2))
        frames = convolve(self.condition, condition.transpose(1, 2))
        # (batch, frames, 3, 2 C) each
        neighbours = frames.unfold(1, 3, 1).transpose(2, 3).chunk(self.n_layers, dim=-1)
        weights = self.interpolation.T.to(frames.dtype)
        conditions = (torch.matmul(weights, own).flatten(1, 2) for own in neighbours)
        padding = [((self.kernel_size - 1) * dilation, 0) for dilation in self.dilations]
        skips = gated_layers(hidden, self.dilated, self.residual_skip, padding, conditions)
        middle = convolve(self.head[1], torch.relu(skips / math.sqrt(self.n_layers)))
        return convolve(self.head[3], torch.relu(middle)).transpose(1, 2)


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
    1 / A(z) is stable, and g greater than 0. Computed in float64.

    Papers: Atal and Hanauer, 1971; from mel bands, LPCNet (Valin and Skoglund, 2019).

    Raises:
        ValueError: the order K is not from 1 to n_fft / 2 - 1.
    """

    def __init__(self, mel_spec: MelSpec, order: int) -> None:
        super().__init__()
        if not 1 <= order < mel_spec.n_fft // 2:
            most = mel_spec.n_fft // 2 - 1
            raise ValueError(f"linear_prediction is {order}: it must be from 1 to {most}")
        self.mel_spec, self.order = mel_spec, order
        filters, centres = filters_of(mel_spec)
        area = filters.sum(dim=1)
        used = area > 0  # a filter narrower than a bin may hold none
        bins = torch.linspace(0, mel_spec.sample_rate / 2, filters.shape[1], dtype=torch.float64)
        spectrum = torch.zeros_like(filters.T)
        spectrum[:, used] = interpolation(bins, centres[used]) / area[used]
        lags = torch.arange(order + 1, dtype=torch.float64)
        window = torch.exp(-0.5 * (2 * math.pi * _LAG_WINDOW_HZ * lags / mel_spec.sample_rate) ** 2)
        window[0] += _WHITE_NOISE
        window /= torch.hann_window(mel_spec.win_length, dtype=torch.float64).square().sum()
        self.spectrum = nn.Buffer(spectrum, persistent=False)  # (n_fft // 2 + 1, n_mels)
        self.window = nn.Buffer(window, persistent=False)  # (order + 1,)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a mel (batch, n_mels, frames): a, (batch, order, frames), g, and the RMS of the audio,
        (batch, frames) each.
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
    """Coefficients (batch, K, frames) and error (batch, frames) of the best linear prediction, by
    the Levinson-Durbin recursion, from autocorrelation at lags 0 to K, (batch, K + 1, frames).
    """
    error = r[:, 0]
    a = r[:, :0]
    for k in range(1, r.shape[1]):
        reflection = (r[:, k] - (a * r[:, 1:k].flip(1)).sum(dim=1)) / error
        own = reflection.unsqueeze(1)
        a = torch.cat([a - own * a.flip(1), own], dim=1)
        error = error * (1 - reflection.square())
    return a, error
