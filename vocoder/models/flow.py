"""What all flow vocoders share: an invertible network from audio to Gaussian noise."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from vocoder.audio import MelSpec, Refine
from vocoder.audio.validation import as_tensor
from vocoder.flows import Chain, log_density
from vocoder.nn.source import WhiteSource

from .base import Array, Noise, Vocoder, _like
from .streaming import Renderer


class FlowVocoder(Vocoder):
    r"""A normalizing flow from audio to Gaussian noise, conditioned on the mel spectrogram.

    .. math:: z = f(x; m, \theta), \qquad
        \log p(x \mid m, \theta) = \log \mathcal N(z; 0, I) + \log |\det \partial f / \partial x|

    theta is the phase of the source's tone before the first sample, one of n = ``source.phases``
    that are as likely (1 without a tone), which `synthesize` draws by its seed, and

    .. math:: p(x \mid m) = \frac1n \sum_{k=0}^{n-1} p(x \mid m, \theta = k / n).

    ``n_group``, the width of the latents, must divide the hop.
    """

    likelihood = "exact"
    default_temperature = 0.667

    flow: Chain
    """f, from (batch, 1, samples) to (batch, n_group, samples / n_group)."""

    flow_context: tuple[int, int]  # frames of the condition before and after that samples depend on
    alignment = 1  # the windows that `generate` takes begin at a multiple of this frame

    def __init__(
        self,
        mel_spec: MelSpec | str,
        n_group: int,
        source: WhiteSource | None = None,
        refine: Refine = 0,
    ) -> None:
        super().__init__(mel_spec, refine)
        hop = self.mel_spec.hop_length
        if n_group < 2 or hop % n_group:
            raise ValueError(f"n_group {n_group} does not divide the hop of {hop} into blocks")
        self.n_group = n_group
        self.steps_per_frame = hop // n_group
        """Steps of the latents in a frame of the mel."""
        self.source = source or WhiteSource()
        self.compute_dtype = torch.float32
        """Type that `generate` computes matrix products in on a CPU; see `fused`."""

    @property
    def context_frames(self) -> tuple[int | None, int]:
        past, ahead = self._window
        return (past if self.source.phases == 1 else None), ahead

    @property
    def _window(self) -> tuple[int, int]:
        """Frames of mel before and after a frame on which its samples depend, given the phase."""
        (past, ahead), (source_past, source_ahead) = self.flow_context, self.source.context_frames
        return past + source_past, ahead + source_ahead

    @property
    def noise_per_frame(self) -> int:
        """The latents; and, with a tone, one number of which the first frame's sets the phase."""
        return self.mel_spec.hop_length + int(self.source.phases > 1)

    def condition(
        self, mel: Tensor, phase: Tensor | float = 0.0, audio: Tensor | None = None
    ) -> Tensor:
        """What the flow sees of a mel, (batch, channels, time); see `WhiteSource.condition`."""
        return self._at_latent_rate(self.source.condition(self.source.read(mel), phase, audio))

    def _at_latent_rate(self, condition: Tensor) -> Tensor:
        return condition

    def forward(self, audio: Array, mel: Array) -> tuple[Array, Array]:
        """From audio to latents, with a tone of phase 0; audio and mel are as in `log_prob`.

        Returns:
            z (batch, n_group, samples / n_group), standard normal under the model; and log_det
            (batch,), in nats. Without the batch axis for input without one.
        """
        samples, frames, batched = self._paired(audio, self._moved(mel, "mel"))
        result = self.flow(samples.unsqueeze(1), self.condition(frames))
        z, log_det = (_like(audio, part if batched else part[0]) for part in result)
        return z, log_det

    def inverse(self, z: Array, mel: Array) -> Array:
        """From latents to audio: the exact inverse of `forward`, differentiable, not clipped.

        Shapes: (batch, n_group, frames * hop / n_group) and (batch, n_mels, frames) to
        (batch, frames * hop), or all without the batch axis.
        """
        frames, latents = self._moved(mel, "mel"), self._moved(z, "z")
        if not (batched := latents.ndim == 3):
            latents, frames = latents.unsqueeze(0), frames.unsqueeze(0)
        expected = (frames.shape[0], self.n_group, frames.shape[-1] * self.steps_per_frame)
        if latents.shape != expected:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} do not fit the mel: expected {expected}"
            )
        audio = self.flow.inverse(latents, self.condition(frames)).squeeze(1)
        return _like(z, audio if batched else audio[0])

    def _moved(self, array: Array, name: str) -> Tensor:
        return as_tensor(array, name).to(device=self.device, dtype=self.dtype)

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        reading, n = self.source.read(mel), self.source.phases
        conditions = (self._at_latent_rate(self.source.condition(reading, k / n)) for k in range(n))
        parts = [log_density(*self.flow(audio.unsqueeze(1), own)) for own in conditions]
        return torch.logsumexp(torch.stack(parts), dim=0) - math.log(n)

    def training_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """As in `Vocoder`; with a tone, given the phase of the recording, which it is locked to."""
        audio = batch["audio"]
        condition = self.condition(batch["mel"], audio=audio)
        return -log_density(*self.flow(audio.unsqueeze(1), condition)).mean() / audio.shape[-1]

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        condition = self.condition(mel, self._phase(temperature * noise))
        return self.flow.generate(self.latents(noise, temperature), condition).squeeze(1)

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        drawn = self.draw(noise, first_frame, mel.shape[2]).expand(len(mel), -1, -1)
        with self._arithmetic():
            return self.sample(mel, drawn, temperature)

    def _renderer(self, noise: Noise, temperature: float) -> tuple[tuple[int, int], Renderer]:
        """Windows with their context; the phase of the tone is carried from one to the next."""
        hop, (past, ahead) = self.mel_spec.hop_length, self._window
        phase: Tensor | None = None  # before the next frame to render, in cycles

        def render(window: Tensor, start: int, first: int, last: int) -> Tensor:
            nonlocal phase
            if phase is None:
                phase = self._phase(temperature * self.draw(noise, 0, 1))
            drop = -start % self.alignment
            window, start = window[:, :, drop:], start + drop
            reading = self.source.read(window)
            cycles = self.source.cycles(reading)
            begin = phase - cycles[:, first - start]
            phase = (begin + cycles[:, last - start]) % 1
            with self._arithmetic():
                condition = self._at_latent_rate(self.source.condition(reading, begin))
                z = self.latents(self.draw(noise, start, window.shape[2]), temperature)
                audio = self.flow.generate(z, condition).squeeze(1)
            return audio[:, (first - start) * hop :]

        return (past + self.alignment - 1, ahead), render

    def _arithmetic(self) -> torch.autocast:
        half = self.compute_dtype != torch.float32 and self.device.type == "cpu"
        return torch.autocast(self.device.type, self.compute_dtype if half else None, enabled=half)

    def latents(self, noise: Tensor, temperature: float) -> Tensor:
        """Noise (batch, frames, `noise_per_frame`) as latents (batch, n_group, time), scaled."""
        own = noise[..., : self.mel_spec.hop_length]
        return temperature * own.reshape(noise.shape[0], -1, self.n_group).transpose(1, 2)

    def _phase(self, noise: Tensor) -> Tensor:
        """theta of noise (batch, frames, `noise_per_frame`), in cycles, (batch,); 0 of no noise."""
        n = self.source.phases
        number = (torch.special.ndtr(noise[:, 0, -1].float()) * n).floor()
        return (number.double() + n // 2) % n / n

    def draw(self, noise: Noise, first_frame: int, frames: int) -> Tensor:
        """The noise of frames, (1 or items, frames, `noise_per_frame`)."""
        drawn = noise.normal(first_frame, frames, self.noise_per_frame)
        return self._moved(drawn, "noise").reshape(-1, frames, self.noise_per_frame)

    def fused(self, dtype: torch.dtype = torch.float32) -> Self:
        """A frozen copy in evaluation mode, weight norms fused and 1x1 convolutions inverted.

        ``dtype`` is the type of the matrix products of audio generated on a CPU: float32, or
        bfloat16 for processors with AVX512_BF16 or AMX, which rounds to 8 bits. Parameters, audio
        and likelihood stay in float32. ValueError if the architecture cannot compute in this type.
        """
        model = self._frozen_copy()
        Vocoder.fused(model, dtype)  # checks the type
        model.compute_dtype = dtype
        return model
