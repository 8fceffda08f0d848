"""The values that the terms of the loss share in a training step."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vocoder.models import Vocoder


def mel_of_hops(model: Vocoder, audio: Tensor) -> Tensor:
    """The mel of audio (..., frames * hop) with a frame for each hop: (..., n_mels, frames).

    A centred mel has one more, which belongs to no sample.
    """
    return model.mel(audio)[..., : audio.shape[-1] // model.mel_spec.hop_length]


@dataclass(frozen=True)
class Sample:
    """Audio that the model generates in a training step, and the recordings it should resemble.

    Attributes:
        audio: (items, frames * hop), float32, not clipped, differentiable.
        mel: of `audio`, (items, n_mels, frames), float32.
        recorded: the recordings, (items, frames * hop).
        recorded_mel: the mel that the audio was generated from, (items, n_mels, frames).
    """

    audio: Tensor
    mel: Tensor
    recorded: Tensor
    recorded_mel: Tensor


class Step:
    r"""A batch and its shared results, each computed once, when a term first asks for it.

    .. math:: \mathrm{nll} = -\frac{\log p(x \mid m)}{T}, \qquad
        \hat x = f^{-1}(\tau \epsilon;\, m), \quad \epsilon \sim \mathcal N(0, I)

    All terms share one sample, which costs about as much as the likelihood. So its temperature and
    its part of the batch are settings of the step, not of a term.

    Args:
        model: what is trained.
        audio: x, (batch, frames * hop).
        mel: m, (batch, n_mels, frames).
        budget_used: fraction of the training budget used up, in [0, 1].
        generator: source of all randomness in this step.
        temperature: tau, of the sample.
        fraction: part of the batch that is sampled, at least one item.
    """

    def __init__(
        self,
        model: Vocoder,
        audio: Tensor,
        mel: Tensor,
        budget_used: float,
        generator: torch.Generator,
        temperature: float = 0.7,
        fraction: float = 0.5,
    ) -> None:
        self.model = model
        self.audio = audio
        self.mel = mel
        self.budget_used = budget_used
        self.generator = generator
        self.temperature = temperature
        self.fraction = fraction

    @cached_property
    def nll(self) -> Tensor:
        """Mean negative log-likelihood in nats per sample, a scalar.

        Raises:
            NotImplementedError: the model has no likelihood.
        """
        return self.model.training_loss({"audio": self.audio, "mel": self.mel})

    @cached_property
    def sample(self) -> Sample:
        """Audio from the first items of the batch, differentiable.

        Raises:
            NotImplementedError: the model's samples pass no gradient.
        """
        items = max(1, round(self.fraction * self.audio.shape[0]))
        audio, mel = self.audio[:items], self.mel[:items]
        noise = torch.randn(
            (items, self.model.noise_per_frame, mel.shape[2]),
            generator=self.generator,
            device=audio.device,
        )
        generated = self.model.sample(mel, noise.transpose(1, 2), self.temperature)
        with torch.autocast(audio.device.type, enabled=False):
            generated = generated.float()
            return Sample(generated, mel_of_hops(self.model, generated), audio, mel)

    def detached(self) -> Step:
        """The same step with a sample that passes no gradient to the model."""
        sample = self.sample
        step = copy.copy(self)
        step.sample = Sample(
            sample.audio.detach(), sample.mel.detach(), sample.recorded, sample.recorded_mel
        )
        return step
