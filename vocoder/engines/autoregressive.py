"""WaveNet's loop over samples in machine code: numba, float32, one core.

Imported on first use, since compilation takes some seconds (see `vocoder.engines.jit`). Matrices
are (in, out), so that inner loops run along memory; sums are contracted to fused multiply-adds and
otherwise keep the written order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vocoder.nn.mixture import COLDEST, LARGEST_LOG_SCALE, SMALLEST_SCALE, STEP

from .jit import jit

Floats = NDArray[np.float32]

_compile = jit({"contract", "nsz"})

# A Python float among float32 values would make numba compute in float64.
_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_TWO = np.float32(2)
_QUARTER = np.float32(0.25)
_SATURATED = np.float32(9)
# Numerator and denominator of the [5/6] Pade approximant of tanh, from Lambert's fraction.
_P2, _P4 = np.float32(1260 / 10395), np.float32(21 / 10395)
_Q2, _Q4, _Q6 = np.float32(4725 / 10395), np.float32(210 / 10395), np.float32(1 / 10395)
_STEP = np.float32(STEP)
_LEVELS = np.float32(1 / STEP)
_SMALLEST_SCALE = np.float32(SMALLEST_SCALE)
_COLDEST = np.float32(COLDEST)
_LARGEST_LOG_SCALE = np.float32(LARGEST_LOG_SCALE)

# Samples for which the past taps of a layer are computed at once.
_BLOCK = 16


def array(tensor: Tensor) -> Floats:
    """A tensor's values as a contiguous float32 array on the CPU."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


@_compile
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


@_compile
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), by way of `tanh`."""
    return _HALF + _HALF * tanh(_HALF * x)


# Loops run over whole vectors: with an offset in the index, numba tests each index for being
# negative, and does not vectorise.


@_compile
def copy(x: Any, y: Any) -> None:
    """y = x."""
    for c in range(x.shape[0]):
        y[c] = x[c]


@_compile
def add(x: Any, y: Any) -> None:
    """y += x."""
    for c in range(x.shape[0]):
        y[c] += x[c]


@_compile
def rectify(x: Any) -> None:
    """x = max(x, 0)."""
    for c in range(x.shape[0]):
        x[c] = max(x[c], _ZERO)


@_compile
def gate(a: Any, b: Any, y: Any) -> None:
    """y = tanh(a) * sigmoid(b)."""
    for c in range(y.shape[0]):
        y[c] = tanh(a[c]) * sigmoid(b[c])


@_compile
def multiply_add(x: Any, w: Any, y: Any, first: int, rows: int) -> None:
    """y[first + r] += x[r] @ w for r < rows; x (.., in), w (in, out), y (.., out).

    Four rows and four inputs at a time: w is the largest operand, so it is read once for as many
    rows as fit in registers.
    """
    n, m = w.shape
    fours = n - n % 4
    r = 0
    while r + 4 <= rows:
        a, b, c, d = y[first + r], y[first + r + 1], y[first + r + 2], y[first + r + 3]
        for i in range(0, fours, 4):
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            b0, b1, b2, b3 = x[r + 1, i], x[r + 1, i + 1], x[r + 1, i + 2], x[r + 1, i + 3]
            c0, c1, c2, c3 = x[r + 2, i], x[r + 2, i + 1], x[r + 2, i + 2], x[r + 2, i + 3]
            d0, d1, d2, d3 = x[r + 3, i], x[r + 3, i + 1], x[r + 3, i + 2], x[r + 3, i + 3]
            for o in range(m):
                w0, w1, w2, w3 = w[i, o], w[i + 1, o], w[i + 2, o], w[i + 3, o]
                a[o] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                b[o] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                c[o] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                d[o] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
        r += 4
    while r < rows:
        a = y[first + r]
        for i in range(0, fours, 4):
            a0, a1, a2, a3 = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            for o in range(m):
                a[o] += a0 * w[i, o] + a1 * w[i + 1, o] + a2 * w[i + 2, o] + a3 * w[i + 3, o]
        r += 1
    for i in range(fours, n):
        for r in range(rows):
            for o in range(m):
                y[first + r, o] += x[r, i] * w[i, o]


@_compile
def interpolate(frames: Any, frame: int, weights: Any, j: int, begin: int, out: Any) -> None:
    """out = channels from ``begin`` on of sample j of a frame, as in `LinearUpsampling`.

    ``frames`` (frames + 2, channels) begin one frame earlier.
    """
    # One of the two neighbours has weight 0.
    own = frames[frame + 1][begin:]
    other = frames[frame if weights[0, j] > 0 else frame + 2][begin:]
    weight, share = weights[1, j], max(weights[0, j], weights[2, j])
    for o in range(out.shape[0]):
        out[o] = weight * own[o] + share * other[o]


@_compile
def draw(
    parameters: Any,
    m: int,
    choice: Any,
    value: Any,
    temperature: Any,
    centre: Any,
    gain: Any,
) -> Any:
    """`DiscretisedMixture.moved` and `sample` for one item: audio on the 16-bit grid."""
    index = 0
    for i in range(1, m):
        if parameters[i] > parameters[index]:
            index = i
    if m > 1 and temperature >= _COLDEST:
        highest = parameters[index]
        total = _ZERO
        for i in range(m):
            total += np.exp((parameters[i] - highest) / temperature)
        cumulative = _ZERO
        for index in range(m):
            cumulative += np.exp((parameters[index] - highest) / temperature) / total
            if cumulative > choice:
                break
    size = parameters.shape[0]
    log_scale = parameters[size - m + index] + np.log(gain)
    scale = _SMALLEST_SCALE + np.exp(min(log_scale, _LARGEST_LOG_SCALE))
    x = centre + gain * parameters[size - 2 * m + index] + temperature * scale * value
    level = np.floor(x * _LEVELS + _HALF)
    return _STEP * min(max(level, -_LEVELS), _LEVELS - _ONE)


@_compile
def look_back(
    audio: Any,
    residual: Any,
    coefficients: Any,
    gain: Any,
    level: Any,
    lag: int,
    pitch_taps: int,
    inputs: Any,
) -> Any:
    """`Past.inputs` of one item: writes ``inputs``, returns the prediction.

    ``audio`` and ``residual`` end before the sample that is predicted.
    """
    newest, order = audio.shape[0] - 1, coefficients.shape[0]
    inputs[0] = audio[newest] / level
    prediction = _ZERO
    first = 1
    if order > 0:
        oldest = newest - order + 1
        for k in range(order):
            prediction += coefficients[k] * audio[oldest + k]
        inputs[1] = prediction / level
        inputs[2] = residual[residual.shape[0] - 1] / gain
        first = 3
    begin = residual.shape[0] - lag - pitch_taps // 2
    for tap in range(pitch_taps):
        inputs[first + tap] = residual[begin + tap] / gain
    return prediction


@_compile
def weigh(inputs: Any, weight: Any, y: Any) -> None:
    """y += inputs @ weight, for few inputs."""
    for i in range(inputs.shape[0]):
        w, x = weight[i], inputs[i]
        for c in range(y.shape[0]):
            y[c] += x * w[c]


@_compile
def draw_all(
    parameters: Any,
    n_mixtures: int,
    choice: Any,
    value: Any,
    temperature: Any,
    prediction: Any,
    gain: Any,
    audio: Any,
    residual: Any,
) -> None:
    """The next sample of each item into ``audio``, its residual into ``residual``; (batch,)."""
    for item in range(prediction.shape[0]):
        centre = prediction[item]
        sample = draw(
            parameters[item],
            n_mixtures,
            choice[item],
            value[item],
            temperature,
            centre,
            gain[item],
        )
        audio[item] = sample
        residual[item] = sample - centre


@_compile
def wavenet(
    start_weight: Any,
    start_bias: Any,
    past_weight: Any,
    now_weight: Any,
    out_weight: Any,
    out_bias: Any,
    first_weight: Any,
    first_bias: Any,
    last_weight: Any,
    last_bias: Any,
    dilations: Any,
    ring_start: Any,
    rings: Any,
    condition: Any,
    weights: Any,
    choice: Any,
    value: Any,
    temperature: Any,
    n_mixtures: int,
    pitch_taps: int,
    coefficients: Any,
    gain: Any,
    level: Any,
    lags: Any,
    audio: Any,
    residual: Any,
    clock: int,
) -> None:
    """The samples of WaveNet; changes ``rings``, ``audio`` and ``residual`` in place.

    Args, with L layers of C channels and K taps:
        start_weight, start_bias: (inputs, C) and (C,).
        past_weight: (L, (K - 1) * C, 2 C), taps from the oldest to the last before now.
        now_weight: (L, C, 2 C), the tap on the present.
        out_weight, out_bias: (L, C, 2 C) and (L, 2 C), residual and skip.
        first_weight, first_bias, last_weight, last_bias: the two convolutions of the head.
        dilations: (L,).
        ring_start: (L + 1,); rows [ring_start[l], ring_start[l + 1]) of ``rings`` are the ring
            of layer l, (K - 1) * dilation samples long.
        rings: (rows, batch, C).
        condition: (batch, frames + 2, L * 2 C).
        weights: (3, hop), of `LinearUpsampling`.
        choice, value: (batch, samples), the noise.
        pitch_taps: residuals around one pitch period back among the inputs.
        coefficients, gain, level: of each frame, (batch, frames, order), (batch, frames) and
            (batch, frames); the coefficient of the newest sample comes last.
        lags: (batch, samples).
        audio, residual: as in `vocoder.models.past.Past`.
        clock: number of samples generated before.
    """
    n_layers, channels = now_weight.shape[0], now_weight.shape[1]
    taps = past_weight.shape[1] // channels
    batch, hop, samples = audio.shape[0], weights.shape[1], choice.shape[1]
    reach, depth = audio.shape[1] - samples, residual.shape[1] - samples
    width = 2 * channels
    inputs = np.empty(start_weight.shape[0], np.float32)
    prediction = np.empty(batch, np.float32)
    gates = np.empty((n_layers, _BLOCK * batch, width), np.float32)
    past = np.empty((_BLOCK * batch, taps * channels), np.float32)
    hidden = np.empty((batch, channels), np.float32)
    gated = np.empty((batch, channels), np.float32)
    out = np.empty((batch, width), np.float32)
    skip = np.empty((batch, channels), np.float32)
    middle = np.empty((batch, channels), np.float32)
    parameters = np.empty((batch, last_bias.shape[0]), np.float32)
    for t in range(samples):
        own = t // hop
        for item in range(batch):
            prediction[item] = look_back(
                audio[item, : reach + t],
                residual[item, : depth + t],
                coefficients[item, own],
                gain[item, own],
                level[item, own],
                lags[item, t],
                pitch_taps,
                inputs,
            )
            copy(start_bias, hidden[item])
            weigh(inputs, start_weight, hidden[item])
            for c in range(channels):
                skip[item, c] = _ZERO
        for layer in range(n_layers):
            dilation = dilations[layer]
            begin = ring_start[layer]
            length = ring_start[layer + 1] - begin
            block = min(dilation, _BLOCK)
            row = t % block
            if row == 0:
                # The past that samples t to t + block - 1 need in this layer is complete.
                size = min(block, samples - t)
                for ahead in range(size):
                    frame = (t + ahead) // hop
                    j = (t + ahead) % hop
                    for item in range(batch):
                        target = ahead * batch + item
                        into = gates[layer, target]
                        interpolate(condition[item], frame, weights, j, layer * width, into)
                        for tap in range(taps):
                            slot = begin + (clock + t + ahead + tap * dilation) % length
                            copy(rings[slot, item], past[target][tap * channels :])
                multiply_add(past, past_weight[layer], gates[layer], 0, size * batch)
            slot = begin + (clock + t) % length
            multiply_add(hidden, now_weight[layer], gates[layer], row * batch, batch)
            for item in range(batch):
                copy(hidden[item], rings[slot, item])
                now = gates[layer, row * batch + item]
                gate(now[:channels], now[channels:], gated[item])
                copy(out_bias[layer], out[item])
            multiply_add(gated, out_weight[layer], out, 0, batch)
            for item in range(batch):
                add(out[item][:channels], hidden[item])
                add(out[item][channels:], skip[item])
        for item in range(batch):
            rectify(skip[item])
            copy(first_bias, middle[item])
            copy(last_bias, parameters[item])
        multiply_add(skip, first_weight, middle, 0, batch)
        for item in range(batch):
            rectify(middle[item])
        multiply_add(middle, last_weight, parameters, 0, batch)
        draw_all(
            parameters,
            n_mixtures,
            choice[:, t],
            value[:, t],
            temperature,
            prediction,
            gain[:, own],
            audio[:, reach + t],
            residual[:, depth + t],
        )
