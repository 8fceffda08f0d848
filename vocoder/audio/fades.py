"""Fading the ends of an excerpt, so that it begins and ends in silence as an utterance does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fade(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Let the first `length` samples rise from zero and the last ones fall to it (sine squared).

    Sound that is cut off begins and ends with jumps, which its mel does not show and which a lapped
    transform spreads over all bands: under a flow they can cost more than the whole utterance.

    Args:
        samples: (samples,), at least `length` of them; left as they are, the result is a copy.
        length: of each ramp, in samples; one hop is enough.
    """
    ramp = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length).astype(np.float32) ** 2
    samples = samples.copy()
    samples[:length] *= ramp
    samples[-length:] *= ramp[::-1]
    return samples
