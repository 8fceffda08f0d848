"""The former name of `vocoder.engines.refinement`, which goes in the next version."""

import warnings

from vocoder.engines.refinement import RefineStream as ConsistencyStream
from vocoder.engines.refinement import refine_audio as refine

warnings.warn(
    "vocoder.engines.consistency is now vocoder.engines.refinement, with refine_audio and "
    "RefineStream, and goes in the next version",
    DeprecationWarning,
    stacklevel=2,
)

__all__ = ["ConsistencyStream", "refine"]
