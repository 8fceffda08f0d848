"""A stream with a short delay: refinement in windows over its newest frames, on a CPU.

A frame is refined `look_ahead` + 1 times before its turn comes, with more of its future each time:
RTISI-LA (Zhu, Beauregard and Wyse, 2007; online, for networks: Peer et al., 2023, arXiv
2309.07043), here with the iterations of `vocoder.audio.refinement` and its coarse levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.refinement import REACH, Refine, Schedule, low_pass, schedule, up_taps

from .refinement import (
    _FAR,
    Floats,
    _compiled,
    _covers,
    _lowered,
    _project,
    _raised,
    _Tables,
    _tables,
    _target_of,
)

T = TypeVar("T")

LEVELS: Refine = ((8, 8), (4, 2), (1, 2))  # iterations for every new frame
PAST = 12  # frames of mel before a frame that the network sees at most
GROUP = 4  # frames that the network renders at once: a pass costs the same for 20


@_compiled
def _iterate(
    w: Any, origin: int, fixed: int, end: int, target: Any, skipped: int, frames: Any,
    iterations: int, norms: Any, aheads: Any, t: Any,
) -> Any:  # fmt: skip
    """Iterations of `vocoder.audio.refinement.Level` that change samples from `fixed` on alone: of
    `w`, from `origin` on, by the `frames` from the first to before the last; see `_advance`.
    """
    first, last = frames
    w, z = w.copy(), w.copy()
    for step in range(t.phases * iterations):
        phase, following = step % t.phases, (step + 1) % t.phases
        y = np.zeros(w.shape[0], np.float32)
        k = first + (phase - first) % t.phases
        _project(w, origin, k, last, end, target, skipped, y, t)
        for i in range(fixed - origin, w.shape[0]):
            new = w[i] + y[i] * norms[phase, i]
            w[i] = new + aheads[following, i] * (new - z[i])
            z[i] = new
    return z


class LookAheadRefiner:
    """Refines audio by levels for every new frame, `look_ahead` frames (1 or more) behind it."""

    def __init__(self, mel_spec: MelSpec, levels: Schedule, look_ahead: int) -> None:
        self.mel_spec, self.levels, self.look_ahead = mel_spec, levels, look_ahead
        hop, (left, _) = mel_spec.hop_length, mel_spec.padding
        # Frames of audio after the newest one that its window reaches.
        self.reach = max(-(-(mel_spec.n_fft - left) // hop), left // hop + 1) - 1
        self._kept = self.reach - (-left // hop) + 1  # played frames that windows still reach
        self._origin = self._done = self._frames = 0  # first frame in memory, first to play, newest
        self._audio = np.empty(0, np.float32)
        self._target = np.empty((0, mel_spec.n_mels), np.float32)

    def push(self, mel: Floats, audio: Floats) -> Floats:
        """The audio to play, if any, after the next frame of mel (n_mels,) and an estimate of audio
        from it to `reach` after it, empty where there is one.
        """
        if len(audio):
            known = self._audio[: (self._frames - self._origin) * self.mel_spec.hop_length]
            self._audio = np.concatenate([known, audio])
        self._target = np.concatenate([self._target, _target_of(mel[:, None], self.mel_spec)])
        self._frames += 1
        self._refine(self._frames + self.reach, self._frames, _FAR)
        return self._play(self._frames - self.look_ahead)

    def finish(self) -> Floats:
        """The rest of the audio, refined once more, now that its end is known."""
        if not self._frames:
            return self._audio
        rows = self._frames
        if self.mel_spec.center:  # as in `Vocoder.refine_target`
            self._target, rows = np.concatenate([self._target, self._target[-1:]]), rows + 1
        self._refine(self._frames, rows, self._frames * self.mel_spec.hop_length)
        return self._play(self._frames)

    def _refine(self, until: int, frames: int, end: int) -> None:
        hop, origin = self.mel_spec.hop_length, self._origin
        audio = self._audio[: (until - origin) * hop]
        played = (self._done - origin) * hop
        for d, iterations in self.levels:
            t = _tables(self.mel_spec, d)
            if d == 1:
                audio[played:] = self._iterated(audio, t, iterations, frames, end)[played:]
            else:
                low = _lowered(np.pad(audio, REACH * d), low_pass(d), d)[: len(audio) // d]
                low_end = end if end == _FAR else end // d
                refined = self._iterated(low, t, iterations, frames, low_end)
                change = _raised(np.pad(refined - low, (REACH, REACH + 1)), up_taps(d))
                audio[played:] += change[played : len(audio)]

    def _iterated(
        self, audio: Floats, t: _Tables, iterations: int, frames: int, end: int
    ) -> Floats:
        origin = self._origin * t.hop
        norms, aheads = _covers(t, origin, origin + len(audio), frames, end)
        counting = max(self._done - self.reach, 0), frames
        result: Floats = _iterate(
            audio, origin, self._done * t.hop, end, self._target, self._origin, counting,
            iterations, norms, aheads, t,
        )  # fmt: skip
        return result

    def _play(self, last: int) -> Floats:
        """Audio up to frame `last`, which stays as it is from now on."""
        hop, origin, last = self.mel_spec.hop_length, self._origin, max(last, self._done)
        played = self._audio[(self._done - origin) * hop : (last - origin) * hop].copy()
        self._done, self._origin = last, max(last - self._kept, 0)
        self._audio = self._audio[(self._origin - origin) * hop :]
        self._target = self._target[self._origin - origin :]
        return played


def short_delay(
    chunks: Iterable[tuple[T, Tensor]],
    mel_spec: MelSpec,
    past: int,
    render: Callable[[Tensor, int, int, int], Tensor],
    refine: Refine | None,
    look_ahead: int,
) -> Iterator[tuple[T, Tensor]]:
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
    reaches. The delay is L frames.

    Args:
        chunks: mel (n_mels, frames), each with a tag, which is yielded with the audio (samples,)
            that the chunk completes; the last one also with the rest.
        past: frames of context that the network can use.
        render: the network, a `vocoder.models.streaming.Renderer`.
        refine: iterations for every new frame; None takes `LEVELS`, 0 is a ValueError.
    """
    levels = schedule(LEVELS if refine is None else refine, mel_spec)
    if not levels:
        raise ValueError(
            "a stream with look_ahead is refined for every frame, and refine is 0: leave refine "
            "out, or look_ahead"
        )
    past = min(past, PAST) // GROUP * GROUP
    refiner = LookAheadRefiner(mel_spec, levels, look_ahead)
    ahead = -(-(GROUP + refiner.reach) // GROUP) * GROUP - 1
    seen: Tensor | None = None
    number = 0
    for tag, mel in chunks:
        played = []
        for frame in mel.split(1, dim=1):
            seen = frame if seen is None else torch.cat([seen, frame], dim=1)
            estimate = torch.empty(0)
            if number % GROUP == 0:
                seen = seen[:, -past - 1 :]
                window = torch.cat([seen, frame.expand(-1, ahead)], dim=1).unsqueeze(0)
                start = number + 1 - seen.shape[1]
                with torch.no_grad():
                    estimate = render(window, start, number, number + GROUP)[0]
            number += 1
            played.append(refiner.push(frame[:, 0].cpu().numpy(), estimate.float().cpu().numpy()))
        yield tag, torch.from_numpy(np.concatenate(played))
    if number:
        yield tag, torch.from_numpy(refiner.finish())
