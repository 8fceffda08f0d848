"""A small network that reads F0 and voicing off a log-mel, and the weights it ships with."""

from __future__ import annotations

import functools
import itertools
import math
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.mel_spec import MelSpec

LOWEST_HZ = 50.0
BINS_PER_OCTAVE = 48
N_CANDIDATES = 180
"""Candidates are 50 Hz times 2^(i / 48), i = 0 ... 179: 50 to 663 Hz in steps of 25 cents."""

_TEMPLATE_HZ = 1800.0  # above it mel bands are too wide for the harmonics of most voices
_LIFTER_BANDS = 11
_LEVEL_EDGES_HZ = (0, 150, 300, 500, 750, 1000, 1400, 2000, 2800, 3800, 5000, 6200, 7400)
_CHANNELS = 96
_BACK = (4, 4, 3, 3)
_AHEAD = (2, 2, 1, 1)
_SALIENCE_GAIN = 10.0
_EPSILON = 0.3  # nats; the ripple of a clear voice has a norm of 3 to 6
_gelu = functools.partial(F.gelu, approximate="tanh")


class MelPitch(nn.Module):
    r"""F0 and voicing of each frame of a log-mel.

    .. math::
        p = \mathrm{softmax}(10\, s(m) + g(m)), \qquad f = \bar c(p), \qquad
        v = \sigma(a(m) + b \log \max p)

    s is the `HarmonicSalience` of the candidates; g and a are computed from s, its maximum and the
    `BandLevels` by depthwise-separable convolutions over frames; b is learnt; and :math:`\bar c` is
    the mean of log frequency over the best candidate and three on either side. Only s and the
    levels depend on the convention of the mel. Computed in the dtype of the mel: a phase that is
    integrated from F0 over minutes needs it in float64.

    Raises:
        ValueError: the mel has too few bands below 1.8 kHz (22) to show harmonics.
    """

    def __init__(self, mel_spec: MelSpec) -> None:
        super().__init__()
        self.salience = HarmonicSalience(mel_spec)
        self.levels = BandLevels(mel_spec)
        self.first = nn.Conv1d(N_CANDIDATES + self.levels.count + 1, _CHANNELS, 1)
        self.blocks = nn.ModuleList(map(_Block, _BACK, _AHEAD))
        self.last = nn.Conv1d(_CHANNELS, N_CANDIDATES + 1, 1)
        self.certainty = nn.Parameter(torch.ones(()))
        self.context_frames = (sum(_BACK), sum(_AHEAD))

    def scores(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the candidates (batch, frames, N_CANDIDATES) and of voicing (batch, frames)."""
        mel = mel.mT.contiguous()
        salience = self.salience(mel)
        best = salience.amax(dim=2, keepdim=True)
        x = _pointwise(self.first, torch.cat([salience, best, self.levels(mel)], dim=2))
        for block in self.blocks:
            x = block(_gelu(x))
        y = _pointwise(self.last, _gelu(x))
        logits = y[..., :-1] + _SALIENCE_GAIN * salience
        certainty = logits.amax(dim=2) - logits.logsumexp(dim=2)
        return logits, y[..., -1] + self.certainty.to(mel.dtype) * certainty

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """F0 in Hz, of unvoiced frames too, and the probability that a frame is voiced:
        (batch, n_mels, frames) to (batch, frames) each.
        """
        logits, voicing = self.scores(mel)
        index = torch.arange(N_CANDIDATES, device=logits.device)
        near = (index - logits.argmax(dim=2, keepdim=True)).abs() <= 3
        weight = torch.softmax(logits.masked_fill(~near, -math.inf), dim=2)
        octaves = weight @ (index / BINS_PER_OCTAVE).to(logits.dtype)
        return LOWEST_HZ * torch.exp2(octaves), torch.sigmoid(voicing)


class _Block(nn.Module):
    def __init__(self, back: int, ahead: int) -> None:
        super().__init__()
        self.padding = (back, ahead)
        self.depthwise = nn.Conv1d(_CHANNELS, _CHANNELS, back + 1 + ahead, groups=_CHANNELS)
        self.pointwise = nn.Conv1d(_CHANNELS, _CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, *self.padding))
        y = _pointwise(self.pointwise, _gelu(_depthwise(self.depthwise, padded)))
        return x + y


# In float64 neither PyTorch nor onnxruntime has fast convolutions; products and sums are fast. Time
# comes before channels: so the products of a batch are one.


def _pointwise(layer: Any, x: Tensor) -> Tensor:
    """A 1x1 convolution of x (batch, time, channels) in its dtype."""
    return F.linear(x, layer.weight.to(x.dtype).squeeze(2), layer.bias.to(x.dtype))


def _depthwise(layer: Any, x: Tensor) -> Tensor:
    """A depthwise convolution of x (batch, time, channels), without padding, in its dtype."""
    weight = layer.weight.to(x.dtype)
    taps = weight.shape[2]
    frames = x.shape[1] - taps + 1
    y = layer.bias.to(x.dtype).expand(frames, -1)
    for tap in range(taps):
        y = torch.addcmul(y, weight[:, 0, tap], x[:, tap : tap + frames])
    return y


def load_pitch(mel_spec: MelSpec) -> MelPitch:
    """The bundled network (``vocoder/weights/pitch.md``), in evaluation mode, without gradients."""
    path = Path(str(resources.files("vocoder"))) / "weights" / "pitch.safetensors"
    network = MelPitch(mel_spec)
    network.load_state_dict(safetensors.torch.load_file(path))  # from half precision
    return network.eval().requires_grad_(False)


def candidates() -> Tensor:
    """The candidate frequencies in Hz, (N_CANDIDATES,), float64."""
    return LOWEST_HZ * 2 ** (torch.arange(N_CANDIDATES, dtype=torch.float64) / BINS_PER_OCTAVE)


class HarmonicSalience(nn.Module):
    r"""How well the harmonics of each candidate fit a log-mel spectrum, from -1 to 1.

    .. math:: s_c = \frac{\langle L m, L \tau_c \rangle}
        {\sqrt{\|L m\|^2 + \epsilon^2}\, \sqrt{\|L \tau_c\|^2 + \epsilon^2}}

    m is the log-mel of one frame below 1.8 kHz, :math:`\tau_c` that of a tone of equal harmonics of
    frequency c, and L subtracts a running mean over 11 bands. :math:`\epsilon` keeps silence at 0.

    Shapes: mel (batch, frames, n_mels) to (batch, frames, N_CANDIDATES).
    """

    def __init__(self, mel_spec: MelSpec) -> None:
        super().__init__()
        filters, centres = filters_of(mel_spec)
        kept = int((centres < _TEMPLATE_HZ).sum())
        if kept < 2 * _LIFTER_BANDS:
            raise ValueError(f"{kept} mel bands lie below {_TEMPLATE_HZ:g} Hz: harmonics need 22")
        # The lifter also sees the bands just above, so that it has no edge there.
        seen = min(kept + _LIFTER_BANDS // 2, mel_spec.n_mels)
        lifter = _lifter(seen)[:kept] * (mel_spec.nats / mel_spec.power)
        log_mels = _harmonic_tones(mel_spec, filters[:seen])
        templates = log_mels @ lifter.T  # (candidates, kept)
        norm = (templates.square().sum(dim=1, keepdim=True) + _EPSILON**2).sqrt()
        dtype = torch.get_default_dtype()
        self.lifter = nn.Buffer(lifter.to(dtype), persistent=False)
        self.templates = nn.Buffer((templates / norm).to(dtype), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        ripple = F.linear(mel[..., : self.lifter.shape[1]], self.lifter.to(mel.dtype))
        norm = (ripple.square().sum(dim=2, keepdim=True) + _EPSILON**2).sqrt()
        return F.linear(ripple / norm, self.templates.to(mel.dtype))


class BandLevels(nn.Module):
    r"""Mean log magnitude in 12 bands up to 7.4 kHz, whatever the filters of the mel.

    In units of 5 nats, 0 at 5 nats below the spectral peak of a full-scale sine.
    Shapes: mel (batch, frames, n_mels) to (batch, frames, 12).
    """

    count = len(_LEVEL_EDGES_HZ) - 1

    def __init__(self, mel_spec: MelSpec) -> None:
        super().__init__()
        filters, centres = filters_of(mel_spec)
        weight = torch.zeros(self.count, mel_spec.n_mels, dtype=torch.float64)
        for row, (low, high) in enumerate(itertools.pairwise(_LEVEL_EDGES_HZ)):
            inside = (centres >= low) & (centres < high)
            if not inside.any():  # the nearest band
                inside = (centres - (low + high) / 2).abs().argmin() == torch.arange(len(centres))
            weight[row, inside] = 1 / inside.sum()
        gain = filters.sum(dim=1, keepdim=True).clamp_min(1e-12).log() / mel_spec.power
        gain = gain + math.log(mel_spec.win_length / 4)
        dtype, scale = torch.get_default_dtype(), mel_spec.nats / mel_spec.power
        self.weight = nn.Buffer((weight * scale / 5).to(dtype), persistent=False)
        self.bias = nn.Buffer((1 - weight @ gain / 5).to(dtype), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        return F.linear(mel, self.weight.to(mel.dtype), self.bias.to(mel.dtype)[:, 0])


def filters_of(mel_spec: MelSpec) -> tuple[Tensor, Tensor]:
    """The mel filters (n_mels, bins) and their centres of gravity in Hz, float64."""
    filters = mel_spec.filters().double()
    bins = torch.linspace(0, mel_spec.sample_rate / 2, filters.shape[1], dtype=torch.float64)
    return filters, (filters @ bins) / filters.sum(dim=1).clamp_min(1e-12)


def interpolation(points: Tensor, centres: Tensor) -> Tensor:
    """The matrix (points, centres) of linear interpolation; beyond the ends, of the end's value."""
    right = torch.searchsorted(centres, points).clamp(1, len(centres) - 1)
    left, rows = right - 1, torch.arange(len(points))
    distance = (centres[right] - centres[left]).clamp_min(1e-6)
    fraction = ((points - centres[left]) / distance).clamp(0, 1)
    matrix = torch.zeros(len(points), len(centres), dtype=torch.float64)
    matrix[rows, left], matrix[rows, right] = 1 - fraction, fraction
    return matrix


def _lifter(bands: int) -> Tensor:
    """The matrix that subtracts a Hann-weighted running mean; at the ends the last band repeats."""
    taps = torch.hann_window(_LIFTER_BANDS + 2, periodic=False, dtype=torch.float64)[1:-1]
    taps = taps / taps.sum()
    matrix = torch.eye(bands, dtype=torch.float64)
    rows = torch.arange(bands)
    for offset, tap in enumerate(taps.tolist(), start=-(_LIFTER_BANDS // 2)):
        matrix[rows, (rows + offset).clamp(0, bands - 1)] -= tap
    return matrix


def _harmonic_tones(mel_spec: MelSpec, filters: Tensor) -> Tensor:
    """Log-mels, as the MelSpec has them, of tones of equal harmonics: (candidates, bands)."""
    oversampling = 16
    window = torch.hann_window(mel_spec.win_length, dtype=torch.float64)
    response = torch.fft.rfft(window, oversampling * mel_spec.n_fft).abs().square()
    bins = torch.arange(filters.shape[1], dtype=torch.float64)
    spacing = candidates()[:, None] * mel_spec.n_fft / mel_spec.sample_rate  # in bins
    count = (_TEMPLATE_HZ * 1.3 / candidates()).long()  # of harmonics; the lowest tone has most
    power = torch.zeros(N_CANDIDATES, len(bins), dtype=torch.float64)
    for harmonic in range(1, int(count[0]) + 1):
        having = int((count >= harmonic).sum())
        distance = (bins - harmonic * spacing[:having]).abs() * oversampling
        power[:having] += response[distance.round().long().clamp_max(len(response) - 1)]
    magnitudes = power ** (mel_spec.power / 2)
    return torch.stack([(filters @ one + 1e-9).log() / mel_spec.nats for one in magnitudes])
