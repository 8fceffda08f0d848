"""What WaveNet draws a sample from: the past, and what the mel says of it.

For audio that is there already in one pass (`look_back`), and sample by sample (`Past`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.nn import DiscretisedMixture


class Predictive(Protocol):
    """What a model says of its inputs: see `WaveNet`."""

    mel_spec: MelSpec
    output: DiscretisedMixture
    order: int
    pitch_taps: int
    longest_lag: int


@dataclass(frozen=True)
class Conditions:
    """What the mel says of some consecutive frames.

    Attributes:
        features: of the network, (batch, channels, frames + 2): the first and the last frame are
            neighbours of the others, for interpolation.
        coefficients: a of linear prediction, (batch, order, frames).
        gain: g, the RMS of its residual, (batch, frames); 1 without linear prediction.
        level: the RMS of the audio, (batch, frames); 1 without linear prediction.
        lags: the pitch period, in samples, (batch, frames * hop).
    """

    features: Tensor
    coefficients: Tensor
    gain: Tensor
    level: Tensor
    lags: Tensor

    def frames(self, first: int, last: int, hop: int) -> Conditions:
        """Frames [first, last)."""
        # At the ends a frame is its own neighbour.
        return Conditions(
            self.features[..., first : last + 2],
            self.coefficients[..., first:last],
            self.gain[:, first:last],
            self.level[:, first:last],
            self.lags[:, first * hop : last * hop],
        )


def look_back(
    model: Predictive, audio: Tensor, conditions: Conditions
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the network (batch, `n_inputs`, samples), and prediction and gain, (batch,
    samples), of rounded audio (batch, samples).
    """
    hop = model.mel_spec.hop_length
    gain = conditions.gain.repeat_interleave(hop, dim=1)
    level = conditions.level.repeat_interleave(hop, dim=1)
    inputs = [_delayed(audio) / level]
    prediction = torch.zeros_like(audio)
    residual = audio
    if model.order:
        windows = _delayed(audio, model.order).unfold(1, model.order, 1)
        windows = windows.unflatten(1, (-1, hop))
        # The newest sample comes last in a window, and first among the coefficients.
        a = conditions.coefficients.flip(1).transpose(1, 2).unsqueeze(3)
        prediction = torch.matmul(windows, a).flatten(1)
        residual = audio - prediction
        inputs += [prediction / level, _delayed(residual) / gain]
    if model.pitch_taps:
        half = model.pitch_taps // 2
        depth = model.longest_lag + half
        past = F.pad(residual, (depth, 0))
        index = torch.arange(depth, past.shape[1], device=past.device) - conditions.lags
        for tap in range(-half, half + 1):
            inputs.append(past.gather(1, index + tap) / gain)
    return torch.stack(inputs, dim=1), prediction, gain


class Past:
    """The inputs of a generation, sample by sample, and the past that they depend on.

    Args:
        model: what generates.
        batch: number of items.
        like: of the device and dtype to compute in.
    """

    def __init__(self, model: Predictive, batch: int, like: Tensor) -> None:
        self.model = model
        self.reach = max(model.order, 1)
        self.depth = model.longest_lag + model.pitch_taps // 2 if model.pitch_taps else 1
        self.audio = like.new_zeros(batch, self.reach)
        """Samples, the first `reach` of them before the chunk, (batch, reach + samples)."""
        self.residual = like.new_zeros(batch, self.depth)
        """Residuals of linear prediction, (batch, depth + samples); without it, the samples."""

    def begin(self, conditions: Conditions) -> None:
        """Make room for the samples of a chunk."""
        samples = conditions.lags.shape[1]
        self.coefficients = conditions.coefficients.to(self.audio).flip(1)
        self.gain, self.level = conditions.gain.to(self.audio), conditions.level.to(self.audio)
        self.lags = conditions.lags.to(self.audio.device)
        self.audio = F.pad(self.audio[:, -self.reach :], (0, samples))
        self.residual = F.pad(self.residual[:, -self.depth :], (0, samples))

    @property
    def samples(self) -> Tensor:
        """The samples of the chunk, (batch, samples)."""
        return self.audio[:, self.reach :]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What the compiled loops take of this, sharing the memory of samples and residuals."""
        tensors = self.coefficients.transpose(1, 2), self.gain, self.level, self.lags
        # numba compiles for the memory layout it is given.
        return tuple(x.contiguous().numpy() for x in (*tensors, self.audio, self.residual))

    def inputs(self, t: int) -> Tensor:
        """What sample t of the chunk is predicted from, (batch, `n_inputs`)."""
        model, frame = self.model, t // self.model.mel_spec.hop_length
        gain, level = self.gain[:, frame], self.level[:, frame]
        found = [self.audio[:, self.reach + t - 1] / level]
        if model.order:
            window = self.audio[:, t : t + self.reach]
            self.prediction = (window * self.coefficients[..., frame]).sum(dim=1)
            found += [self.prediction / level, self.residual[:, self.depth + t - 1] / gain]
        else:
            self.prediction = torch.zeros_like(gain)
        result = torch.stack(found, dim=1)
        if not model.pitch_taps:
            return result
        half = model.pitch_taps // 2
        taps = torch.arange(-half, half + 1, device=gain.device)
        index = self.depth + t - self.lags[:, t : t + 1] + taps
        return torch.cat([result, self.residual.gather(1, index) / gain.unsqueeze(1)], dim=1)

    def draw(
        self, t: int, parameters: Tensor, choice: Tensor, value: Tensor, temperature: float
    ) -> None:
        """Add sample t, drawn from the network's output for the inputs that came last."""
        output, frame = self.model.output, t // self.model.mel_spec.hop_length
        moved = output.moved(parameters, self.prediction, self.gain[:, frame])
        sample = output.sample(moved, choice, value, temperature)
        self.audio[:, self.reach + t] = sample
        self.residual[:, self.depth + t] = sample - self.prediction


def _delayed(x: Tensor, by: int = 1) -> Tensor:
    """x, (batch, samples), behind zeros; its last sample dropped."""
    return F.pad(x[:, :-1], (by, 0))


__all__ = ["Conditions", "Past", "look_back"]
