"""WaveRNN: one recurrent layer, the fast one of the autoregressive models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Refine
from vocoder.nn import Distribution, LinearUpsampling

from .autoregressive import AutoregressiveVocoder, Session
from .past import Conditions, Past


class WaveRNN(AutoregressiveVocoder):
    r"""A GRU over samples with a mixture output, conditioned on the mel spectrogram.

    .. math::
        r, z &= \sigma(W_{r,z} [x_{t-1}, c_t] + U_{r,z} h + b_{r,z}) \\
        n &= \tanh(W_n [x_{t-1}, c_t] + b_n + r \odot (U_n h + b'_n)) \\
        h &\leftarrow (1 - z) \odot n + z \odot h \\
        P(q_t \mid q_{<t}, m) &= \mathrm{Mixture}\bigl(q_t;\; B \max(A h + a, 0) + b\bigr)

    c is the features that a small convolutional network makes of the mel, interpolated between the
    middles of the frames. `AutoregressiveVocoder` defines likelihood, temperature, linear
    prediction and pitch taps; with these, more inputs stand next to :math:`x_{t-1}`. The paper's
    two softmaxes over halves of 16 bits are replaced by the mixture of `WaveNet`.

    The engines: "cell" is a loop over PyTorch's GRU cell; "compiled" is the loop in machine code
    (numba), with W c computed for frames and interpolated, which is the same.

    Paper: WaveRNN (Kalchbrenner et al., 2018). The default has 1.2M parameters.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        distribution, n_mixtures: of the output (see `DiscretisedMixture`).
        hidden_size: channels of h.
        head_channels: channels of A h.
        condition_channels, condition_kernel_size: width and taps of the network on the mel.
        linear_prediction: order K of linear prediction; 0 for none.
        pitch_taps: J, an odd number, or 0 for none; needs mels that show harmonics (`MelPitch`).
        refine: sweeps of mel consistency after the model's own pass unless another number is given
            (see `Vocoder.synthesize`).

    Raises:
        ValueError: a size is out of range; the message names it.
    """

    family = "wavernn"
    title = "WaveRNN"
    engines = ("compiled", "cell")

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        distribution: Distribution = "logistic",
        n_mixtures: int = 10,
        hidden_size: int = 512,
        head_channels: int = 256,
        condition_channels: int = 128,
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
        if min(hidden_size, head_channels) < 1:
            raise ValueError(
                f"hidden_size is {hidden_size} and head_channels {head_channels}: both must be at "
                "least 1"
            )
        self.upsampling = LinearUpsampling(self.mel_spec.hop_length)
        self.gru = nn.GRU(self.n_inputs + condition_channels, hidden_size, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(hidden_size, head_channels),
            nn.ReLU(),
            nn.Linear(head_channels, self.output.n_parameters),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        self._start(last.weight, last.bias, self.gru.all_weights[0][0][:, : self.n_inputs])

    def predict(self, inputs: Tensor, features: Tensor) -> Tensor:
        condition = self.upsampling(features)[..., : inputs.shape[-1]]
        given = torch.cat([inputs.to(condition.dtype), condition], dim=1).transpose(1, 2)
        # Rounding adds up over a recurrence, and PyTorch's GRU takes one type throughout.
        with torch.autocast(given.device.type, enabled=False):
            hidden, _ = self.gru(given.to(self.dtype))
        result: Tensor = self.head(hidden).transpose(1, 2)
        return result

    def _begin(self, engine: str, batch: int, temperature: float) -> Session:
        if engine == "cell":
            return _Cell(self, batch, temperature)
        return _Compiled(self, batch, temperature)


class _Cell:
    """One step of PyTorch's GRU cell per sample."""

    def __init__(self, model: WaveRNN, batch: int, temperature: float) -> None:
        self.model = model
        self.temperature = temperature
        self.past = Past(model, batch, model.gru.all_weights[0][0])
        self.hidden = self.past.audio.new_zeros(batch, model.gru.hidden_size)

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        model, past = self.model, self.past
        weights = model.gru.all_weights[0]  # of the input and the state, then the biases of these
        choice, value = choice.to(past.audio), value.to(past.audio)
        past.begin(conditions)
        upsampled = model.upsampling(conditions.features).permute(2, 0, 1).contiguous()
        for t, condition in enumerate(upsampled):
            given = torch.cat([past.inputs(t), condition], dim=1)
            self.hidden = torch.gru_cell(given, self.hidden, *weights)
            past.draw(t, model.head(self.hidden), choice[:, t, None], value[:, t], self.temperature)
        return past.samples


class _Compiled:
    """The whole loop over samples in machine code, on one core of the CPU."""

    def __init__(self, model: WaveRNN, batch: int, temperature: float) -> None:
        from vocoder.engines.compiled import array

        input_weight, state_weight, _, state_bias = model.gru.all_weights[0]
        first, last = model.head[0], model.head[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        weights = (
            array(input_weight)[:, : model.n_inputs].T,
            array(state_weight).T,
            array(state_bias),
            array(first.weight).T,
            array(first.bias),
            array(last.weight).T,
            array(last.bias),
        )
        # numba compiles for the memory layout it is given; gaps would cost vector code.
        self.weights = [np.ascontiguousarray(weight) for weight in weights]
        self.model = model
        self.temperature = temperature
        self.past = Past(model, batch, torch.zeros(0, dtype=torch.float32, device="cpu"))
        self.hidden = np.zeros((batch, model.gru.hidden_size), np.float32)

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        from vocoder.engines import autoregressive
        from vocoder.engines.compiled import array

        model = self.model
        input_weight, _, input_bias, _ = model.gru.all_weights[0]
        # At the rate of frames, (batch, frames + 2, 3 * hidden_size).
        features = conditions.features.transpose(1, 2)
        gates = F.linear(features, input_weight[:, model.n_inputs :], input_bias)
        self.past.begin(conditions)
        autoregressive.wavernn(
            *self.weights,
            array(gates),
            array(model.upsampling.weights),
            array(choice),
            array(value),
            np.float32(self.temperature),
            model.output.n_mixtures,
            model.pitch_taps,
            *self.past.arrays(),
            self.hidden,
        )
        return self.past.samples.to(features.device)


__all__ = ["WaveRNN"]
