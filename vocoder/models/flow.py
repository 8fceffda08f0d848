"""What all flow vocoders share: an invertible network from audio to Gaussian noise."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from vocoder.audio import MelSpec, Noise, Refine
from vocoder.flows import Chain

from .base import Array, Vocoder, _like, _tensor


class FlowVocoder(Vocoder):
    r"""A normalizing flow from audio to Gaussian noise, conditioned on the mel spectrogram.

    .. math:: z = f(x; m), \qquad
        \log p(x \mid m) = \log \mathcal N(z; 0, I) + \log |\det \partial f / \partial x|

    Run forwards it gives the exact density it was trained to maximise; run backwards, all samples
    of an utterance come out of one parallel pass of :math:`f^{-1}`.

    A family passes the width of its latents to ``super().__init__``, builds ``flow`` and implements
    `context_frames`.

    Args:
        mel_spec: the mel convention, as a `MelSpec` or the name of a preset.
        n_group: channels of the latents; must divide the hop.
        refine: see `Vocoder`.

    Raises:
        ValueError: n_group does not divide the hop.
    """

    likelihood = "exact"
    default_temperature = 0.667

    flow: Chain
    """f, from (batch, 1, samples) to (batch, n_group, samples / n_group)."""

    def __init__(self, mel_spec: MelSpec | str, n_group: int, refine: Refine = 0) -> None:
        super().__init__(mel_spec, refine)
        hop = self.mel_spec.hop_length
        if n_group < 2 or hop % n_group:
            raise ValueError(
                f"n_group {n_group} does not divide the hop of {hop} samples into blocks of two "
                "samples or more"
            )
        self.n_group = n_group
        self.steps_per_frame = hop // n_group
        """Steps of the latents in a frame of the mel."""

    def condition(self, mel: Tensor) -> Tensor:
        """The mel at the rate of the latents: (batch, condition channels, time)."""
        return mel

    def forward(self, audio: Array, mel: Array) -> tuple[Array, Array]:
        """From audio to latents.

        Args:
            audio: (batch, samples) or (samples,) with samples = frames * hop (up to a hop fewer are
                completed with zeros).
            mel: (batch, n_mels, frames) or (n_mels, frames).

        Returns:
            z (batch, n_group, samples / n_group), standard normal under the model; and log_det
            (batch,), in nats. Without the batch axis for input without one.
        """
        frames = _tensor(mel, "mel").to(device=self.device, dtype=self.dtype)
        samples, frames, batched = self._paired(audio, frames)
        z, log_det = self.flow(samples.unsqueeze(1), self.condition(frames))
        if not batched:
            z, log_det = z[0], log_det[0]
        return _like(audio, z), _like(audio, log_det)

    def inverse(self, z: Array, mel: Array) -> Array:
        """From latents to audio: the exact inverse of `forward`, differentiable, not clipped.

        Args:
            z: (batch, n_group, frames * hop / n_group), or without the batch axis.
            mel: (batch, n_mels, frames), or without the batch axis.

        Returns:
            (batch, frames * hop), or (frames * hop,).
        """
        frames = _tensor(mel, "mel").to(device=self.device, dtype=self.dtype)
        latents = _tensor(z, "z").to(device=self.device, dtype=self.dtype)
        batched = latents.ndim == 3
        if not batched:
            latents, frames = latents.unsqueeze(0), frames.unsqueeze(0)
        expected = (frames.shape[0], self.n_group, frames.shape[-1] * self.steps_per_frame)
        if latents.shape != expected:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} do not fit the mel: expected {expected}"
            )
        audio = self.flow.inverse(latents, self.condition(frames)).squeeze(1)
        return _like(z, audio if batched else audio[0])

    def log_likelihood(self, audio: Tensor, mel: Tensor) -> Tensor:
        return self._density(audio, self.condition(mel))

    def _density(self, audio: Tensor, condition: Tensor) -> Tensor:
        """The log-density of audio (batch, samples) given what the flow sees of it, (batch,)."""
        z, log_det = self.flow(audio.unsqueeze(1), condition)
        z = z.to(log_det.dtype)
        size = z[0].numel()
        return log_det - 0.5 * z.square().sum(dim=(1, 2)) - 0.5 * size * math.log(2 * math.pi)

    def sample(self, mel: Tensor, noise: Tensor, temperature: float) -> Tensor:
        return self.inverse(self.latents(noise, temperature), mel)

    def generate(
        self, mel: Tensor, noise: Noise, temperature: float, first_frame: int = 0
    ) -> Tensor:
        drawn = self.draw(noise, first_frame, mel.shape[-1])
        return self.sample(mel, drawn.expand(mel.shape[0], -1, -1), temperature)

    def latents(self, noise: Tensor, temperature: float) -> Tensor:
        """Noise (batch, frames, `noise_per_frame`) as latents, times the temperature.

        Returns:
            (batch, n_group, time).
        """
        z = (
            noise[..., : self.mel_spec.hop_length]
            .reshape(noise.shape[0], -1, self.n_group)
            .transpose(1, 2)
        )
        return temperature * z

    def draw(self, noise: Noise, first_frame: int, frames: int) -> Tensor:
        """The noise of frames from ``first_frame`` on, on the model's device.

        Returns:
            (1, frames, `noise_per_frame`), or (items, ...) of a `BatchNoise`.
        """
        drawn = noise.normal(first_frame, frames, self.noise_per_frame)
        return drawn.reshape(-1, frames, self.noise_per_frame).to(
            device=self.device, dtype=self.dtype
        )

    # -- fused -----------------------------------------------------------------------------------

    def fused(self, dtype: torch.dtype = torch.float32) -> Self:
        """The same function with nothing left to compute from the weights: for inference.

        Weight normalisation is taken out, and the 1x1 convolutions are inverted once.

        Args:
            dtype: type that audio is computed in; parameters and likelihood stay in float32.

        Returns:
            A new model, on the same device, in evaluation mode and frozen: its weights take no
            gradient, and it refuses to go back to training.

        Raises:
            ValueError: the family cannot compute in this type.
        """
        self._check_dtype(dtype)
        return self._frozen_copy()
