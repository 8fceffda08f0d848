"""What WaveNet and WaveRNN share: samples drawn one by one, each given those before it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise
from vocoder.nn.mixture import STEP, DiscretisedMixture, Distribution

from .base import Renderer, Vocoder

# Frames per call of a session: bounds the memory of conditions at the sample rate, and the delay
# before an interrupt takes effect.
_CHUNK_FRAMES = 32

INPUT_GAIN = 10.0
"""Factor of the initial weights of the audio input: speech has an RMS of about 0.1."""

Session = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A generation in progress, one chunk of frames per call; keeps the state the next chunk needs.

(features (batch, channels, frames + 2), choice (frames * hop,), value (frames * hop,)) -> audio
(batch, frames * hop); the first and last frames of features are the neighbours of the chunk;
choice and value are the noise of `DiscretisedMixture.sample`.
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

    Generation runs on one of the ``engines`` of the family, which give the same audio for the same
    noise, up to float32 rounding: where rounding tips a sample over the edge of a quantisation step
    (or, rarely, to another component of the mixture), that sample and those after it differ.
    Choose with ``model.engine = "cached"``; None is the fastest one that works. The compiled engine
    works on the CPU, in float32, wherever the model is.
    """

    likelihood = "exact"
    seeds_share_a_pass = False

    engines: ClassVar[tuple[str, ...]]
    """Ways to generate, fastest first."""

    def __init__(
        self,
        mel_spec: MelSpec | str,
        distribution: Distribution,
        n_mixtures: int,
        condition_channels: int,
        condition_kernel_size: int,
        refine: int,
    ) -> None:
        super().__init__(mel_spec, refine)
        if condition_kernel_size % 2 == 0:
            raise ValueError(
                f"condition_kernel_size is {condition_kernel_size}: it must be odd to keep the "
                "number of frames"
            )
        self.output = DiscretisedMixture(distribution, n_mixtures)
        self.conditioner = nn.Sequential(
            nn.Conv1d(
                self.mel_spec.n_mels,
                condition_channels,
                condition_kernel_size,
                padding=condition_kernel_size // 2,
            ),
            nn.GELU(),
            nn.Conv1d(condition_channels, condition_channels, 1),
            nn.GELU(),
        )
        # The taps of the conditioner, and the neighbour used in interpolation.
        self._reach = condition_kernel_size // 2 + 1
        self._engine: str | None = None

    # -- what a family implements ------------------------------------------------------------

    @abstractmethod
    def predict(self, previous: Tensor, features: Tensor) -> Tensor:
        """The distribution of every sample, in one pass.

        Args:
            previous: (batch, 1, samples), the sample before each.
            features: (batch, channels, frames + 2), samples at most frames * hop.

        Returns:
            (batch, `output.n_parameters`, samples).
        """

    @abstractmethod
    def _begin(self, engine: str, batch: int, temperature: float) -> Session:
        """A generation of ``batch`` items from silence."""

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
        return None, self._reach

    def forward(self, audio: Tensor, mel: Tensor) -> Tensor:
        """Parameters of the distribution of each sample given those before it (teacher forcing).

        Args:
            audio: (batch, frames * hop), in [-1, 1]; rounded to 16 bits.
            mel: (batch, n_mels, frames).

        Returns:
            (batch, `output.n_parameters`, frames * hop).
        """
        features = self.conditioner(mel)
        rounded = self.output.levels(audio) * STEP
        previous = F.pad(rounded[:, :-1], (1, 0)).unsqueeze(1).to(features.dtype)
        return self.predict(previous, F.pad(features, (1, 1), mode="replicate"))

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        parameters = self(audio, mel)
        each = self.output.log_prob(parameters, self.output.levels(audio))
        return each.sum(dim=1) - audio.shape[1] * math.log(STEP)

    @torch.no_grad()
    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        features = self.conditioner(mel.to(self.dtype))
        session = self._begin(self.engine, mel.shape[0], temperature)
        frames = mel.shape[-1]
        return self._continue(session, features, 0, frames, noise, first_frame)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        session = self._begin(self.engine, 1, temperature)

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            features = self.conditioner(window.to(self.dtype))
            return self._continue(session, features, first - start, last - start, noise, start)

        return (self._reach, self._reach), render

    def _continue(
        self,
        session: Session,
        features: Tensor,
        first: int,
        last: int,
        noise: Noise,
        origin: int,
    ) -> Tensor:
        """Samples of frames [first, last) of features, whose frame 0 has the index ``origin``."""
        hop = self.mel_spec.hop_length
        chunks = []
        for begin in range(first, last, _CHUNK_FRAMES):
            end = min(begin + _CHUNK_FRAMES, last)
            # At the ends a frame is its own neighbour.
            index = torch.arange(begin - 1, end + 1, device=features.device)
            chunk = features[..., index.clamp(0, features.shape[-1] - 1)]
            uniform = noise.uniform(origin + begin, end - begin, 2 * hop)
            normal = noise.normal(origin + begin, end - begin, hop)
            value = self.output.standard(normal, uniform[:, hop:])
            chunks.append(session(chunk, uniform[:, :hop].flatten(), value.flatten()))
        return torch.cat(chunks, dim=1)


def _has_numba() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


__all__ = ["INPUT_GAIN", "AutoregressiveVocoder", "Session"]
