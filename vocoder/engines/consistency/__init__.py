"""Mel consistency on a CPU: the sweeps of `vocoder.audio.consistency`, whole or in a stream.

A tile of frames is cut, transformed, corrected and added up while it is in the cache. Fourier
transforms are scipy's, the loops between them numba's (`loops`). The arithmetic of a step is in
`plan`, sweeps over whole audio are in `whole`, over pieces of it in `stream`.
"""

from .stream import ConsistencyStream
from .whole import refine

__all__ = ["ConsistencyStream", "refine"]
