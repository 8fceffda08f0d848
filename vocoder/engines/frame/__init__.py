"""The frame engine: an MDCT flow run backwards on the CPU, frame by frame of the mel.

It gives the audio of the flow's own ``inverse`` (to 1e-5 in float32), faster, and in pieces of any
size. `plan` folds the weights, `stream` is the pass over time.
"""

from .plan import FramePlan, Latents
from .stream import Condition, FrameStream, run

__all__ = ["Condition", "FramePlan", "FrameStream", "Latents", "run"]
