"""WaveNet's loop over samples in machine code: numba, float32, one core.

Imported on first use, since compilation takes some seconds (see `vocoder.backends.jit`). Matrices
are (in, out), so that inner loops run along memory; sums are contracted to fused multiply-adds and
otherwise keep the written order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.nn.mixture import COLDEST, LOG_SCALES, SMALLEST_SCALE, STEP
from vocoder.nn.networks import CausalGatedStack

from .jit import jit

Floats = NDArray[np.float32]

_compile = jit({"contract", "nsz"})
_inner = jit({"contract", "nsz"}, inner=True)

# A Python float among float32 values would make numba compute in float64.
_ZERO, _QUARTER, _HALF, _ONE, _TWO = (np.float32(x) for x in (0, 0.25, 0.5, 1, 2))
_SATURATED = np.float32(9)
# Numerator and denominator of the [5/6] Pade approximant of tanh, from Lambert's fraction.
_P2, _P4 = np.float32(1260 / 10395), np.float32(21 / 10395)
_Q2, _Q4, _Q6 = np.float32(4725 / 10395), np.float32(210 / 10395), np.float32(1 / 10395)
_STEP, _LEVELS = np.float32(STEP), np.float32(1 / STEP)
_SMALLEST_SCALE, _COLDEST = np.float32(SMALLEST_SCALE), np.float32(COLDEST)
_LOWEST, _HIGHEST = (np.float32(x) for x in LOG_SCALES)


class Weights(NamedTuple):
    """A `CausalGatedStack` of L layers of C channels and K taps."""

    start: Floats  # (inputs, C)
    start_bias: Floats  # (C,)
    dilated: Floats  # (L, K * C, 2 C), the oldest tap first
    out: Floats  # residual and skip, (L, C, 2 C)
    out_bias: Floats  # (L, 2 C)
    first: Floats  # of the two convolutions of the head
    first_bias: Floats
    last: Floats
    last_bias: Floats
    dilations: NDArray[np.int64]  # (L,)
    interpolation: Floats  # weights of `LinearUpsampling`, (3, hop)

    @classmethod
    def of(cls, stack: CausalGatedStack) -> Self:
        channels, layers = stack.channels, stack.n_layers
        # The last layer has no residual; the scale of the sum of skips goes into the weights.
        out = np.zeros((layers, channels, 2 * channels), np.float32)
        out_bias = np.zeros((layers, 2 * channels), np.float32)
        for layer, convolution in enumerate(stack.residual_skip):
            weight, bias = _matrix(convolution)
            out[layer, :, -weight.shape[1] :], out_bias[layer, -len(bias) :] = weight, bias
        for skips in (out[:, :, channels:], out_bias[:, channels:]):
            skips /= np.float32(math.sqrt(layers))
        taps = [_matrix(layer)[0] for layer in stack.dilated]
        return cls(
            *_matrix(stack.start),
            np.stack(taps),
            out,
            out_bias,
            *_matrix(stack.head[1]),
            *_matrix(stack.head[3]),
            np.array(stack.dilations),
            array(stack.upsampling.weights),
        )


class Frames(NamedTuple):
    """What the mel says of some frames, and the noise of their samples."""

    conditions: Floats  # of all layers, (frames + 2, L * 2 C): one frame more on each side
    coefficients: Floats  # of linear prediction, the newest sample's last, (frames, order)
    gain: Floats  # (frames,)
    level: Floats  # (frames,)
    lags: NDArray[np.int64]  # (samples,)
    choice: Floats  # noise of `LogisticMixture.sample`, (samples,)
    value: Floats


class Utterance:
    """An utterance in progress; keeps what the next frames need of those before.

    Args:
        weights: of the network.
        order: of linear prediction.
        pitch_taps: residuals around one pitch period back among the network's inputs.
        longest_lag: the longest pitch period, in samples.
        temperature: of the noise.
    """

    def __init__(
        self, weights: Weights, order: int, pitch_taps: int, longest_lag: int, temperature: float
    ) -> None:
        _, inputs, width = weights.dilated.shape
        past = inputs // (width // 2) - 1
        self._weights, self._pitch_taps = weights, pitch_taps
        self._temperature = np.float32(temperature)
        # Inputs of each layer, in its first (K - 1) * dilation rows; the rest is never touched.
        rows = past * int(weights.dilations.max())
        self._rings = np.zeros((len(weights.dilations), rows, width // 2), np.float32)
        self._audio = np.zeros(order, np.float32)
        self._residual = np.zeros(longest_lag + pitch_taps // 2, np.float32)
        self._clock = 0

    def push(self, frames: Frames) -> Floats:
        """The samples of the next frames."""
        samples, order, depth = len(frames.value), len(self._audio), len(self._residual)
        audio, residual = (
            np.concatenate([before, np.zeros(samples, np.float32)])
            for before in (self._audio, self._residual)
        )
        run(
            self._weights, frames, self._pitch_taps, self._temperature, self._rings, audio,
            residual, self._clock,
        )  # fmt: skip
        self._audio, self._residual = audio[-order:], residual[-depth:]
        self._clock += samples
        return audio[order:]


def array(tensor: Tensor) -> Any:
    """A tensor's values as a contiguous array on the CPU, float32 if they are floats."""
    tensor = tensor.detach().cpu()
    # numba compiles for the memory layout it is given; gaps would cost vector code.
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()


def _matrix(convolution: nn.Module) -> tuple[Floats, Floats]:
    """Weight (taps * in, out), the oldest tap first, and bias of a convolution."""
    assert isinstance(convolution, nn.Conv1d)
    weight, bias = convolution.weight, convolution.bias
    return array(weight.permute(2, 1, 0).flatten(0, 1)), array(weight[:0] if bias is None else bias)


@_inner
def tanh(x: Any) -> Any:
    """tanh to 3e-7, without a branch or a call, so that loops over it become vector code.

    The Pade approximant p/q of tanh(x/4), then tanh 2u = 2 tanh u / (1 + tanh^2 u) twice; all of
    it in numerators and denominators, for one division.
    """
    u = _QUARTER * min(max(x, -_SATURATED), _SATURATED)
    v = u * u
    p = u * (_ONE + v * (_P2 + v * _P4))
    q = _ONE + v * (_Q2 + v * (_Q4 + v * _Q6))
    s = _TWO * p * q
    c = p * p + q * q
    return _TWO * s * c / (s * s + c * c)


# Loops run over whole vectors: with an offset in the index, numba tests each index for being
# negative, and does not vectorise.


@_inner
def copy(x: Any, y: Any) -> None:
    """y = x."""
    for c in range(x.shape[0]):
        y[c] = x[c]


@_inner
def add(x: Any, y: Any) -> None:
    """y += x."""
    for c in range(x.shape[0]):
        y[c] += x[c]


@_inner
def rectify(x: Any) -> None:
    """x = max(x, 0)."""
    for c in range(x.shape[0]):
        x[c] = max(x[c], _ZERO)


@_compile
def gate(a: Any, b: Any, y: Any) -> None:
    """y = tanh(a) * sigmoid(b)."""
    for c in range(y.shape[0]):
        y[c] = tanh(a[c]) * (_HALF + _HALF * tanh(_HALF * b[c]))


@_inner
def multiply_add(x: Any, w: Any, y: Any) -> None:
    """y += x @ w; four inputs at a time, to load and store y less often."""
    n, m = w.shape
    fours = n - n % 4
    for i in range(0, fours, 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
        for o in range(m):
            y[o] += x0 * w0[o] + x1 * w1[o] + x2 * w2[o] + x3 * w3[o]
    for i in range(fours, n):
        xi, wi = x[i], w[i]
        for o in range(m):
            y[o] += xi * wi[o]


@_inner
def interpolate(own: Any, weight: Any, other: Any, share: Any, out: Any) -> None:
    """out = weight * own + share * other."""
    for o in range(out.shape[0]):
        out[o] = weight * own[o] + share * other[o]


@_inner
def draw(output: Any, choice: Any, value: Any, temperature: Any, centre: Any, gain: Any) -> Any:
    """A sample of `LogisticMixture.of` the output of the network."""
    m = output.shape[0] // 3
    index = 0
    for i in range(1, m):
        if output[i] > output[index]:
            index = i
    if m > 1 and temperature >= _COLDEST:
        highest = output[index]
        total = cumulative = _ZERO
        for i in range(m):
            total += np.exp((output[i] - highest) / temperature)
        for index in range(m):
            cumulative += np.exp((output[index] - highest) / temperature) / total
            if cumulative > choice:
                break
    log_scale = min(max(output[2 * m + index], _LOWEST), _HIGHEST)
    scale = _SMALLEST_SCALE + gain * np.exp(log_scale)
    x = centre + gain * output[m + index] + temperature * scale * value
    level = np.floor(x * _LEVELS + _HALF)
    return _STEP * min(max(level, -_LEVELS), _LEVELS - _ONE)


@_compile
def run(
    weights: Any, frames: Any, pitch_taps: int, temperature: Any, rings: Any, audio: Any,
    residual: Any, clock: int,
) -> None:  # fmt: skip
    """The samples of some frames: fills ``audio`` and ``residual`` behind those before them.

    Args:
        weights, frames: `Weights` and `Frames`.
        pitch_taps, temperature: as in `Utterance`.
        rings: (L, rows, C).
        audio: (order + samples,).
        residual: audio without its linear prediction, (longest lag + pitch_taps // 2 + samples,).
        clock: number of samples before.
    """
    samples, hop = frames.value.shape[0], weights.interpolation.shape[1]
    order, depth = frames.coefficients.shape[1], residual.shape[0] - samples
    n_layers, taps = rings.shape[0], weights.dilated.shape[1] // rings.shape[2]
    channels, width = rings.shape[2], 2 * rings.shape[2]
    inputs = np.empty(weights.start.shape[0], np.float32)
    hidden = np.empty(channels, np.float32)
    seen = np.empty(taps * channels, np.float32)
    gates = np.empty(width, np.float32)
    gated = np.empty(channels, np.float32)
    out = np.empty(width, np.float32)
    skips = np.empty(channels, np.float32)
    output = np.empty(weights.last_bias.shape[0], np.float32)
    for t in range(samples):
        frame, j = t // hop, t % hop
        gain, level = frames.gain[frame], frames.level[frame]
        prediction = _ZERO
        for k in range(order):
            prediction += frames.coefficients[frame, k] * audio[t + k]
        inputs[0] = audio[t + order - 1] / level
        inputs[1] = prediction / level
        inputs[2] = residual[depth + t - 1] / gain
        oldest = depth + t - frames.lags[t] - pitch_taps // 2
        for tap in range(pitch_taps):
            inputs[3 + tap] = residual[oldest + tap] / gain
        copy(weights.start_bias, hidden)
        multiply_add(inputs, weights.start, hidden)
        skips[:] = _ZERO
        # One of the two neighbours of a frame has weight 0.
        back, weight, ahead = weights.interpolation[:, j]
        own = frames.conditions[frame + 1]
        other = frames.conditions[frame if back > 0 else frame + 2]
        for layer in range(n_layers):
            dilation, ring = weights.dilations[layer], rings[layer]
            for tap in range(taps - 1):
                slot = (clock + t + tap * dilation) % ((taps - 1) * dilation)
                copy(ring[slot], seen[tap * channels :])
            copy(hidden, seen[(taps - 1) * channels :])
            copy(hidden, ring[(clock + t) % ((taps - 1) * dilation)])
            begin = layer * width
            interpolate(own[begin:], weight, other[begin:], max(back, ahead), gates)
            multiply_add(seen, weights.dilated[layer], gates)
            gate(gates[:channels], gates[channels:], gated)
            copy(weights.out_bias[layer], out)
            multiply_add(gated, weights.out[layer], out)
            add(out[:channels], hidden)
            add(out[channels:], skips)
        rectify(skips)
        copy(weights.first_bias, hidden)
        multiply_add(skips, weights.first, hidden)
        rectify(hidden)
        copy(weights.last_bias, output)
        multiply_add(hidden, weights.last, output)
        noise = frames.choice[t], frames.value[t]
        sample = draw(output, noise[0], noise[1], temperature, prediction, gain)
        audio[order + t] = sample
        residual[depth + t] = sample - prediction
