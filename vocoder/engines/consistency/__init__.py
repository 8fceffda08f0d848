"""Mel consistency on a CPU: the sweeps of `vocoder.audio.consistency`, whole or in a stream.

From the ground up: `lanes` is vector code for eight frames at once, `fft` their Fourier transform,
`loops` the rest of the arithmetic, `plan` the tables of a `MelSpec`. `step` is analysis, gain and
synthesis of a block of frames, which stay in the cache. `whole` does sweeps over whole audio, in
threads; `stream` over pieces of it.
"""

from .stream import ConsistencyStream
from .whole import refine

__all__ = ["ConsistencyStream", "refine"]
