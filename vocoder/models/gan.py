"""The adversarial vocoder: a generator at the mel frame rate, trained against discriminators."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, Noise
from vocoder.audio.consistency import window as frame_window
from vocoder.flows.bijection import promote
from vocoder.nn import BandScale
from vocoder.nn.convnext import ConvNextBlock

from .base import Vocoder

MIN_COVER = 0.1
"""Overlapped frames are divided by the sum of their squared windows, but never by less than this.

Only the ends of the audio reach it, where few frames overlap.
"""


class GanVocoder(Vocoder):
    r"""A generator of short-time spectra, one frame of the mel at a time, all in parallel.

    .. math:: \hat x = \mathrm{STFT}^{-1}\bigl(e^{a} \odot e^{j \varphi}\bigr), \qquad
        (a - a_0(m),\; \varphi) = G(m, \epsilon), \quad \epsilon \sim \mathcal N(0, \tau^2 I)

    G is a stack of `ConvNextBlock`; :math:`a_0` is the log-magnitude that the mel itself suggests
    (`BandScale`), so the generator starts at the right level; a softplus keeps a below the log of
    the sum of the window, the largest magnitude of audio in [-1, 1]. Phases start spread over the
    circle: with equal ones, each frame would be a pulse. The inverse transform adds up overlapping
    frames, so nothing in the network runs at the sample rate.

    It is trained by comparing samples with recordings, not by likelihood: see the terms
    `Adversarial`, `Mel` and `Stft` of `vocoder.training.terms`. Its audio lies on a surface of as
    many dimensions as it takes noise, a set of measure zero, so `log_prob` is not defined.
    Paper: Vocos (Siuzdak, 2023), whose generator takes no noise.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset. Its window and hop are
            those of the inverse transform.
        channels, n_layers, kernel_size, expansion: of the stack, see `ConvNextBlock`.
        noise_channels: normal numbers for each frame of the mel; what the mel leaves open may
            depend on them.
        scale_channels, scale_kernel_size: width and taps of the `BandScale` network.
        refine: sweeps of mel consistency after the model's own pass unless another number is given
            (see `Vocoder.synthesize`).

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    family = "gan"
    title = "GAN"

    window: Tensor

    def __init__(
        self,
        mel_spec: MelSpec | str = "ljspeech",
        channels: int = 256,
        n_layers: int = 6,
        kernel_size: int = 7,
        expansion: int = 3,
        noise_channels: int = 16,
        scale_channels: int = 128,
        scale_kernel_size: int = 5,
        refine: int = 0,
    ) -> None:
        super().__init__(mel_spec, refine)
        spec = self.mel_spec
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}: the generator has at least one block")
        if noise_channels < 1:
            raise ValueError(
                f"noise_channels is {noise_channels}: give at least 1; temperature 0 makes the "
                "generator deterministic"
            )
        if spec.win_length < 2 * spec.hop_length:
            raise ValueError(
                f"the window of {spec.win_length} samples is shorter than two hops of "
                f"{spec.hop_length}: frames must overlap for an inverse transform"
            )
        self.noise_channels = noise_channels
        bins = spec.n_fft // 2 + 1
        half = kernel_size // 2
        self.scale = BandScale(spec, bins, scale_channels, scale_kernel_size)
        self.start = nn.Conv1d(spec.n_mels + noise_channels, channels, kernel_size, padding=half)
        self.first_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            ConvNextBlock(channels, kernel_size, expansion, 1 / n_layers) for _ in range(n_layers)
        )
        self.last_norm = nn.LayerNorm(channels)
        self.magnitude = nn.Linear(channels, bins)
        self.phase = nn.Linear(channels, bins)
        nn.init.zeros_(self.magnitude.weight)
        nn.init.zeros_(self.magnitude.bias)
        nn.init.normal_(self.phase.weight, std=2 / math.sqrt(channels))
        self.register_buffer("window", frame_window(spec), persistent=False)
        # Magnitude of noise of unit variance under a Hann window, whose squares sum to 3/8 of it.
        self._log_gain = 0.5 * math.log(3 / 8 * spec.win_length)
        # Without a bound the exponential could overflow early in an adversarial training.
        self._log_bound = math.log(spec.win_length / 2)
        left = spec.padding[0]
        before = -(-(spec.n_fft - left) // spec.hop_length) - 1
        after = -(-left // spec.hop_length)
        reach = max(half * (n_layers + 1), self.scale.reach)
        self._context_frames = (before + reach, after + reach)

    @property
    def context_frames(self) -> tuple[int, int]:
        return self._context_frames

    @property
    def noise_per_frame(self) -> int:
        return self.noise_channels

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        mel, noise = mel.to(self.dtype), noise.to(self.dtype)
        hidden = self.start(torch.cat([mel, temperature * noise.transpose(1, 2)], dim=1))
        hidden = self.first_norm(hidden.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.last_norm(hidden.transpose(1, 2))  # (batch, frames, channels)
        phase = self.phase(hidden)
        magnitude = self.magnitude(hidden) - self.scale(mel).transpose(1, 2) + self._log_gain
        with torch.autocast(mel.device.type, enabled=False):
            dtype = promote(magnitude.dtype)
            bounded = self._log_bound - F.softplus(self._log_bound - magnitude.to(dtype))
            return self._inverse_stft(torch.polar(bounded.exp(), phase.to(dtype)))

    def _inverse_stft(self, spectra: Tensor) -> Tensor:
        """Audio (batch, frames * hop) of spectra (batch, frames, bins)."""
        spec = self.mel_spec
        window = self.window.to(spectra.real.dtype)
        frames = torch.fft.irfft(spectra, spec.n_fft) * window
        cover = self._overlap_add(window.square().expand(1, spectra.shape[1], -1))
        return self._overlap_add(frames) / cover.clamp_min(MIN_COVER)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(batch, frames, n_fft) added up, without the padding: (batch, frames * hop)."""
        spec, count = self.mel_spec, frames.shape[1]
        size = (count - 1) * spec.hop_length + spec.n_fft
        total = F.fold(
            frames.transpose(1, 2), (1, size), (1, spec.n_fft), stride=(1, spec.hop_length)
        )[:, 0, 0]
        left = spec.padding[0]
        return total[:, left : left + count * spec.hop_length]

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        drawn = noise.normal(first_frame, mel.shape[2], self.noise_channels).to(self.device)
        return self.sample(mel, drawn.expand(mel.shape[0], -1, -1), temperature)

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} has no likelihood: it turns {self.noise_channels} numbers into "
            f"{self.mel_spec.hop_length} samples, so its audio is a set of measure zero, without a "
            "density; compare it by its sound, or train a flow"
        )
