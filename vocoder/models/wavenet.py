"""WaveNet: samples drawn one by one, each given those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise, Refine
from vocoder.nn import CausalGatedStack, DiscretisedMixture, Distribution, LinearUpsampling
from vocoder.nn.linear_prediction import MelLinearPrediction
from vocoder.nn.mixture import STEP
from vocoder.nn.pitch import LOWEST_HZ, load_pitch
from vocoder.nn.source import CENTRE_HZ

from .base import Renderer, Vocoder
from .past import Conditions, Past, look_back

# Frames per call of a session: bounds the memory of conditions at the sample rate, and the delay
# before an interrupt takes effect.
_CHUNK_FRAMES = 32

INPUT_GAIN = 10.0
"""Factor of the initial weights of the audio input: speech has an RMS of about 0.1."""

# Weight of the F0 of unvoiced frames, so that between two of them there is one.
_FAINT = 1e-6


Session = Callable[[Conditions, Tensor, Tensor], Tensor]
"""A generation in progress, one chunk of frames per call; keeps the state the next chunk needs.

(conditions of the frames, choice (batch, frames * hop), value (batch, frames * hop)) -> audio
(batch, frames * hop); choice and value are the noise of `DiscretisedMixture.sample`.
"""


class WaveNet(Vocoder):
    r"""WaveNet with a mixture output, conditioned on the mel: 16-bit samples, one by one.

    .. math:: \log p(x \mid m) = \sum_{t=1}^{T} \log P(q_t \mid q_{<t}, m) + T \log 32768,
        \qquad q_t = \lfloor 32768 \, x_t + \tfrac12 \rfloor

    .. math:: P(q_t \mid q_{<t}, m) = \mathrm{Mixture}\bigl(q_t;\;
        g(x_{t-1}, x_{t-2}, \dots, x_{t-R}, c_t(m))\bigr)

    g is a `CausalGatedStack` with a receptive field of R = (kernel_size - 1) * (sum of the
    dilations) + 1 samples (6,139 by default: 278 ms at 22,050 Hz), and c the features that a small
    convolutional network makes of the mel, interpolated between the middles of the frames.

    P is a `DiscretisedMixture` over the 65,536 levels of 16-bit audio, so the first term is the
    exact log-probability of 16-bit audio. The second turns it into a density: that of
    :math:`x = (q + u) / 32768` with u uniform on [-1/2, 1/2), which is constant within a
    quantisation step. `log_prob` thus gives the same value for recorded and for dequantised audio,
    and compares in nats per sample with a flow's `log_prob` of the dequantised audio: both are
    log-densities of the same variable, and both bound the log-probability of the 16-bit audio plus
    T log 32768 from below, here with equality. Being constant in steps, it has no gradient with
    respect to audio. Audio before the first sample is zero.

    Temperature scales the noise of each sample: x is mu + temperature * scale * noise of a
    component drawn from softmax(logits / temperature). At 0 every sample is the mean of the
    likeliest component; at 1 audio is drawn from the model.

    **Linear prediction.** With ``linear_prediction=K`` the mel also says how each sample follows
    from the K before it, and the network draws the residual e alone (`MelLinearPrediction`):

    .. math:: x_t = p_t + g_t e_t, \qquad p_t = \sum_{k=1}^{K} a_k x_{t-k}, \qquad
        \log p(x_t \mid x_{<t}, m) = \log p_e\Bigl(\frac{x_t - p_t}{g_t}\Bigr) - \log g_t

    This is an affine step of an autoregressive flow, taken before the mixture is cut into bins: its
    means become p + g mu and its scales g exp(r). Untrained, the model whispers: noise through the
    spectral envelope. The network's inputs are :math:`x_{t-1}` and :math:`p_t`, both over the
    level of the frame, and :math:`(x_{t-1} - p_{t-1}) / g_t`.

    **Pitch taps.** With ``pitch_taps=J`` the inputs include the J residuals around one pitch period
    ago, :math:`e_{t-T+j}` with :math:`|j| \le (J - 1)/2`, as in the long-term prediction of speech
    codecs, so that no memory of a whole period is needed. T is read off the mel (`MelPitch`),
    linear between frames, and the network is shown F0 and voicing. The pitch network looks 6
    frames ahead, and stays as it is in training.

    The engines: "naive", the reference, computes the whole receptive field anew for every sample;
    "compiled" keeps each layer's past in a ring buffer, in machine code (numba); in a layer of
    dilation n, the past taps of up to n samples (at most 16) are one matrix product. Both give the
    same audio for the same noise, up to float32 rounding: where rounding tips a sample over the
    edge of a quantisation step (or, rarely, to another component of the mixture), that sample and
    those after it differ. Choose with ``model.engine = "naive"``; None is the compiled one, which
    works on the CPU, in float32, wherever the model is.

    Papers: WaveNet (van den Oord et al., 2016); Fast WaveNet (Le Paine et al., 2016) for the ring
    buffers; Tacotron 2 (Shen et al., 2018) for logistics on mels; LPCNet (Valin and Skoglund, 2019)
    for linear prediction; Speech coding by long-term prediction (Atal and Schroeder, 1970) for
    pitch taps. The default has the 30 layers of 128 channels of DiffWave's baseline (Kong et al.,
    2021), which has a single Gaussian:
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
    likelihood = "exact"
    sequential = True
    engines = ("compiled", "naive")

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
        super().__init__(mel_spec, refine)
        if linear_prediction < 0:
            raise ValueError(
                f"linear_prediction is {linear_prediction}: give an order of 1 or more, or 0 for "
                "none"
            )
        if pitch_taps < 0 or (pitch_taps and pitch_taps % 2 == 0):
            raise ValueError(
                f"pitch_taps is {pitch_taps}: give an odd number, with the middle one pitch period "
                "back, or 0 for none"
            )
        if condition_kernel_size % 2 == 0:
            raise ValueError(
                f"condition_kernel_size is {condition_kernel_size}: it must be odd to keep the "
                "number of frames"
            )
        self.output = DiscretisedMixture(distribution, n_mixtures)
        self.order = linear_prediction
        self.pitch_taps = pitch_taps
        self.n_inputs = 1 + 2 * (linear_prediction > 0) + pitch_taps
        """Inputs of the network besides the features."""
        self.predictor = (
            MelLinearPrediction(self.mel_spec, linear_prediction) if linear_prediction else None
        )
        self.pitch = load_pitch(self.mel_spec) if pitch_taps else None
        self.between = LinearUpsampling(self.mel_spec.hop_length)
        self.longest_lag = round(self.mel_spec.sample_rate / LOWEST_HZ)
        self.conditioner = nn.Sequential(
            nn.Conv1d(
                self.mel_spec.n_mels + 2 * (pitch_taps > 0),
                condition_channels,
                condition_kernel_size,
                padding=condition_kernel_size // 2,
            ),
            nn.GELU(),
            nn.Conv1d(condition_channels, condition_channels, 1),
            nn.GELU(),
        )
        # The taps of the conditioner, and the neighbour used in interpolation.
        reach = condition_kernel_size // 2 + 1
        back, ahead = self.pitch.context_frames if self.pitch is not None else (0, 0)
        self._reach = reach + back, reach + ahead
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
        # The last layer, and the weights of the audio input, start at the level of their signal.
        # With linear prediction the network sees signals of level 1 or so and draws the residual,
        # whose logistic scale is then about a half of its level.
        self.output.start(last.weight, _bias(last), 0.5 if self.order else 0.1)
        if not self.order:
            with torch.no_grad():
                self.stack.start.weight.mul_(INPUT_GAIN)
        self._engine = self.engines[0]

    def predict(self, inputs: Tensor, features: Tensor) -> Tensor:
        """The distribution of every sample (of its residual, with linear prediction), in one pass.

        Args:
            inputs: (batch, `n_inputs`, samples), what each sample is predicted from.
            features: (batch, channels, frames + 2), samples at most frames * hop.

        Returns:
            (batch, `output.n_parameters`, samples).
        """
        result: Tensor = self.stack(inputs, features)
        return result

    @property
    def engine(self) -> str:
        """The way to generate: one of ``engines``. Setting None chooses the fastest."""
        return self._engine

    @engine.setter
    def engine(self, name: str | None) -> None:
        if name is not None and name not in self.engines:
            raise ValueError(
                f"the engine {name!r} is unknown: {self.title} has {', '.join(self.engines)}"
            )
        self._engine = name or self.engines[0]

    def _begin(self, engine: str, batch: int, temperature: float) -> Session:
        session = _Naive if engine == "naive" else _Compiled
        return session(self, batch, temperature)

    # -- the contract of Vocoder ---------------------------------------------------------------

    @property
    def context_frames(self) -> tuple[None, int]:
        return None, self._reach[1]

    def conditions(self, mel: Tensor) -> Conditions:
        """What a mel (batch, n_mels, frames) says of its frames."""
        batch, _, frames = mel.shape
        hop = self.mel_spec.hop_length
        if self.predictor is None:
            coefficients = mel.new_zeros(batch, 0, frames)
            gain = level = mel.new_ones(batch, frames)
        else:
            coefficients, gain, level = self.predictor(mel)
        seen = mel
        if self.pitch is None:
            lags = torch.ones(batch, frames * hop, dtype=torch.int64, device=mel.device)
        else:
            with torch.no_grad(), torch.autocast(mel.device.type, enabled=False):
                # In float64, as in `MelSource`: pieces of an utterance give what the whole gives.
                f0, voicing = self.pitch(mel.double())
                logarithm = voicing * (f0 / CENTRE_HZ).log()
                seen = torch.cat([mel, torch.stack([voicing, logarithm], dim=1).to(mel)], dim=1)
                # F0 counts by its voicing.
                weight = voicing + _FAINT
                parts = F.pad(torch.stack([f0 * weight, weight], dim=1), (1, 1), mode="replicate")
                above, below = self.between(parts).unbind(dim=1)
                half = self.pitch_taps // 2
                lags = (self.mel_spec.sample_rate * below / above).round().long()
                lags = lags.clamp(half + 1, self.longest_lag)
        # At the ends a frame is its own neighbour.
        features = F.pad(self.conditioner(seen), (1, 1), mode="replicate")
        return Conditions(features, coefficients, gain, level, lags)

    def forward(self, audio: Tensor, mel: Tensor) -> Tensor:
        """Parameters of the distribution of each sample given those before it (teacher forcing).

        Args:
            audio: (batch, frames * hop), in [-1, 1]; rounded to 16 bits.
            mel: (batch, n_mels, frames).

        Returns:
            (batch, `output.n_parameters`, frames * hop).
        """
        conditions = self.conditions(mel)
        rounded = (self.output.levels(audio) * STEP).to(conditions.features.dtype)
        with torch.autocast(audio.device.type, enabled=False):
            inputs, prediction, gain = look_back(self, rounded.to(mel.dtype), conditions)
        parameters = self.predict(inputs, conditions.features)
        with torch.autocast(audio.device.type, enabled=False):
            return self.output.moved(parameters.to(mel.dtype), prediction, gain)

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        parameters = self(audio, mel)
        each = self.output.log_prob(parameters, self.output.levels(audio))
        return each.sum(dim=1) - audio.shape[1] * math.log(STEP)

    @torch.no_grad()
    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        conditions = self.conditions(mel.to(self.dtype))
        session = self._begin(self.engine, mel.shape[0], temperature)
        frames = mel.shape[-1]
        return self._continue(session, conditions, 0, frames, noise, first_frame)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        session = self._begin(self.engine, 1, temperature)

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            conditions = self.conditions(window.to(self.dtype))
            return self._continue(session, conditions, first - start, last - start, noise, start)

        return self._reach, render

    def _continue(
        self,
        session: Session,
        conditions: Conditions,
        first: int,
        last: int,
        noise: Noise,
        origin: int,
    ) -> Tensor:
        """Samples of frames [first, last) of conditions, whose frame 0 has index ``origin``."""
        hop = self.mel_spec.hop_length
        chunks = []
        for begin in range(first, last, _CHUNK_FRAMES):
            end = min(begin + _CHUNK_FRAMES, last)
            chunk = conditions.frames(begin, end, hop)
            uniform = noise.uniform(origin + begin, end - begin, 2 * hop)
            normal = noise.normal(origin + begin, end - begin, hop)
            value = self.output.standard(normal, uniform[..., hop:])
            size = (len(chunk.gain), (end - begin) * hop)
            choice = uniform[..., :hop].flatten(-2).expand(size)
            chunks.append(session(chunk, choice, value.flatten(-2).expand(size)))
        return torch.cat(chunks, dim=1)


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


class _Compiled:
    """The whole loop over samples in machine code, on one core of the CPU."""

    def __init__(self, model: WaveNet, batch: int, temperature: float) -> None:
        from vocoder.engines.autoregressive import array, wavenet

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
        self.run = wavenet

    def __call__(self, conditions: Conditions, choice: Tensor, value: Tensor) -> Tensor:
        from vocoder.engines.autoregressive import array

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
