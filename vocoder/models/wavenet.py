"""WaveNet: the autoregressive baseline, with three ways to generate from it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Refine
from vocoder.nn import CausalGatedStack, Distribution

from .autoregressive import AutoregressiveVocoder, Session
from .past import Conditions, Past


class WaveNet(AutoregressiveVocoder):
    r"""WaveNet with a mixture output, conditioned on the mel spectrogram.

    .. math:: P(q_t \mid q_{<t}, m) = \mathrm{Mixture}\bigl(q_t;\;
        g(x_{t-1}, x_{t-2}, \dots, x_{t-R}, c_t(m))\bigr)

    g is a `CausalGatedStack` with a receptive field of R = (kernel_size - 1) * (sum of the
    dilations) + 1 samples (6,139 by default: 278 ms at 22,050 Hz), and c the features that a small
    convolutional network makes of the mel, interpolated between the middles of the frames.
    `AutoregressiveVocoder` defines likelihood, temperature, linear prediction and pitch taps; with
    the last two, g sees their inputs in place of the samples alone, and its output is the residual.

    The engines: "naive" computes the whole receptive field anew for every sample; "cached" keeps
    each layer's past in a ring buffer and computes one step per sample, in PyTorch; "compiled" is
    that step and its loop in machine code (numba); in a layer of dilation n, the past taps of up
    to n samples (at most 16) are one matrix product.

    Papers: WaveNet (van den Oord et al., 2016); Fast WaveNet (Le Paine et al., 2016) for the ring
    buffers; Tacotron 2 (Shen et al., 2018) for logistics on mels. The default has the 30 layers
    of 128 channels of DiffWave's baseline (Kong et al., 2021), which has a single Gaussian:
    ``distribution="gaussian", n_mixtures=1``.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        distribution, n_mixtures: of the output (see `DiscretisedMixture`).
        channels, n_layers, cycle, kernel_size: width, depth, layers per cycle of dilations and taps
            (see `CausalGatedStack`).
        condition_channels, condition_kernel_size: width and taps of the network on the mel.
        linear_prediction: order K of linear prediction; 0 for none.
        pitch_taps: J, an odd number, or 0 for none; needs mels that show harmonics (`MelPitch`).
        refine: sweeps of mel consistency after the model's own pass unless another number is given
            (see `Vocoder.synthesize`).

    Raises:
        ValueError: a size is out of range; the message names it.
    """

    family = "wavenet"
    title = "WaveNet"
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
        linear_prediction: int = 0,
        pitch_taps: int = 0,
        refine: Refine = 0,
    ) -> None:
        super().__init__(
            mel_spec,
            distribution,
            n_mixtures,
            condition_channels,
            condition_kernel_size,
            linear_prediction,
            pitch_taps,
            refine,
        )
        self.stack = CausalGatedStack(
            condition_channels=condition_channels,
            out_channels=self.output.n_parameters,
            hop=self.mel_spec.hop_length,
            channels=channels,
            n_layers=n_layers,
            cycle=cycle,
            kernel_size=kernel_size,
            in_channels=self.n_inputs,
        )
        (last,) = _convolutions([self.stack.head[-1]])
        self._start(last.weight, _bias(last), self.stack.start.weight)

    def predict(self, inputs: Tensor, features: Tensor) -> Tensor:
        result: Tensor = self.stack(inputs, features)
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
        self.past = Past(model, batch, model.stack.start.weight)
        self.inputs = self.past.audio.new_zeros(batch, model.n_inputs, 0)
        self.features: Tensor | None = None

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        model, past, hop = self.model, self.past, self.model.mel_spec.hop_length
        features = conditions.features
        if self.features is not None:
            features = torch.cat([self.features[..., :-2], features], dim=-1)
        before = self.inputs.shape[2]
        inputs = F.pad(self.inputs, (0, value.shape[1]))
        choice, value = choice.to(inputs), value.to(inputs)
        past.begin(conditions)
        for j in range(value.shape[1]):
            t = before + j
            inputs[..., t] = past.inputs(j)
            begin = max(0, t - model.stack.receptive_field + 1) // hop  # frame
            frames = features[..., begin : t // hop + 3]
            parameters = model.predict(inputs[..., begin * hop : t + 1], frames)[..., -1]
            past.draw(j, parameters, choice[:, j, None], value[:, j], self.temperature)
        kept = math.ceil((model.stack.receptive_field + 1) / hop)
        self.inputs = inputs[..., -kept * hop :]
        self.features = features[..., -kept - 2 :]
        return past.samples


class _Cached:
    """One step per sample; a ring buffer holds the past of each layer.

    Two parts are computed for all layers at once: the past taps, which are known when a sample
    begins, and the skips, which are not needed before it ends. Operations are in place, since with
    one column of activations a call to PyTorch costs more than its arithmetic.
    """

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        stack = model.stack
        channels, layers = stack.channels, stack.n_layers
        self.model = model
        self.temperature = temperature
        self.past = Past(model, batch, stack.start.weight)
        self.clock = 0
        # (layers, taps * in, out), the oldest tap first
        weight = torch.stack(
            [conv.weight.permute(2, 1, 0).flatten(0, 1) for conv in _convolutions(stack.dilated)]
        )
        self.past_weight = weight[:, :-channels].contiguous()
        self.now_weight = weight[:, -channels:].contiguous()
        outs = _convolutions(stack.residual_skip)
        self.residual = [
            (conv.weight[:channels, :, 0].T.contiguous(), _bias(conv)[:channels])
            for conv in outs[:-1]
        ]
        # (layers * in, out)
        self.skip_weight = torch.cat([conv.weight[-channels:, :, 0].T for conv in outs])
        self.skip_bias = torch.stack([_bias(conv)[-channels:] for conv in outs]).sum(0)

        dilations = torch.tensor(stack.dilations, device=model.device)
        self.lengths = (stack.kernel_size - 1) * dilations.unsqueeze(1)
        self.starts = self.lengths.cumsum(0) - self.lengths
        taps = torch.arange(stack.kernel_size - 1, device=model.device)
        self.offsets = dilations.unsqueeze(1) * taps  # (layers, taps)
        new_zeros = self.past.audio.new_zeros
        self.rings = new_zeros(int(self.lengths.sum()), batch, channels)
        self.hidden = new_zeros(layers, batch, channels)
        self.gates = new_zeros(layers, batch, 2 * channels)
        self.gated = new_zeros(layers, batch, channels)

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        stack, past, hop = self.model.stack, self.past, self.model.mel_spec.hop_length
        batch, width = past.audio.shape[0], 2 * stack.channels
        choice, value = choice.to(past.audio), value.to(past.audio)
        past.begin(conditions)
        biases = stack.condition(conditions.features)
        for frame in range(biases.shape[-1] - 2):
            # Only one frame at a time at the sample rate: (hop, layers, batch, 2 * channels).
            upsampled = stack.upsampling(biases[..., frame : frame + 3])
            upsampled = upsampled.reshape(batch, stack.n_layers, width, hop).permute(3, 1, 0, 2)
            for j, condition in enumerate(upsampled.contiguous()):
                t = frame * hop + j
                parameters = self._step(past.inputs(t), condition)
                past.draw(t, parameters, choice[:, t, None], value[:, t], self.temperature)
        return past.samples

    def _step(self, inputs: Tensor, condition: Tensor) -> Tensor:
        """The network's output for the next sample, (batch, n_parameters), from (layers, batch,
        2 C).
        """
        stack = self.model.stack
        slots = self.starts + (self.clock + self.offsets) % self.lengths
        past = self.rings[slots].transpose(1, 2).flatten(2)  # (layers, batch, taps * C)
        torch.baddbmm(condition, past, self.past_weight, out=self.gates)
        a, b = self.gates.chunk(2, dim=2)
        start = stack.start
        self.hidden[0] = F.linear(inputs, start.weight.squeeze(-1), start.bias)
        for layer, (hidden, gates, a_l, b_l, gated) in enumerate(
            zip(self.hidden, self.gates, a, b, self.gated, strict=True)
        ):
            gates.addmm_(hidden, self.now_weight[layer])
            torch.mul(a_l.tanh(), b_l.sigmoid(), out=gated)
            if layer < stack.n_layers - 1:
                weight, bias = self.residual[layer]
                torch.addmm(hidden, gated, weight, out=self.hidden[layer + 1]).add_(bias)
        self.rings[slots[:, 0]] = self.hidden
        self.clock += 1
        skip = torch.addmm(self.skip_bias, self.gated.transpose(0, 1).flatten(1), self.skip_weight)
        result: Tensor = stack.head((skip / math.sqrt(stack.n_layers)).unsqueeze(-1)).squeeze(-1)
        return result


class _Compiled:
    """The whole loop over samples in machine code, on one core of the CPU."""

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        from vocoder.engines import autoregressive
        from vocoder.engines.compiled import array

        stack = model.stack
        self.model = model
        self.temperature = temperature
        self.past = Past(model, batch, torch.zeros(0, dtype=torch.float32, device="cpu"))
        self.clock = 0
        # (K, in, out)
        taps = [array(conv.weight).transpose(2, 1, 0) for conv in _convolutions(stack.dilated)]
        channels = stack.channels
        out_weight = np.zeros((stack.n_layers, channels, 2 * channels), np.float32)
        out_bias = np.zeros((stack.n_layers, 2 * channels), np.float32)
        for layer, conv in enumerate(_convolutions(stack.residual_skip)):
            used = conv.out_channels  # the last layer's has no residual
            out_weight[layer, :, -used:] = array(conv.weight)[:, :, 0].T
            out_bias[layer, -used:] = array(_bias(conv))
        # The scale of the skips' sum goes into the weights.
        out_weight[:, :, channels:] /= math.sqrt(stack.n_layers)
        out_bias[:, channels:] /= math.sqrt(stack.n_layers)
        first, last = _convolutions([stack.head[1], stack.head[3]])
        dilations = np.array(stack.dilations)
        lengths = (stack.kernel_size - 1) * dilations
        weights = (
            array(stack.start.weight)[:, :, 0].T,
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
        self.run = autoregressive.wavenet

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        from vocoder.engines.compiled import array

        model, features = self.model, conditions.features
        # (batch, layers * 2 C, frames + 2) -> (batch, frames + 2, layers * 2 C)
        biases = model.stack.condition(features).transpose(1, 2)
        self.past.begin(conditions)
        self.run(
            *self.weights,
            self.dilations,
            self.ring_start,
            self.rings,
            array(biases),
            array(model.stack.upsampling.weights),
            array(choice),
            array(value),
            np.float32(self.temperature),
            model.output.n_mixtures,
            model.pitch_taps,
            *self.past.arrays(),
            self.clock,
        )
        self.clock += value.shape[1]
        return self.past.samples.to(features.device)


def _convolutions(layers: Iterable[nn.Module]) -> list[nn.Conv1d]:
    found = [layer for layer in layers if isinstance(layer, nn.Conv1d)]
    assert found
    return found


def _bias(layer: nn.Conv1d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


__all__ = ["WaveNet"]
