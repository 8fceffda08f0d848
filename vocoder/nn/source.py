"""What the mel says of the sound, for flows: a harmonic tone with its F0, and the scale of bands.

Frame t of F0 is centred on sample (t + 1/2) hop.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.mel_spec import MelSpec
from vocoder.flows import Bijection, Mdct

from .pitch import filters_of, interpolation, load_pitch

CENTRE_HZ = 150.0
_LOWEST_HZ = 20.0
_FAINT = 1e-6


class Reading(NamedTuple):
    """A mel (batch, n_mels, frames) and what it shows of the tone, (batch, frames) each."""

    mel: Tensor
    f0: Tensor  # in Hz, float64, of unvoiced frames too
    probability: Tensor  # of voicing
    voiced: Tensor  # 1 where a frame is, else 0


class WhiteSource(nn.Module):
    """White noise alone: the flow's condition is the mel."""

    phases = 1  # of the tone that are as likely; 1 where there is no tone
    context_frames = 0, 0  # before and after a frame that its condition depends on, given the phase

    def read(self, mel: Tensor) -> Reading:
        """F0 and voicing of a mel (batch, n_mels, frames): the part that no phase changes."""
        none = torch.zeros_like(mel[:, 0])
        return Reading(mel, none, none, none)

    def condition(
        self, reading: Reading, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """What the flow sees, (batch, channels, frames).

        ``phase`` is that of the tone before the first sample, in cycles, a number or (batch,); with
        ``audio`` (batch, frames * hop) the tone is locked to the fundamental of it instead.
        """
        return reading.mel

    def cycles(self, reading: Reading) -> Tensor:
        """Of the tone before each frame and after the last, (batch, frames + 1), float64."""
        return F.pad(reading.f0, (0, 1)).double()


class MelSource(WhiteSource):
    r"""A harmonic tone with F0 and voicing as the mel shows them, as frequency bands.

    The condition is, over channels,

    .. math:: \bigl[m,\; v,\; v \ln(f / 150\,\mathrm{Hz}),\; g(E, Q),\; E,\; Q\bigr]

    m is the mel; F0 f and the voicing v, a probability, are those of `MelPitch`, whose bundled
    weights are not trained. E and Q are the MDCT of the tone e and its quadrature q
    (`HarmonicSource`), which sound in frames with v of 0.5 or more. g, a learnt 1x1 convolution to
    ``n_features`` channels, is what couplings see of the tone. F0 and phase are computed in
    float64, so that pieces of an utterance give what the whole gives.
    """

    phases = 16

    def __init__(self, mel_spec: MelSpec, bands: int, n_features: int = 0) -> None:
        super().__init__()
        self.pitch = load_pitch(mel_spec)
        self.source = HarmonicSource(mel_spec.sample_rate, bands)
        self.mdct = Mdct(bands)
        self.features = nn.Conv1d(2 * bands, n_features, 1) if n_features else None
        back, ahead = self.pitch.context_frames
        # The tone runs to the next frame's F0, and the MDCT overlaps neighbouring frames.
        self.context_frames = back + 2, ahead + 2

    def train(self, mode: bool = True) -> MelSource:
        super().train(mode)
        self.pitch.eval()
        return self

    def read(self, mel: Tensor) -> Reading:
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            f0, probability = self.pitch(mel.double())
            voiced = (probability >= 0.5).to(mel.dtype)
        return Reading(mel, f0, probability.to(mel.dtype), voiced)

    def condition(
        self, reading: Reading, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        mel, f0, probability, voiced = reading
        with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
            drift = None
            if audio is not None:
                phase, drift = 0.0, self.source.drift_of(audio.to(voiced.dtype), f0, voiced)
            tone = self.source(f0, voiced, phase, drift)
            bands = torch.cat([self.mdct(x.unsqueeze(1))[0] for x in tone], dim=1)
            logarithm = (f0 / CENTRE_HZ).log().to(mel.dtype)
            pitch = torch.stack([probability, probability * logarithm], dim=1)
        features = [] if self.features is None else [self.features(bands)]
        return torch.cat([mel, pitch, *features, bands], dim=1)

    def cycles(self, reading: Reading) -> Tensor:
        return self.source.cycles(reading.f0, reading.voiced)


class HarmonicSource:
    r"""F0 and voicing to a harmonic tone e and its quadrature q.

    .. math::
        \phi(n) = 2\pi\theta + \frac{2\pi}{f_s} \sum_{i \le n} f(i), \qquad
        e(n) + j\,q(n) = 2\,v(n) \sqrt{f(n) / f_s}\; \sum_{k=1}^{K+1} a_k\, e^{jk\phi(n)}

    Here f is F0, v the voicing, and :math:`K + r = f_s / 2f - 1` with K whole and r in [0, 1);
    :math:`a_k = 1` up to K and :math:`a_{K+1} = r`: the harmonics below half the sample rate, the
    highest faded in and out as F0 moves. The spectrum is flat and the power :math:`v^2`.

    f and v are linear between the centres of frames; unvoiced frames do not move f.

    The sum is a geometric series (Dirichlet kernel):

    .. math::
        \sum_{k=1}^{K} e^{jk\phi} = (\sin A \cot B - \cos A)\, e^{jA}, \qquad
        A = (K + 1)\,\phi / 2, \quad B = \phi / 2
    """

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self.sample_rate, self.hop_length = sample_rate, hop_length

    def __call__(
        self, f0: Tensor, voicing: Tensor, phase: Tensor | float = 0.0, drift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """e and q, (batch, frames * hop) each, of F0 in Hz and voicing, (batch, frames).

        ``phase`` is theta, in cycles, a number or (batch,); ``drift``, in cycles, is added to the
        phase at the centre of each frame (`drift_of`).
        """
        frequency, amplitude = self._interpolate(f0, voicing)  # (batch, frames, hop)
        phases = self._phases(frequency, phase)
        if drift is not None:
            phases = phases + self._between(drift.double())
        e, q = self._harmonics(phases.flatten(1), frequency.flatten(1), voicing.dtype)
        gain = amplitude.flatten(1).to(voicing.dtype)
        return gain * e, gain * q

    def cycles(self, f0: Tensor, voicing: Tensor) -> Tensor:
        """Cycles from the start to each frame's start and to the end, (batch, frames + 1)."""
        frequency, _ = self._interpolate(f0, voicing)
        return F.pad(frequency.sum(dim=2).cumsum(dim=1) / self.sample_rate, (1, 0))

    def drift_of(self, audio: Tensor, f0: Tensor, voicing: Tensor) -> Tensor:
        r"""How far the phase of audio's fundamental runs ahead of the source's, frame by frame.

        .. math:: d_t = \frac1{2\pi} \arg \sum_n w(n - n_t)\, x(n)\, e^{-j\phi(n)},

        with x the audio (batch, frames * hop) and w a Hann window of four hops around the centre of
        frame t; in cycles, (batch, frames), float64, and unwrapped over frames.
        """
        frequency, _ = self._interpolate(f0, voicing)
        phase = self._phases(frequency, 0.0)
        angle = -2 * math.pi * (phase - phase.round()).flatten(1).to(audio.dtype)
        hop = self.hop_length
        window = torch.hann_window(4 * hop, dtype=audio.dtype, device=audio.device)

        def lowpass(x: Tensor) -> Tensor:
            padded = F.pad(x, (2 * hop - hop // 2, 2 * hop - (hop + 1) // 2))
            return padded.unfold(1, 4 * hop, hop) @ window

        turned = torch.complex(lowpass(audio * angle.cos()), lowpass(audio * angle.sin()))
        cycles = turned.angle().double() / (2 * math.pi)
        steps = cycles.diff(dim=1, prepend=cycles[:, :1])
        return cycles[:, :1] + (steps - steps.round()).cumsum(dim=1)

    def _phases(self, frequency: Tensor, start: Tensor | float) -> Tensor:
        """Of each sample in cycles, (batch, frames, hop), modulo 1 at each frame."""
        within = (frequency / self.sample_rate).cumsum(dim=2)
        first = torch.as_tensor(start, dtype=torch.float64, device=frequency.device)
        first = first.expand(frequency.shape[0]).unsqueeze(1)
        before = torch.cat([first, within[:, :-1, -1]], dim=1).cumsum(dim=1)
        return (before - before.floor()).unsqueeze(2) + within

    def _between(self, values: Tensor) -> Tensor:
        """Linear between the centres of frames: (batch, frames) to (batch, frames, hop)."""
        hop = self.hop_length
        values = torch.cat([values[:, :1], values, values[:, -1:]], dim=1)
        offset = torch.arange(hop, dtype=torch.float64, device=values.device)
        offset = (offset - (hop - 1) / 2) / hop  # of a sample from the centre of its frame
        before, after = (-offset).clamp_min(0), offset.clamp_min(0)
        # Not a matrix product, whose rounding would depend on the length of the piece.
        left, middle, right = values.unfold(1, 3, 1).unsqueeze(2).unbind(3)
        return middle + before * (left - middle) + after * (right - middle)

    def _interpolate(self, f0: Tensor, voicing: Tensor) -> tuple[Tensor, Tensor]:
        """F0 and voicing of each sample, (batch, frames, hop), in float64."""
        f0, voicing = f0.double(), voicing.double()
        amplitude = self._between(voicing)
        # F0 counts by its voicing; between two unvoiced frames, where it is not heard, equally.
        frequency = self._between(f0 * (voicing + _FAINT)) / (amplitude + _FAINT)
        return frequency.clamp(_LOWEST_HZ, self.sample_rate / 4), amplitude

    def _harmonics(
        self, phase: Tensor, frequency: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """e and q of voicing 1 from phase in cycles and F0, (batch, samples), both in float64."""
        frequency = frequency.to(dtype)
        harmonics = self.sample_rate / 2 / frequency - 1
        whole = harmonics.floor()
        top = harmonics - whole
        phase = phase - phase.round()

        def turn(cycles: Tensor) -> tuple[Tensor, Tensor]:  # reduced before it is rounded
            angle = 2 * math.pi * (cycles - cycles.round()).to(dtype)
            return angle.sin(), angle.cos()

        sin_a, cos_a = turn((whole + 1) / 2 * phase)
        sin_b, cos_b = turn(phase / 2)
        at_zero = sin_b.abs() < 1e-7
        kernel = sin_a * cos_b / torch.where(at_zero, 1.0, sin_b) - cos_a
        kernel = torch.where(at_zero, whole, kernel)
        # The angle of harmonic K + 1 is 2 A.
        e = kernel * cos_a + top * (1 - 2 * sin_a.square())
        q = (kernel + 2 * top * cos_a) * sin_a
        gain = 2 * (frequency / self.sample_rate).sqrt()
        return gain * e, gain * q


_LARGEST_SHARE = 0.99

PULSES_HZ, PULSES_FADE_HZ = 1800.0, 340.0
PULSES_END_HZ = 5500.0
CLEAR_VOICING, CLARITY_POWER = 0.97, 12
"""See `SourceFilter.generate`; chosen in docs/what-was-tried.md. Reverberation smears pulses, and
the mel of reverberant speech shows voicing less clearly."""


def _share(centres: Tensor, edge: float) -> Tensor:
    """Share of the tone in each band: 0.95 below the edge, 0.1 above it."""
    return 0.95 - (0.95 - 0.1) * torch.sigmoid((centres - edge) / 500.0)


class SourceFilter(Bijection):
    r"""Takes a known tone out of whitened frequency bands; with noise, puts it back.

    .. math::
        w = \frac{u - \mu}{\sigma}, \qquad u = \mu + \sigma w, \qquad
        \log|\det| = -\sum \log\sigma

    .. math::
        \mu = h\,(\cos\psi\, E + \sin\psi\, Q), \qquad
        \log\sigma = \tfrac12 \log(1 - h^2) + l

    u (batch, bands, frames) are whitened bands, E and Q those of a harmonic source and of its
    quadrature (`MelSource`), filtered by a gain h and a rotation psi for each band. Temperature
    scales w alone: the tone keeps its level.

    .. math:: h = 0.99\, v\, s(a), \qquad \psi = \operatorname{atan2}(c, 1 + d), \qquad
        l = 1.5 \tanh(g / 1.5)

    with v the voicing, from 0 to 1, and s the logistic function. a, c, d and g come from a small
    convolutional network of the condition; h starts at 0.95 below 4 kHz and falls to 0.1 above it.

    The condition (batch, n_seen + ... + 2 bands, frames) starts with the ``n_seen`` channels that
    the network of width ``channels`` sees, the last two v and v ln(F0); it ends with E and Q.
    """

    reach = 3  # frames before and after a frame on which its tone and noise depend

    def __init__(self, bands: int, n_seen: int, sample_rate: int, channels: int = 192) -> None:
        super().__init__()
        self.bands, self.n_seen = bands, n_seen
        self.first = nn.Conv1d(n_seen, channels, 5, padding=2)
        self.middle = nn.Conv1d(channels, channels, 3, padding=1)
        self.last = nn.Conv1d(channels, 4 * bands, 1)
        centres = _centres(bands, sample_rate)
        share = _share(centres, 4000.0)
        in_phase = ((centres - PULSES_HZ) / PULSES_FADE_HZ + 0.5).clamp(0, 1)
        pulses = _share(centres, PULSES_END_HZ)
        self.pulses = nn.Buffer(pulses.float()[:, None], persistent=False)
        self.in_phase = nn.Buffer(in_phase.float()[:, None], persistent=False)
        first: Any = self.first.bias
        last: Any = self.last.bias
        with torch.no_grad():
            # As if the mel were scaled by 1/5 and shifted by 1: log-mels lie between -11 and 1.
            first.add_(self.first.weight[:, :-2].sum(dim=(1, 2)))
            self.first.weight[:, :-2] /= 5
            self.last.weight.zero_()
            last.zero_()
            last[:bands] = torch.logit(share / _LARGEST_SHARE)

    def coefficients(self, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h cos(psi), h sin(psi) and log sigma, (batch, bands, frames), in at least float32."""
        # In half precision 1 - h^2 would be mostly rounding, and the network is small.
        with torch.autocast(condition.device.type, enabled=False):
            seen = condition[:, : self.n_seen].to(self.first.weight.dtype)
            x = F.gelu(self.first(seen))
            x = x + F.gelu(self.middle(x))
            # A product: PyTorch's 1x1 convolution of one sequence takes twice as long.
            y = torch.matmul(self.last.weight[:, :, 0], x) + self.last.bias[:, None]  # type: ignore[index]
        a, c, d, g = y.to(torch.promote_types(y.dtype, torch.float32)).chunk(4, dim=1)
        share = _LARGEST_SHARE * seen[:, -2:-1].to(a.dtype) * torch.sigmoid(a)
        log_sigma = 0.5 * torch.log1p(-share.square()) + 1.5 * torch.tanh(g / 1.5)
        d = 1 + d
        turned = share * torch.rsqrt(c.square() + d.square() + 1e-12)
        return turned * d, turned * c, log_sigma

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""`inverse` with pulses: above `PULSES_HZ` the harmonics are in phase (psi is 0), and

        .. math:: h = p\, \min(1, v / 0.97)^{12},

        with p 0.95 below `PULSES_END_HZ` and 0.1 above it: unclear voicing weakens the pulses.
        """
        assert condition is not None
        e, q, of_e, of_q, log_sigma = self._parts(condition)
        voicing = condition[:, self.n_seen - 2 : self.n_seen - 1].to(of_e.dtype)
        clear = (voicing / CLEAR_VOICING).clamp_max(1) ** CLARITY_POWER
        pulses, in_phase = clear * self.pulses, self.in_phase.to(of_e.dtype)
        before = of_e.square() + of_q.square()
        of_e = of_e + in_phase * (pulses - of_e)
        of_q = of_q - in_phase * of_q
        after = of_e.square() + of_q.square()
        log_sigma = log_sigma + 0.5 * (torch.log1p(-after) - torch.log1p(-before))
        return of_e * e + of_q * q + torch.exp(log_sigma) * z

    def _parts(self, condition: Tensor) -> tuple[Tensor, ...]:
        """E, Q, and the `coefficients`."""
        return *condition[:, -2 * self.bands :].chunk(2, dim=1), *self.coefficients(condition)

    def _tone(self, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """mu and log sigma."""
        assert condition is not None
        e, q, of_e, of_q, log_sigma = self._parts(condition)
        return of_e * e + of_q * q, log_sigma

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        tone, log_sigma = self._tone(condition)
        return (x - tone) * torch.exp(-log_sigma), -log_sigma.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        tone, log_sigma = self._tone(condition)
        return tone + torch.exp(log_sigma) * z


class BandScale(nn.Module):
    r"""Minus the log standard deviation of each MDCT band, read off the mel.

    .. math:: s(m) = -(A m + a) - g(m)

    A interpolates the log-mel linearly at the band centres, and a removes the gains of window and
    mel filters, so that noise of standard deviation sigma gives :math:`s \approx -\log\sigma`
    untrained; g, a convolutional network of width ``channels``, starts at zero.

    Shapes: mel (batch, n_mels or more, frames) to (batch, bands, frames).
    """

    reach = 2  # frames before and after a frame on which its scale depends

    def __init__(self, mel_spec: MelSpec, bands: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(mel_spec.n_mels, bands, 1)
        first = nn.Conv1d(mel_spec.n_mels, channels, 5, padding=2)
        self.network = nn.Sequential(first, nn.GELU(), nn.Conv1d(channels, bands, 1))
        weight, bias = _band_interpolation(mel_spec, bands)
        with torch.no_grad():
            self.linear.weight.copy_(-weight.unsqueeze(-1))
            self.linear.bias.copy_(-bias)  # type: ignore[union-attr]
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def forward(self, mel: Tensor) -> Tensor:
        mel = mel[:, : self.linear.in_channels]
        return self.linear(mel) - self.network(mel)


def _band_interpolation(mel_spec: MelSpec, bands: int) -> tuple[Tensor, Tensor]:
    """(bands, n_mels) and (bands,): log standard deviation of a band from the log-mel."""
    filters, mel_centres = filters_of(mel_spec)
    weight = interpolation(_centres(bands, mel_spec.sample_rate), mel_centres)
    # For white noise of unit variance E|X| = sqrt(pi/4 sum w^2) and E|X|^2 = sum w^2, of a Hann
    # window 3/8 of its length.
    energy = 3 / 8 * mel_spec.win_length
    gain = math.pi / 4 * energy if mel_spec.power == 1 else energy
    log_gain = filters.sum(dim=1).clamp_min(1e-12).log() + mel_spec.power / 2 * math.log(gain)
    return weight * mel_spec.nats / mel_spec.power, -(weight @ log_gain) / mel_spec.power


def _centres(bands: int, sample_rate: int) -> Tensor:
    """The centre of each MDCT band in Hz, (bands,), float64."""
    return (torch.arange(bands, dtype=torch.float64) + 0.5) * sample_rate / 2 / bands
