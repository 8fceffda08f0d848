"""16-bit samples: rounding to them, dequantisation, and fading the ends of an excerpt.

A 16-bit sample q in [-32768, 32767] stands for the amplitude x = q / 32768 in [-1, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32768
"""Quantisation steps in an amplitude of 1."""


def to_pcm16(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Samples in [-1, 1] rounded to 16 bits, int16; values outside are clipped."""
    levels = np.rint(samples * samples.dtype.type(FULL_SCALE))
    return np.clip(levels, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def from_pcm16(levels: NDArray[Any]) -> NDArray[np.float32]:
    """16-bit levels q, of any type, as amplitudes q / 32768, float32."""
    return levels.astype(np.float32) / np.float32(FULL_SCALE)


def dequantise(levels: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    r"""Levels q plus a quantisation step of noise: continuous audio to measure a density on.

    .. math:: x = (q + u) / 32768, \qquad u \sim \mathrm{Uniform}[-\tfrac12, \tfrac12)

    Then :math:`-\log p(x)` bounds the cost of coding q from above, up to the constant log 32768
    per sample. Paper: Theis, van den Oord and Bethge, 2016.
    """
    noise = rng.random(levels.size, dtype=np.float32) - np.float32(0.5)
    return from_pcm16(levels.astype(np.float32) + noise)


def fade(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """A copy whose first `length` samples rise from zero and last `length` fall to zero.

    The ramps are sine squared. Sound that is cut off begins and ends with a jump, which the mel
    does not show and which the MDCT spreads over all bands: under a flow such a jump can cost more
    than the rest of the utterance.

    Args:
        samples: (samples,), at least `length` of them.
        length: of each ramp, in samples; one hop is enough.
    """
    ramp = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length).astype(np.float32) ** 2
    samples = samples.copy()
    samples[:length] *= ramp
    samples[-length:] *= ramp[::-1]
    return samples
