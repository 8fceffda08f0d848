"""Sweeps over audio that comes in pieces: each step follows the one before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vocoder.audio.consistency import Array, check_audio, check_frames, tensors
from vocoder.audio.levels import REACH, Refine, schedule
from vocoder.audio.mel_spec import MelSpec
from vocoder.audio.validation import check_mel

from .loops import finish
from .plan import End, Floats, floats, plan_of
from .step import Step, step_of
from .whole import lowered, raised

_NOTHING = np.empty(0, np.float32)


class _Stage:
    """One (half) step of a stream: takes its input w, and the result z of the step before it."""

    def __init__(self, step: Step, phase: int, next_phase: int) -> None:
        self._step, self.plan = step, step.plan
        self.phase, self.next_phase = phase, next_phase
        self.received = 0  # samples
        self.released = 0
        self.frame = 0  # of this phase, the first that is not done
        self._origin = 0  # position of w[0] and y[0] in the padded audio
        self._w = self._z = self._y = _NOTHING  # z from `released` on
        self._padded = self._folded = False

    def ready(self, received: int) -> int:
        """How many frames of this phase can be done after this many samples."""
        plan = self.plan
        room = plan.left + received - plan.n_fft - self.phase * plan.hop
        return room // plan.distance + 1 if room >= 0 and received > plan.left else 0

    def final(self, received: int, frame: int) -> int:
        """How many samples are final when the frames before `frame` are done."""
        plan = self.plan
        start = self.phase * plan.hop + frame * plan.distance
        # Neither are samples that the reflected end of the audio may yet fold back onto.
        return max(min(start - plan.left, received - 1 - plan.right), 0)

    def push(
        self, w: Floats, z: Floats, target: Floats, first: int, end: End | None
    ) -> tuple[Floats, Floats]:
        """Take more audio, and return what it completes: w and z of the next step.

        Args:
            w, z: of one length.
            target: the phase's rows of `Plan.targets` so far, from row `first` on.
            first: of the phase's frames.
            end: total number of frames and samples if the audio ends here, else None.
        """
        plan, left = self.plan, self.plan.left
        self.received += len(w)
        self._w, self._z = np.concatenate([self._w, w]), np.concatenate([self._z, z])
        inner = self.received
        if not self._padded and (end or inner > left):
            before, _ = plan.mirrors(inner)
            self._w = np.concatenate([self._w[before], self._w])
            self._padded = True
        if end:
            _, after = plan.mirrors(inner)
            self._w = np.concatenate([self._w, self._w[left + after - self._origin]])
        self._y = np.concatenate([self._y, np.zeros(len(self._w) - len(self._y), np.float32)])

        last = first + len(target)
        if not end:
            last = max(min(last, self.ready(inner)), self.frame)
        at = self.phase * plan.hop + self.frame * plan.distance - self._origin
        if last > self.frame:
            rows = target[self.frame - first : last - first]
            self._step.correct(self._w[at:], rows, self._y[at:])
        self.frame = last
        return self._release(end)

    def _release(self, end: End | None) -> tuple[Floats, Floats]:
        plan, left, inner = self.plan, self.plan.left, self.received
        following_frame = self.phase * plan.hop + self.frame * plan.distance
        if self._padded and not self._folded and (end or following_frame >= left):
            plan.fold_left(self._y, plan.mirrors(inner))
            self._folded = True
        if end:
            plan.fold_right(self._y, self._origin, inner, plan.mirrors(inner))

        first, last = self.released, inner if end else self.final(inner, self.frame)
        if last <= first and not end:
            return _NOTHING, _NOTHING
        norm = plan.norm(self.phase, first, last, end)
        ahead = plan.ahead(self.next_phase, first, last, end)
        z, self._z = self._z[: last - first].copy(), self._z[last - first :]
        following = np.empty_like(z)
        inside = slice(left + first - self._origin, left + last - self._origin)
        w, y = self._w[inside], self._y[inside]
        finish(w, y, norm, ahead, z, following)
        self.released = last

        if self._folded:
            keep = min(following_frame, left + last, left + inner - plan.right - 1)
            dropped = max(keep - self._origin, 0)
            self._w, self._y = self._w[dropped:], self._y[dropped:]
            self._origin += dropped
        return following, z


class _LevelStream:
    """The iterations of one level: audio at its rate and mel in, refined audio out."""

    def __init__(self, mel_spec: MelSpec, decimation: int, iterations: int) -> None:
        self.plan = plan = plan_of(mel_spec, decimation)
        step = step_of(plan)
        self._stages = [
            _Stage(step, number % plan.phases, (number + 1) % plan.phases)
            for number in range(iterations * plan.phases)
        ]
        self._frames = self._samples = self._released = 0
        self._targets = [np.empty((0, plan.n_mels), np.float32) for _ in range(plan.phases)]
        self._first = [0] * plan.phases  # of the frames in _targets

    @property
    def look_ahead(self) -> int:
        """How far the output can lag the input, in frames, rounded up."""
        plan, stages, hop = self.plan, self._stages, self.plan.hop
        far = 2 * (len(stages) + 2) * plan.pieces * plan.phases
        delays = []
        for frames in range(far, far + 2):
            samples = frames * hop
            for stage in stages:
                samples = stage.final(samples, stage.ready(samples))
            delays.append(frames * hop - samples)
        return -(-max(delays) // hop)

    def push(self, audio: Floats, mel: Floats, final: bool) -> Floats:
        """Take more audio and mel; with `final`, all that is left comes out."""
        plan = self.plan
        for phase, rows in enumerate(plan.targets(mel, self._frames)):
            self._targets[phase] = np.concatenate([self._targets[phase], rows])
        self._frames += mel.shape[1]
        self._samples += len(audio)
        end = None
        if final:
            end = self._frames, self._samples
            missing = 0 if plan.mel_spec.center else self._frames * plan.hop - self._samples
            audio = np.concatenate([audio, np.zeros(missing, np.float32)])
        w = z = audio
        for stage in self._stages:
            first = self._first[stage.phase]
            w, z = stage.push(w, z, self._targets[stage.phase], first, end)
        for phase in range(plan.phases):
            done = [stage.frame for stage in self._stages if stage.phase == phase]
            dropped = min(done) - self._first[phase]
            self._targets[phase] = self._targets[phase][dropped:]
            self._first[phase] += dropped
        if final:
            z = z[: self._samples - self._released]
        self._released += len(z)
        return z


class _CoarseStream:
    """A coarse level of a stream: the audio at the whole rate in and out."""

    def __init__(self, mel_spec: MelSpec, decimation: int, iterations: int) -> None:
        self.decimation = decimation
        self._level = _LevelStream(mel_spec, decimation, iterations)
        reach = REACH * decimation
        self._input = np.zeros(reach, np.float32)  # what the next sample of `low` needs, and later
        self._waiting = _NOTHING  # audio that is not released
        self._low = _NOTHING  # of which the level has not given the result
        self._change = np.zeros(REACH, np.float32)  # from the first that is needed
        self._received = self._lowered = self._released = 0

    @property
    def look_ahead(self) -> int:
        """How far the output can lag the input, in frames, rounded up."""
        resampling = (2 * REACH + 2) * self.decimation
        hop = self._level.plan.hop * self.decimation
        return self._level.look_ahead - (-resampling // hop)

    def push(self, audio: Floats, mel: Floats, final: bool) -> Floats:
        """Take more audio and mel; with `final`, all that is left comes out."""
        d, reach = self.decimation, REACH * self.decimation
        self._received += len(audio)
        self._waiting = np.concatenate([self._waiting, audio])
        self._input = np.concatenate([self._input, audio, np.zeros(final * reach, np.float32)])
        low = lowered(self._input, d)
        if final:
            low = low[: self._received // d - self._lowered]
        self._input = self._input[len(low) * d :]
        self._lowered += len(low)
        self._low = np.concatenate([self._low, low])
        if final and not self._lowered:  # too short for this level
            return self._waiting

        refined = self._level.push(low, mel, final)
        change, self._low = refined - self._low[: len(refined)], self._low[len(refined) :]
        change = np.concatenate([change, np.zeros(final * (REACH + 1), np.float32)])
        self._change = np.concatenate([self._change, change])
        rise = raised(self._change, d)
        self._change = self._change[len(rise) // d :]

        rise = rise[: len(self._waiting)]
        out = self._waiting[: len(rise)] + rise
        self._waiting = self._waiting[len(rise) :]
        return out


class ConsistencyStream:
    """The iterations of `refine` over audio that comes in pieces, in constant memory.

    The pieces that come out, put together, equal `refine` of the whole (to 1e-6), however the
    audio and the mel are cut. Every step follows the one before it as closely as its frames allow,
    so nothing is computed twice.

        stream = ConsistencyStream(mel_spec, refine=4)
        for audio, mel in pieces:
            play(stream.push(audio, mel))
        play(stream.finish())

    Args:
        mel_spec: the definition of the mel.
        refine: as for `refine_mel`; the delay grows with the number of iterations (`look_ahead`),
            on coarse levels as on the whole rate.

    Raises:
        ValueError: refine is out of range.
    """

    def __init__(self, mel_spec: MelSpec, refine: Refine) -> None:
        self.mel_spec = mel_spec
        self._levels: list[_LevelStream | _CoarseStream] = [
            (_LevelStream if decimation == 1 else _CoarseStream)(mel_spec, decimation, iterations)
            for decimation, iterations in schedule(refine, mel_spec)
        ]
        self._samples = self._frames = 0
        self._ended = False
        self._as_tensor = False

    @property
    def look_ahead(self) -> int:
        """The delay in frames: how far the output can lag the input, rounded up.

        About six frames per iteration.
        """
        return sum(level.look_ahead for level in self._levels)

    def push(self, audio: Array, mel: Array) -> Array:
        """Take the next piece of audio and of mel, and return the audio that they complete.

        Args:
            audio: (samples,), floating point, of any length, even 0; a torch tensor on the
                CPU or a numpy array.
            mel: (n_mels, frames), of any number of frames; what belongs to the samples may come
                earlier or later, and is kept until then.

        Returns:
            (samples,) float32, of the kind of `audio`, `look_ahead` frames behind.

        Raises:
            MelError: the mel cannot come from the MelSpec.
            ValueError: the audio is not (samples,), floating point and finite, or the stream has
                ended.
        """
        if self._ended:
            raise ValueError("This stream has ended: create a new one for other audio.")
        samples, target = tensors(audio, mel)
        if samples.ndim != 1 or target.ndim != 2:
            raise ValueError(
                f"A stream takes audio (samples,) and a mel (n_mels, frames), got shapes "
                f"{tuple(samples.shape)} and {tuple(target.shape)}."
            )
        if len(samples):
            check_audio(samples)
        if target.shape[1]:
            check_mel(target, self.mel_spec)
        self._frames += target.shape[1]
        self._samples += len(samples)
        self._as_tensor = isinstance(audio, torch.Tensor)
        result: Array = self._advance(floats(samples), floats(target))
        return result

    def finish(self) -> torch.Tensor | Floats:
        """End the stream and return the rest of its audio.

        Raises:
            MelError: the frames that came in are not those of the samples; see `refine_mel`.
            ValueError: the stream has already ended.
        """
        if self._ended:
            raise ValueError("This stream has ended: create a new one for other audio.")
        if self._samples or self._frames:
            check_frames(self._samples, self._frames, self.mel_spec)
        self._ended = True
        nothing = np.empty((self.mel_spec.n_mels, 0), np.float32)
        result: torch.Tensor | Floats = self._advance(_NOTHING, nothing)
        return result

    def _advance(self, audio: Floats, mel: Floats) -> Any:
        if self._samples or not self._ended:
            for level in self._levels:
                audio = level.push(audio, mel, self._ended)
        audio = audio.copy()
        return torch.from_numpy(audio) if self._as_tensor else audio
