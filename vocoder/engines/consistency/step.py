"""One step over consecutive frames: analysis, gain, synthesis."""

from __future__ import annotations

import numpy as np
import scipy.fft

from .lanes import LANES
from .loops import add, analyse, compiled, cut, gains, ratios, synthesise
from .plan import Floats, Plan

BLOCK = 64
"""Most frames between analysis and synthesis: their spectra take 260 kB at n_fft 1,024."""


def step_of(plan: Plan) -> Step:
    """A step for a plan, with buffers of its own."""
    return Step(plan) if plan.tables else _ScipyStep(plan)


class Step:
    """One step over consecutive frames of one phase, with buffers for the use of one thread.

    Analysis: the spectra X of up to `BLOCK` frames, and the distances r of their bands from the
    mel. Gain and synthesis: the frames of (exp(W r) - 1) X, overlapped and added. Between the two,
    r of the whole block is at hand.

    Args:
        plan: of the MelSpec.

    Attributes:
        r: (tiles, n_mels + 1, LANES) in nats, within ±`MAX_STEP`. Frame k of the block is lane
            k % LANES of tile k // LANES. The last row is always 0.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        tiles = BLOCK // LANES
        self.r = np.zeros((tiles, plan.n_mels + 1, LANES), np.float32)
        self._spectra = np.empty((tiles, plan.n_fft, LANES), np.float32)
        self._ones = np.ones(plan.n_mels, np.float32)
        rows = max(plan.n_fft // 2 + 1, plan.n_mels)
        self._scratch = np.empty((2, rows, LANES), np.float32)

    def correct(self, w: Floats, target: Floats, y: Floats) -> None:
        """Add the corrections of consecutive frames of one phase to y.

        Args:
            w: samples from the start of the first frame on.
            target: of `Plan.targets`, (count, n_mels).
            y: from the same position on.
        """
        for begin in range(0, len(target), BLOCK):
            part, at = target[begin : begin + BLOCK], begin * self.plan.distance
            self.analyse(w[at:], part)
            self.synthesise(y[at:], len(part))

    def analyse(self, w: Floats, target: Floats) -> None:
        """Spectra and r of at most `BLOCK` frames."""
        plan = self.plan
        analyse(
            w,
            plan.distance,
            plan.analysis,
            target,
            self._ones,
            plan.tables,
            plan.bands,
            self._spectra,
            self.r,
            self._scratch,
        )

    def synthesise(self, y: Floats, count: int) -> None:
        """Add the corrections of the first `count` frames of `analyse` to y."""
        plan = self.plan
        synthesise(
            self._spectra,
            self.r,
            count,
            plan.tables,
            plan.bands,
            plan.synthesis,
            y,
            plan.distance,
            self._scratch,
        )


# The parts of `analyse` and `synthesise`, callable from Python.
_cut, _ratios, _gains, _add = (compiled(part.py_func) for part in (cut, ratios, gains, add))


class _ScipyStep(Step):
    """The same with scipy's transform, for lengths that `fft` cannot do; slower."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._bins = np.empty((0, 0, LANES), np.complex64)

    def analyse(self, w: Floats, target: Floats) -> None:
        plan, rows, n_mels = self.plan, target.reshape(-1), target.shape[1]
        starts = range(0, len(target), LANES)
        for tile, k in zip(self._spectra, starts, strict=False):
            _cut(w, k * plan.distance, plan.distance, plan.analysis, len(target) - k, tile)
        self._bins = scipy.fft.rfft(self._spectra[: len(starts)], axis=1)
        power = self._bins.real**2 + self._bins.imag**2
        for t, k in enumerate(starts):
            _cut(rows, k * n_mels, n_mels, self._ones, len(target) - k, self._scratch[1])
            _ratios(power[t], self._scratch[1], plan.bands, self.r[t])

    def synthesise(self, y: Floats, count: int) -> None:
        plan, gain = self.plan, self._scratch[0]
        for r, spectrum in zip(self.r, self._bins, strict=False):
            _gains(r, plan.bands, gain)
            spectrum *= gain[: len(spectrum)]
        tiles = scipy.fft.irfft(self._bins, plan.n_fft, axis=1, overwrite_x=True)
        for tile, k in zip(tiles, range(0, count, LANES), strict=True):
            _add(tile, plan.synthesis, y, k * plan.distance, plan.distance, count - k)
