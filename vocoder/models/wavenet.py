"""WaveNet: the autoregressive baseline, with three ways to generate from it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec
from vocoder.nn import CausalGatedStack, Distribution

from .autoregressive import INPUT_GAIN, AutoregressiveVocoder, Session


class WaveNet(AutoregressiveVocoder):
    r"""WaveNet with a mixture output, conditioned on the mel spectrogram.

    .. math:: P(q_t \mid q_{<t}, m) = \mathrm{Mixture}\bigl(q_t;\;
        g(x_{t-1}, x_{t-2}, \dots, x_{t-R}, c_t(m))\bigr)

    g is a `CausalGatedStack` with a receptive field of R = (kernel_size - 1) * (sum of the
    dilations) + 1 samples (6,139 by default: 278 ms at 22,050 Hz), and c the features that a small
    convolutional network makes of the mel, interpolated between the middles of the frames.
    `AutoregressiveVocoder` defines likelihood and temperature.

    The engines: "naive" computes the whole receptive field anew for every sample; "cached" keeps
    each layer's past in a ring buffer and computes one step per sample, in PyTorch; "compiled" is
    that step and the loop around it in machine code (numba), where in a layer with a dilation of n
    samples the past taps of up to n samples are one matrix product, n at most 16.

    Papers: WaveNet (van den Oord et al., 2016); Fast WaveNet (Le Paine et al., 2016) for the ring
    buffers; Tacotron 2 (Shen et al., 2018) for logistics on mels. The default has the 30 layers
    of 128 channels of the baseline in DiffWave (Kong et al., 2021), which has a single Gaussian:
    ``distribution="gaussian", n_mixtures=1``.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        distribution, n_mixtures: of the output (see `DiscretisedMixture`).
        channels, n_layers, cycle, kernel_size: width, depth, layers per cycle of dilations and taps
            (see `CausalGatedStack`).
        condition_channels, condition_kernel_size: width and taps of the network on the mel.

    Raises:
        ValueError: a size is out of range; the message names it.
    """

    family = "wavenet"
    engines = ("compiled", "cached", "naive")

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        distribution: Distribution = "logistic",
        n_mixtures: int = 10,
        channels: int = 128,
        n_layers: int = 30,
        cycle: int = 10,
        kernel_size: int = 3,
        condition_channels: int = 80,
        condition_kernel_size: int = 5,
    ) -> None:
        super().__init__(
            mel_spec, distribution, n_mixtures, condition_channels, condition_kernel_size
        )
        self.stack = CausalGatedStack(
            condition_channels=condition_channels,
            out_channels=self.output.n_parameters,
            hop=self.mel_spec.hop_length,
            channels=channels,
            n_layers=n_layers,
            cycle=cycle,
            kernel_size=kernel_size,
        )
        (last,) = _convolutions([self.stack.head[-1]])
        self.output.start(last.weight, _bias(last))
        with torch.no_grad():
            self.stack.start.weight.mul_(INPUT_GAIN)

    def predict(self, previous: Tensor, features: Tensor) -> Tensor:
        result: Tensor = self.stack(previous, features)
        return result

    def _begin(self, engine: str, batch: int, temperature: float) -> Session:
        if engine == "naive":
            return _Naive(self, batch, temperature)
        if engine == "cached":
            return _Cached(self, batch, temperature)
        return _Compiled(self, batch, temperature)


class _Naive:
    """Every sample from a pass over its whole receptive field."""

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        self.model = model
        self.temperature = temperature
        self.audio = torch.zeros(batch, 0, device=model.device, dtype=model.dtype)
        self.features: Tensor | None = None

    def __call__(self, features: Tensor, choice: Tensor, value: Tensor) -> Tensor:
        model, hop = self.model, self.model.mel_spec.hop_length
        if self.features is not None:
            features = torch.cat([self.features[..., :-2], features], dim=-1)
        past = self.audio.shape[1]
        audio = F.pad(self.audio, (0, len(value)))
        choice, value = choice.to(audio), value.to(audio)
        for j in range(len(value)):
            t = past + j
            begin = max(0, t - model.stack.receptive_field + 1) // hop  # frame
            first = begin * hop
            previous = audio[:, max(first - 1, 0) : t]
            previous = F.pad(previous, (t + 1 - first - previous.shape[1], 0))
            frames = features[..., begin : t // hop + 3]
            parameters = model.predict(previous.unsqueeze(1), frames)[..., -1]
            audio[:, t] = model.output.sample(parameters, choice[j], value[j], self.temperature)
        kept = math.ceil((model.stack.receptive_field + 1) / hop)
        self.audio = audio[:, -kept * hop :]
        self.features = features[..., -kept - 2 :]
        return audio[:, past:]


class _Cached:
    """One step per sample; ring buffers hold the past of each layer."""

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        stack = model.stack
        self.model = model
        self.temperature = temperature
        self.previous = torch.zeros(batch, 1, device=model.device, dtype=model.dtype)
        self.clock = 0
        self.taps = [
            layer.weight.permute(2, 1, 0).flatten(0, 1).contiguous()  # oldest tap first
            for layer in _convolutions(stack.dilated)
        ]
        self.residual_skip = [
            (layer.weight.squeeze(-1), layer.bias) for layer in _convolutions(stack.residual_skip)
        ]
        self.rings = [
            self.previous.new_zeros((stack.kernel_size - 1) * dilation, batch, stack.channels)
            for dilation in stack.dilations
        ]

    def __call__(self, features: Tensor, choice: Tensor, value: Tensor) -> Tensor:
        stack, hop = self.model.stack, self.model.mel_spec.hop_length
        batch, width = self.previous.shape[0], 2 * stack.channels
        choice, value = choice.to(self.previous), value.to(self.previous)
        conditions = stack.condition(features)
        made = []
        for frame in range(features.shape[-1] - 2):
            # At sample rate only a frame at a time: (hop, layers, batch, 2 * channels).
            upsampled = stack.upsampling(conditions[..., frame : frame + 3])
            upsampled = upsampled.reshape(batch, stack.n_layers, width, hop).permute(3, 1, 0, 2)
            for j, condition in enumerate(upsampled.contiguous()):
                t = frame * hop + j
                parameters = self._step(condition)
                sample = self.model.output.sample(parameters, choice[t], value[t], self.temperature)
                self.previous = sample.unsqueeze(1)
                made.append(sample)
        return torch.stack(made, dim=1)

    def _step(self, condition: Tensor) -> Tensor:
        """Parameters of the next sample, (batch, n_parameters), from (layers, batch, 2 C)."""
        stack = self.model.stack
        start = stack.start
        hidden = F.linear(self.previous, start.weight.squeeze(-1), start.bias)
        skip = torch.zeros_like(hidden)
        for layer, dilation in enumerate(stack.dilations):
            ring = self.rings[layer]
            slots = [(self.clock + k * dilation) % len(ring) for k in range(stack.kernel_size - 1)]
            taps = torch.cat([*(ring[slot] for slot in slots), hidden], dim=1)
            ring[slots[0]] = hidden
            a, b = torch.addmm(condition[layer], taps, self.taps[layer]).chunk(2, dim=1)
            out = F.linear(torch.tanh(a) * torch.sigmoid(b), *self.residual_skip[layer])
            if layer < stack.n_layers - 1:
                residual, out = out.chunk(2, dim=1)
                hidden = hidden + residual
            skip = skip + out
        self.clock += 1
        result: Tensor = stack.head((skip / math.sqrt(stack.n_layers)).unsqueeze(-1)).squeeze(-1)
        return result


class _Compiled:
    """The whole loop over samples in machine code, on one core of the CPU."""

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        from . import compiled

        stack = model.stack
        self.model = model
        self.temperature = temperature
        self.previous = np.zeros(batch, np.float32)
        self.clock = 0
        array = compiled.array
        # (K, in, out)
        taps = [array(conv.weight).transpose(2, 1, 0) for conv in _convolutions(stack.dilated)]
        channels = stack.channels
        out_weight = np.zeros((stack.n_layers, channels, 2 * channels), np.float32)
        out_bias = np.zeros((stack.n_layers, 2 * channels), np.float32)
        for layer, conv in enumerate(_convolutions(stack.residual_skip)):
            used = conv.out_channels  # the last layer's has no residual
            out_weight[layer, :, -used:] = array(conv.weight)[:, :, 0].T
            out_bias[layer, -used:] = array(_bias(conv))
        # The scale of the skips' sum belongs to the weights behind it.
        out_weight[:, :, channels:] /= math.sqrt(stack.n_layers)
        out_bias[:, channels:] /= math.sqrt(stack.n_layers)
        first, last = _convolutions([stack.head[1], stack.head[3]])
        dilations = np.array(stack.dilations)
        lengths = (stack.kernel_size - 1) * dilations
        weights = (
            array(stack.start.weight)[:, 0, 0],
            array(_bias(stack.start)),
            np.stack([np.concatenate(tap[:-1]) for tap in taps]),
            np.stack([tap[-1] for tap in taps]),
            out_weight,
            out_bias,
            array(first.weight)[:, :, 0].T,
            array(_bias(first)),
            array(last.weight)[:, :, 0].T,
            array(_bias(last)),
        )
        # numba compiles for the memory layout it is given; gaps would cost vector code.
        self.weights = [np.ascontiguousarray(weight) for weight in weights]
        self.dilations = dilations
        self.ring_start = np.concatenate([[0], np.cumsum(lengths)])
        self.rings = np.zeros((int(lengths.sum()), batch, channels), np.float32)
        self.run = compiled.wavenet

    def __call__(self, features: Tensor, choice: Tensor, value: Tensor) -> Tensor:
        from . import compiled

        # (batch, layers * 2 C, frames + 2) -> (batch, frames + 2, layers * 2 C)
        condition = self.model.stack.condition(features).transpose(1, 2)
        audio = self.run(
            *self.weights,
            self.dilations,
            self.ring_start,
            self.rings,
            compiled.array(condition),
            compiled.array(self.model.stack.upsampling.weights),
            compiled.array(choice),
            compiled.array(value),
            np.float32(self.temperature),
            self.model.output.n_mixtures,
            self.previous,
            self.clock,
        )
        self.clock += len(value)
        return torch.from_numpy(audio).to(features.device)


def _convolutions(layers: Iterable[nn.Module]) -> list[nn.Conv1d]:
    found = [layer for layer in layers if isinstance(layer, nn.Conv1d)]
    assert found
    return found


def _bias(layer: nn.Conv1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


__all__ = ["WaveNet"]
