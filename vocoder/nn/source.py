"""Sources of flows: white noise, or noise and a harmonic tone with the F0 that the mel shows.

Whitened, voiced speech is much like the tone; a network that starts from it need not integrate
frequencies, which convolutions cannot. Frame t of F0 is centred on sample (t + 1/2) hop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.mel_spec import MelSpec
from vocoder.flows import Mdct

from .pitch import load_pitch

CENTRE_HZ = 150.0
_LOWEST_HZ = 20.0
_FAINT = 1e-6


class Reading(NamedTuple):
    """A mel (batch, n_mels, frames) and what it shows of the tone, (batch, frames) each."""

    mel: Tensor
    f0: Tensor
    """In Hz, float64, of unvoiced frames too."""
    probability: Tensor
    """Of voicing, in the dtype of the mel."""
    voiced: Tensor
    """1 where a frame is voiced, else 0; as the mel."""


class WhiteSource(nn.Module):
    """White noise alone: the flow's condition is the mel."""

    phases = 1
    """Phases of the tone that are as likely; 1 where there is no tone."""

    context_frames = 0, 0
    """Frames before and after a frame on which its condition depends, given the phase."""

    def read(self, mel: Tensor) -> Reading:
        """F0 and voicing of a mel (batch, n_mels, frames): the part that no phase changes."""
        none = torch.zeros_like(mel[:, 0])
        return Reading(mel, none, none, none)

    def condition(
        self, reading: Reading, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """What the flow sees, (batch, channels, frames).

        Args:
            reading: of whole utterances.
            phase: of the tone before the first sample, in cycles; a number or (batch,).
            audio: (batch, frames * hop); if given, the tone is locked to the phase of its
                fundamental (`HarmonicSource.drift_of`), and ``phase`` has no effect.
        """
        return reading.mel

    def cycles(self, reading: Reading) -> Tensor:
        """Cycles of the tone before each frame and after the last, (batch, frames + 1), float64."""
        return F.pad(reading.f0, (0, 1)).double()


class MelSource(WhiteSource):
    r"""A harmonic tone with F0 and voicing as the mel shows them, as frequency bands.

    The condition is, over channels,

    .. math:: \bigl[m,\; v,\; v \ln(f / 150\,\mathrm{Hz}),\; g(E, Q),\; E,\; Q\bigr]

    m is the mel; F0 f and the voicing v, a probability, are those of `MelPitch`, with the bundled
    weights, which stay as they are in training. E and Q are the MDCT of the tone e and its
    quadrature q (`HarmonicSource`), which sound in frames with v of 0.5 or more and are of unit
    power there. g is a learnt 1x1 convolution: what couplings see of the tone.

    F0 and phase are computed in float64, so that pieces of an utterance of any length give what the
    whole gives.

    Args:
        mel_spec: the convention of the mel.
        bands: of the MDCT; the hop of the mel.
        n_features: channels of g; 0 for none.
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
    :math:`a_k = 1` up to K and :math:`a_{K+1} = r`. These are the harmonics below half the sample
    rate, the highest faded in and out as F0 moves, so none of them aliases or sets in with a step.
    The spectrum is flat and the power :math:`v^2`, like that of whitened speech.

    f and v run linearly from the centre of one frame to the centre of the next, and are constant
    before the first centre and after the last. F0 of an unvoiced frame means nothing: where only
    one of two frames is voiced, f is the F0 of that one.

    The sum is a geometric series (Dirichlet kernel), stable near :math:`\phi = 0` in the form

    .. math::
        \sum_{k=1}^{K} e^{jk\phi} = (\sin A \cot B - \cos A)\, e^{jA}, \qquad
        A = (K + 1)\,\phi / 2, \quad B = \phi / 2

    The phase is computed in float64 and modulo 1 cycle: a stream that carries it from window to
    window (`cycles`) is as exact after hours as at the start.

    Args:
        sample_rate: in Hz.
        hop_length: samples per frame.
    """

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self.sample_rate = sample_rate
        self.hop_length = hop_length

    def __call__(
        self,
        f0: Tensor,
        voicing: Tensor,
        phase: Tensor | float = 0.0,
        drift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The source of whole utterances.

        Args:
            f0: (batch, frames), at least one frame, in Hz, below a quarter of the sample rate;
                anything finite in unvoiced frames.
            voicing: (batch, frames), the amplitude of the tone, 0 to 1.
            phase: theta, the phase before the first sample, in cycles; a number or (batch,).
            drift: added to the phase at the centre of each frame, in cycles, (batch, frames);
                between centres it runs linearly. See `drift_of`.

        Returns:
            e and q, (batch, frames * hop) each, in the dtype of voicing; zero between unvoiced
            frames.
        """
        f, v = _framed(f0), _framed(voicing)
        frequency, amplitude = self._interpolate(f, v)  # (batch, frames, hop)
        phases = self._phases(frequency, phase)
        if drift is not None:
            phases = phases + self._between(_framed(drift.double()))
        e, q = self._harmonics(phases.flatten(1), frequency.flatten(1), voicing.dtype)
        gain = amplitude.flatten(1).to(voicing.dtype)
        return gain * e, gain * q

    def cycles(self, f0: Tensor, voicing: Tensor) -> Tensor:
        """Cycles from the start to the start of each frame and to the end, float64.

        Returns:
            (batch, frames + 1), the first 0.
        """
        frequency, _ = self._interpolate(_framed(f0), _framed(voicing))
        return F.pad(frequency.sum(dim=2).cumsum(dim=1) / self.sample_rate, (1, 0))

    def drift_of(self, audio: Tensor, f0: Tensor, voicing: Tensor) -> Tensor:
        r"""How far the phase of audio's fundamental runs ahead of the source's, frame by frame.

        .. math:: d_t = \frac1{2\pi} \arg \sum_n w(n - n_t)\, x(n)\, e^{-j\phi(n)},

        with w a Hann window of four hops around the centre of frame t, and unwrapped over frames.
        With this drift the source is locked to the fundamental of a recording.

        Args:
            audio: x, (batch, frames * hop).
            f0, voicing: as for `__call__`.

        Returns:
            (batch, frames), in cycles, float64.
        """
        frequency, _ = self._interpolate(_framed(f0), _framed(voicing))
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
        """The phase of each sample in cycles, (batch, frames, hop), modulo 1 at each frame."""
        within = (frequency / self.sample_rate).cumsum(dim=2)
        first = torch.as_tensor(start, dtype=torch.float64, device=frequency.device)
        first = first.expand(frequency.shape[0]).unsqueeze(1)
        before = torch.cat([first, within[:, :-1, -1]], dim=1).cumsum(dim=1)
        return (before - before.floor()).unsqueeze(2) + within

    def _between(self, values: Tensor) -> Tensor:
        """Linear between the centres of frames: (batch, frames) to (batch, frames - 2, hop)."""
        hop = self.hop_length
        # Sample n of a frame lies (n - (hop - 1) / 2) / hop frames after the frame's centre.
        offset = torch.arange(hop, dtype=torch.float64, device=values.device)
        offset = (offset - (hop - 1) / 2) / hop
        before, after = (-offset).clamp_min(0), offset.clamp_min(0)
        # Sums, not a matrix product, whose rounding would depend on the length of the piece.
        left, middle, right = (
            part.unsqueeze(2) for part in (values[:, :-2], values[:, 1:-1], values[:, 2:])
        )
        return middle + before * (left - middle) + after * (right - middle)

    def _interpolate(self, f0: Tensor, voicing: Tensor) -> tuple[Tensor, Tensor]:
        """F0 and voicing of each sample but those of the first and last frame, in float64.

        (batch, frames) to (batch, frames - 2, hop).
        """
        f0, voicing = f0.double(), voicing.double()
        amplitude = self._between(voicing)
        # F0 counts by its voicing; between two unvoiced frames, where it is not heard, equally.
        frequency = self._between(f0 * (voicing + _FAINT)) / (amplitude + _FAINT)
        return frequency.clamp(_LOWEST_HZ, self.sample_rate / 4), amplitude

    def _harmonics(
        self, phase: Tensor, frequency: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """e and q of voicing 1 from phase in cycles and F0, (batch, samples), both in float64."""
        # The sum is continuous where K changes, so K may be rounded; the phase may not.
        frequency = frequency.to(dtype)
        harmonics = self.sample_rate / 2 / frequency - 1
        whole = harmonics.floor()
        top = harmonics - whole
        # The kernel is the same for the phase modulo 1, if A and B come from the same value.
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


def _framed(values: Tensor) -> Tensor:
    """(batch, frames) with the first and the last frame repeated."""
    return torch.cat([values[:, :1], values, values[:, -1:]], dim=1)
