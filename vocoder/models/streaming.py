"""Streams with a short delay: what `Vocoder.stream` does with `look_ahead`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio import MelSpec, Refine
from vocoder.audio.refinement import schedule
from vocoder.backends.look_ahead import LookAheadRefiner

LEVELS: Refine = ((8, 4), (1, 2))
"""Iterations for every new frame: as much computing as 16 at the whole rate in one pass."""

PAST = 12
"""Frames of mel before a frame that the network sees at most."""

GROUP = 4
"""Frames that the network renders at once, with the mel of the first held for the others."""


class ShortDelay:
    r"""Audio `look_ahead` frames behind its mel, at the same cost for every frame.

    With L the look-ahead, m the mel and x the audio of the frames that are not played yet, frame N
    of the mel brings

    .. math::
        x_{N \ldots N+E} &= f^{-1}(z;\; m_{N-12}, \ldots, m_N, m_N, \ldots, m_N)
            \quad \text{where } 4 \text{ divides } N \\
        x_{N-L \ldots N+E} &\leftarrow R\,(x_{N-L-5 \ldots N+E};\; m_{N-L-2 \ldots N}), \\

    and x_{N-L} is played. The network f, of which the mel after N is not known, sees the newest
    frame held instead; R are iterations of `vocoder.audio.refinement.Level` in which played
    samples stay; E frames after N, which no mel corrects yet, are what the window of frame N
    reaches.

    The delay is L frames, L * hop / sample_rate seconds; first audio comes with frame L + 1. A pass
    of the network costs about the same for a few frames as for 20, so it makes `GROUP` = 4 at once.

    Papers: Zhu, Beauregard and Wyse, 2007 (RTISI-LA); Peer et al., 2023 (arXiv 2309.07043).

    Args:
        mel_spec: the definition of the mel.
        past: frames of context that the network can use.
        render: the network, called for every fourth frame; a `Renderer`.
        refine: iterations for every new frame; None takes `LEVELS`.
        look_ahead: L, 1 or more.

    Raises:
        ValueError: refine is out of range, or 0: the network's own audio needs no look-ahead here.
    """

    def __init__(
        self,
        mel_spec: MelSpec,
        past: int,
        render: Callable[[Tensor, int, int, int], Tensor],
        refine: Refine | None,
        look_ahead: int,
    ) -> None:
        levels = schedule(LEVELS if refine is None else refine, mel_spec)
        if not levels:
            raise ValueError(
                "a stream with look_ahead is refined for every frame, and refine is 0: leave "
                "refine out, or look_ahead"
            )
        self._render, self._past = render, min(past, PAST) // GROUP * GROUP
        self._refiner = LookAheadRefiner(mel_spec, levels, look_ahead)
        self._mel = torch.empty(mel_spec.n_mels, 0)
        self._frames = 0

    def push(self, mel: Tensor) -> Tensor:
        """Take mel (n_mels, frames), and return the audio (samples,) that it completes."""
        played = [self._next(frame) for frame in mel.split(1, dim=1)]
        return torch.from_numpy(np.concatenate(played))

    def finish(self) -> Tensor:
        """The audio of the last `look_ahead` frames."""
        return torch.from_numpy(self._refiner.finish())

    def _next(self, frame: Tensor) -> NDArray[Any]:
        estimate = torch.empty(0)
        first, self._frames = self._frames, self._frames + 1
        self._mel = torch.cat([self._mel.to(frame), frame], dim=1)
        if first % GROUP == 0:
            self._mel = self._mel[:, -self._past - 1 :]
            held = -(-(GROUP + self._refiner.reach) // GROUP) * GROUP - 1
            window = torch.cat([self._mel, frame.expand(-1, held)], dim=1)
            start = first + 1 - self._mel.shape[1]
            with torch.no_grad():
                estimate = self._render(window.unsqueeze(0), start, first, first + GROUP)[0]
        return self._refiner.push(frame[:, 0].cpu().numpy(), estimate.float().cpu().numpy())
