"""What WaveNet and WaveRNN share: samples drawn one by one, each given those before it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise, Refine
from vocoder.audio.pitch import LOWEST_HZ
from vocoder.nn.linear_prediction import MelLinearPrediction
from vocoder.nn.mixture import STEP, DiscretisedMixture, Distribution
from vocoder.nn.pitch import load_pitch
from vocoder.nn.source import CENTRE_HZ
from vocoder.nn.upsampling import LinearUpsampling

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


class AutoregressiveVocoder(Vocoder):
    r"""A vocoder that draws each 16-bit sample given those before it.

    .. math:: \log p(x \mid m) = \sum_{t=1}^{T} \log P(q_t \mid q_{<t}, m) + T \log 32768,
        \qquad q_t = \lfloor 32768 \, x_t + \tfrac12 \rfloor

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

    Papers: LPCNet (Valin and Skoglund, 2019) for linear prediction; Speech coding by long-term
    prediction (Atal and Schroeder, 1970).

    Generation runs on one of the ``engines`` of the family, which give the same audio for the same
    noise, up to float32 rounding: where rounding tips a sample over the edge of a quantisation step
    (or, rarely, to another component of the mixture), that sample and those after it differ.
    Choose with ``model.engine = "cached"``; None is the fastest one that works. The compiled engine
    works on the CPU, in float32, wherever the model is.
    """

    likelihood = "exact"

    engines: ClassVar[tuple[str, ...]]
    """Ways to generate, fastest first."""

    def __init__(
        self,
        mel_spec: MelSpec | str,
        distribution: Distribution,
        n_mixtures: int,
        condition_channels: int,
        condition_kernel_size: int,
        linear_prediction: int,
        pitch_taps: int,
        refine: Refine,
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
        self._engine: str | None = None

    # -- what a family implements ------------------------------------------------------------

    @abstractmethod
    def predict(self, inputs: Tensor, features: Tensor) -> Tensor:
        """The distribution of every sample (of its residual, with linear prediction), in one pass.

        Args:
            inputs: (batch, `n_inputs`, samples), what each sample is predicted from.
            features: (batch, channels, frames + 2), samples at most frames * hop.

        Returns:
            (batch, `output.n_parameters`, samples).
        """

    @abstractmethod
    def _begin(self, engine: str, batch: int, temperature: float) -> Session:
        """A generation of ``batch`` items from silence."""

    def _start(self, last_weight: Tensor, last_bias: Tensor, input_weight: Tensor) -> None:
        """Start the last layer, and the weights of the audio input, at the level of their signal.

        With linear prediction the network sees signals of level 1 or so and draws the residual,
        whose logistic scale is then about a half of its level.
        """
        self.output.start(last_weight, last_bias, 0.5 if self.order else 0.1)
        if not self.order:
            with torch.no_grad():
                input_weight.mul_(INPUT_GAIN)

    # -- engines -------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """The way to generate: one of ``engines``. Setting None chooses the fastest that works."""
        if self._engine is not None:
            return self._engine
        return next(name for name in self.engines if name != "compiled" or _has_numba())

    @engine.setter
    def engine(self, name: str | None) -> None:
        if name is not None and name not in self.engines:
            raise ValueError(
                f"the engine {name!r} is unknown: {type(self).__name__} has "
                f"{', '.join(self.engines)}"
            )
        if name == "compiled" and not _has_numba():
            raise ValueError("the compiled engine needs numba: `pip install numba`")
        self._engine = name

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


def _has_numba() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


__all__ = ["INPUT_GAIN", "AutoregressiveVocoder", "Conditions", "Past", "Session"]
