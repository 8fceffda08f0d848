"""WaveNet's loop over samples in machine code: float32, one core; matrices are (in, out)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.nn.wavenet import COLDEST, LOG_SCALES, SMALLEST_SCALE, STEP, CausalGatedStack

from . import jit

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
    interpolation: Floats  # (3, hop)

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
        first, last = _matrix(stack.head[1]), _matrix(stack.head[3])
        grid = np.array(stack.dilations), array(stack.interpolation)
        return cls(*_matrix(stack.start), np.stack(taps), out, out_bias, *first, *last, *grid)


class Frames(NamedTuple):
    """What the mel says of some frames, and the noise of their samples."""

    conditions: Floats  # of all layers, (frames + 2, L, 2 C): one frame more on each side
    coefficients: Floats  # of linear prediction, the newest sample's last, (frames, order)
    gain: Floats  # (frames,)
    level: Floats  # (frames,)
    lags: NDArray[np.int64]  # (samples,)
    choice: Floats  # noise of `LogisticMixture.sample`, (samples,)
    value: Floats


class State(NamedTuple):
    """What the next frames of an utterance need of those before."""

    rings: Floats  # inputs of each layer, in the first (K - 1) * dilation of (L, rows, C)
    audio: Floats  # the last samples, as many as the order of linear prediction
    residual: Floats  # audio without its linear prediction, (longest lag + pitch_taps // 2,)

    @classmethod
    def of(cls, weights: Weights, order: int, residual: int) -> Self:
        """That of the first frame: silence."""
        _, inputs, width = weights.dilated.shape
        rows = (inputs // (width // 2) - 1) * int(weights.dilations.max())
        shapes = (len(weights.dilations), rows, width // 2), order, residual
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))


def array(tensor: Tensor) -> Any:
    """A tensor's values as a contiguous array, which numba compiles for; floats as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()


def _matrix(convolution: nn.Module) -> tuple[Floats, Floats]:
    """Weight (taps * in, out), the oldest tap first, and bias of a convolution."""
    assert isinstance(convolution, nn.Conv1d)
    weight, bias = convolution.weight, convolution.bias
    return array(weight.permute(2, 1, 0).flatten(0, 1)), array(weight[:0] if bias is None else bias)


@_inner
def tanh(x: Any) -> Any:
    """tanh to 3e-7: Pade's of tanh(x/4), then tanh 2u = 2 tanh u / (1 + tanh^2 u) twice."""
    u = _QUARTER * min(max(x, -_SATURATED), _SATURATED)
    v = u * u
    p = u * (_ONE + v * (_P2 + v * _P4))
    q = _ONE + v * (_Q2 + v * (_Q4 + v * _Q6))
    s = _TWO * p * q
    c = p * p + q * q
    return _TWO * s * c / (s * s + c * c)


# Loops run over whole vectors: with an offset in the index, numba tests each index for being
# negative, and does not vectorise. Expressions of arrays would allocate.


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
    weights: Any, frames: Any, state: Any, pitch_taps: int, temperature: Any, clock: int
) -> Any:
    """The samples of some frames, of which the first has index `clock`; changes the state."""
    samples, hop = frames.value.shape[0], weights.interpolation.shape[1]
    order, depth = state.audio.shape[0], state.residual.shape[0]
    audio = np.concatenate((state.audio, np.empty(samples, np.float32)))
    residual = np.concatenate((state.residual, np.empty(samples, np.float32)))
    n_layers, _, channels = state.rings.shape
    taps = weights.dilated.shape[1] // channels
    inputs = np.empty(weights.start.shape[0], np.float32)
    hidden = np.empty(channels, np.float32)
    seen = np.empty(taps * channels, np.float32)
    gates = np.empty(2 * channels, np.float32)
    gated = np.empty(channels, np.float32)
    out = np.empty(2 * channels, np.float32)
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
        hidden[:] = weights.start_bias
        multiply_add(inputs, weights.start, hidden)
        skips[:] = _ZERO
        # One of the two neighbours of a frame has weight 0.
        back, weight, ahead = weights.interpolation[:, j]
        own, share = frames.conditions[frame + 1], max(back, ahead)
        other = frames.conditions[frame if back > 0 else frame + 2]
        for layer in range(n_layers):
            dilation, ring = weights.dilations[layer], state.rings[layer]
            rows = (taps - 1) * dilation
            for tap in range(taps - 1):
                row = ring[(clock + t + tap * dilation) % rows]
                seen[tap * channels : (tap + 1) * channels] = row
            seen[(taps - 1) * channels :] = hidden
            ring[(clock + t) % rows] = hidden
            mine, theirs = own[layer], other[layer]
            for o in range(gates.shape[0]):
                gates[o] = weight * mine[o] + share * theirs[o]
            multiply_add(seen, weights.dilated[layer], gates)
            gate(gates[:channels], gates[channels:], gated)
            out[:] = weights.out_bias[layer]
            multiply_add(gated, weights.out[layer], out)
            change, skip = out[:channels], out[channels:]
            for c in range(channels):
                hidden[c] += change[c]
                skips[c] += skip[c]
        hidden[:] = weights.first_bias
        multiply_add(np.maximum(skips, _ZERO), weights.first, hidden)
        output[:] = weights.last_bias
        multiply_add(np.maximum(hidden, _ZERO), weights.last, output)
        sample = draw(output, frames.choice[t], frames.value[t], temperature, prediction, gain)
        audio[order + t] = sample
        residual[depth + t] = sample - prediction
    state.audio[:], state.residual[:] = audio[samples:], residual[samples:]
    return audio[order:]
