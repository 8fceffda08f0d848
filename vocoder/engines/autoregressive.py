"""The loops of the autoregressive models in machine code, sample by sample; see `compiled`."""

from __future__ import annotations

from typing import Any

import numpy as np

from vocoder.nn.mixture import COLDEST, LARGEST_LOG_SCALE, SMALLEST_SCALE, STEP

from .compiled import (
    add,
    copy,
    gate,
    interpolate,
    multiply_add,
    rectify,
    sigmoid,
    tanh,
)
from .jit import jit

_compile = jit({"contract", "nsz"})

_ZERO = np.float32(0)
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_STEP = np.float32(STEP)
_LEVELS = np.float32(1 / STEP)
_SMALLEST_SCALE = np.float32(SMALLEST_SCALE)
_COLDEST = np.float32(COLDEST)
_LARGEST_LOG_SCALE = np.float32(LARGEST_LOG_SCALE)

# Samples for which the past taps of a layer are computed at once.
_BLOCK = 16


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


@_compile
def recur(from_input: Any, from_state: Any, h: Any) -> None:
    """h = the next state of a GRU from W x + b and U h + b', each in the order r, z, n."""
    size = h.shape[0]
    input_z, input_n = from_input[size:], from_input[2 * size :]
    state_z, state_n = from_state[size:], from_state[2 * size :]
    for c in range(size):
        r = sigmoid(from_input[c] + from_state[c])
        z = sigmoid(input_z[c] + state_z[c])
        n = tanh(input_n[c] + r * state_n[c])
        h[c] = n + z * (h[c] - n)


@_compile
def wavernn(
    start_weight: Any,
    state_weight: Any,
    state_bias: Any,
    first_weight: Any,
    first_bias: Any,
    last_weight: Any,
    last_bias: Any,
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
    hidden: Any,
) -> None:
    """The samples of WaveRNN; changes ``hidden``, ``audio`` and ``residual`` in place.

    Args, with a state of H channels:
        start_weight: (inputs, 3 H), what the inputs add to the gates.
        state_weight, state_bias: (H, 3 H) and (3 H,), what the state does.
        first_weight, first_bias, last_weight, last_bias: the head.
        condition: (batch, frames + 2, 3 H), what the mel adds to the gates, bias included.
        weights: (3, hop), of `LinearUpsampling`.
        choice, value: (batch, samples), the noise.
        pitch_taps, coefficients, gain, level, lags, audio, residual: as in `wavenet`.
        hidden: (batch, H).
    """
    batch, samples, hop = audio.shape[0], choice.shape[1], weights.shape[1]
    reach, depth = audio.shape[1] - samples, residual.shape[1] - samples
    inputs = np.empty(start_weight.shape[0], np.float32)
    prediction = np.empty(batch, np.float32)
    from_input = np.empty((batch, state_bias.shape[0]), np.float32)
    from_state = np.empty((batch, state_bias.shape[0]), np.float32)
    middle = np.empty((batch, first_bias.shape[0]), np.float32)
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
            interpolate(condition[item], own, weights, t % hop, 0, from_input[item])
            weigh(inputs, start_weight, from_input[item])
            copy(state_bias, from_state[item])
            copy(first_bias, middle[item])
            copy(last_bias, parameters[item])
        multiply_add(hidden, state_weight, from_state, 0, batch)
        for item in range(batch):
            recur(from_input[item], from_state[item], hidden[item])
        multiply_add(hidden, first_weight, middle, 0, batch)
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
