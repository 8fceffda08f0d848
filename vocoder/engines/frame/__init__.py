"""The frame engine: an MDCT flow run backwards on the CPU, frame by frame of the mel.

It makes the audio that the flow's own ``inverse`` makes (to 1e-5 in float32), faster, and in
pieces of any size. Its weights are folded in `plan`, the pass over time is in `stream`.
"""

from .plan import FramePlan, Latents
from .stream import FrameStream, run

__all__ = ["FramePlan", "FrameStream", "Latents", "run"]
