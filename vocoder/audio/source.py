"""The harmonic source: a tone of equal harmonics whose phase is integrated from F0.

Whitened, voiced speech is much like it; a network that starts from it need not integrate
frequencies, which convolutions cannot. Frame t of F0 is centred on sample (t + 1/2) hop, as are
the frames of a mel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_LOWEST_HZ = 20.0
_FAINT = 1e-6


@dataclass(frozen=True)
class SourceState:
    """Where a stream of source stands after the samples given so far."""

    phase: Tensor
    """Phase of the last sample given, in cycles modulo 1, (batch,), float64."""
    f0: Tensor
    """F0 in Hz of the last frame given and of the next one, (batch, 2)."""
    voicing: Tensor
    """Voicing of the same two frames, (batch, 2)."""


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

    The phase is carried from frame to frame in float64 and modulo 1 cycle, so it is as exact after
    hours as at the start.

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
        state = self.start(f0[:, 0], voicing[:, 0], phase)
        drift = None if drift is None else _framed(drift.double())
        e, q, _ = self._render(_framed(f0), _framed(voicing), state, voicing.dtype, drift)
        return e, q

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
        state = self.start(f0[:, 0], voicing[:, 0])
        frequency, _ = self._interpolate(_framed(f0), _framed(voicing))
        phase, _ = self._phase(frequency, state)
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

    def start(self, f0: Tensor, voicing: Tensor, phase: Tensor | float = 0.0) -> SourceState:
        """The state before the first sample, given the first frame: f0 and voicing (batch,)."""
        start = torch.as_tensor(phase, dtype=torch.float64, device=f0.device)
        return SourceState(
            start.expand(f0.shape[0]),
            torch.stack([f0, f0], dim=1),
            torch.stack([voicing, voicing], dim=1),
        )

    def push(
        self, f0: Tensor, voicing: Tensor, state: SourceState, last: bool = False
    ) -> tuple[Tensor, Tensor, SourceState]:
        """The next samples of a stream. All pushes together equal one call.

        The samples of a frame depend on the next frame, so they come one frame late.

        Args:
            f0, voicing: (batch, frames) of new frames; none is allowed.
            state: from `start` or the previous push.
            last: no more frames follow, so the samples of the last frame are given too.

        Returns:
            e and q, (batch, frames * hop) each, one frame more with ``last``; and the next state.
        """
        f = torch.cat([state.f0, f0], dim=1)
        v = torch.cat([state.voicing, voicing], dim=1)
        if last:
            f, v = torch.cat([f, f[:, -1:]], dim=1), torch.cat([v, v[:, -1:]], dim=1)
        return self._render(f, v, state, voicing.dtype)

    def _render(
        self,
        f: Tensor,
        v: Tensor,
        state: SourceState,
        dtype: torch.dtype,
        drift: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, SourceState]:
        """e, q and the next state; f and v have one more frame on either side, as drift has."""
        frequency, amplitude = self._interpolate(f, v)  # (batch, frames, hop)
        phase, last = self._phase(frequency, state)
        if drift is not None:
            phase = phase + self._between(drift)
        e, q = self._harmonics(phase.flatten(1), frequency.flatten(1), dtype)
        gain = amplitude.flatten(1).to(dtype)
        return gain * e, gain * q, SourceState(last, f[:, -2:], v[:, -2:])

    def _phase(self, frequency: Tensor, state: SourceState) -> tuple[Tensor, Tensor]:
        """The phase of each sample in cycles, (batch, frames, hop), and of the last one."""
        within = (frequency / self.sample_rate).cumsum(dim=2)
        phases = torch.cat([state.phase.unsqueeze(1), within[:, :, -1]], dim=1).cumsum(dim=1)
        phases = phases - phases.floor()
        return phases[:, :-1].unsqueeze(2) + within, phases[:, -1]

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

        def turn(cycles: Tensor) -> tuple[Tensor, Tensor]:
            """Sine and cosine of a phase in cycles, reduced to one turn before it is rounded."""
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
