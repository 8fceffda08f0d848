"""Losses of a training step, and the values that they share.

In YAML they are a list, and a file that changes one of them restates the list:

    losses:
    - class_path: vocoder.training.losses.Likelihood
    - class_path: vocoder.training.losses.Stft
      init_args: {weight: 1.5, start: 0.15}

A loss of your own is a subclass of `Loss` in any module that can be imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vocoder.audio import LogMel, MelSpec
from vocoder.models import Vocoder


def mel_of_hops(model: Vocoder, audio: Tensor) -> Tensor:
    """The mel of audio (..., frames * hop) with a frame for each hop: (..., n_mels, frames). Unlike
    `Vocoder.mel` it takes whatever a model generates: what is not finite makes such a loss."""
    mel: Tensor = _log_mel(model.mel_spec, audio.device)(audio)
    return mel[..., : audio.shape[-1] // model.mel_spec.hop_length]


@cache
def _log_mel(spec: MelSpec, device: torch.device) -> LogMel:
    with torch.inference_mode(False):  # validation comes first, and training needs its gradient
        return LogMel(spec).to(device)


class Sample(NamedTuple):
    """Generated audio (items, frames * hop), float32, not clipped, differentiable, and its mel
    (items, n_mels, frames); the recordings that it should resemble, and theirs."""

    audio: Tensor
    mel: Tensor
    recorded: Tensor
    recorded_mel: Tensor


@dataclass
class Step:
    r"""A batch and its shared results, each computed once, when a loss first asks for it.

    .. math:: \mathrm{nll} = -\frac{\log p(x \mid m)}{T}, \qquad
        \hat x = f^{-1}(\tau \epsilon;\, m), \quad \epsilon \sim \mathcal N(0, I)

    All losses share one sample, which costs about as much as the likelihood.

    Attributes:
        model: what is trained.
        audio: x, (batch, frames * hop).
        mel: m, (batch, n_mels, frames).
        budget_used: fraction of the training budget used up, in [0, 1].
        generator: source of all randomness in this step.
        temperature: tau, of the sample.
        fraction: part of the batch that is sampled, at least one item.
    """

    model: Vocoder
    audio: Tensor
    mel: Tensor
    budget_used: float
    generator: torch.Generator
    temperature: float = 0.7
    fraction: float = 0.5

    @cached_property
    def nll(self) -> Tensor:
        """The model's `training_loss`, in nats per sample, a scalar; NotImplementedError of a model
        without a likelihood."""
        return self.model.training_loss({"audio": self.audio, "mel": self.mel})

    @cached_property
    def sample(self) -> Sample:
        """Audio from the first items of the batch; NotImplementedError if it has no gradient."""
        items = max(1, round(self.fraction * self.audio.shape[0]))
        audio, mel = self.audio[:items], self.mel[:items]
        size = items, self.model.noise_per_frame, mel.shape[2]
        noise = torch.randn(size, generator=self.generator, device=audio.device)
        generated = self.model.sample(mel, noise.transpose(1, 2), self.temperature)
        with torch.autocast(audio.device.type, enabled=False):
            generated = generated.float()
            return Sample(generated, mel_of_hops(self.model, generated), audio, mel)


class Loss(nn.Module):
    """Base class of the losses: `forward(step)` returns a scalar to minimise.

    Args:
        weight: factor of the loss in the sum, above 0.
        start: fraction of the training budget after which the loss applies, in [0, 1].
    """

    name: ClassVar[str]
    """Name in logs, train/NAME."""

    def __init__(self, weight: float = 1.0, start: float = 0.0) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(f"weight is {weight}: leave the loss out, or give a number above 0")
        if not 0 <= start <= 1:
            raise ValueError(f"start is {start}: it is a fraction of the budget, from 0 to 1")
        self.weight = weight
        self.start = start

    def forward(self, step: Step) -> Tensor:
        raise NotImplementedError


class Likelihood(Loss):
    r"""Negative log-likelihood of the audio in nats per sample: :math:`-\log p(x \mid m) / T`; of a
    flow with a source, given the phase of the recording's fundamental."""

    name = "nll"

    def forward(self, step: Step) -> Tensor:
        return step.nll


class Mel(Loss):
    r"""Mean absolute difference of log-mels in nats: :math:`\operatorname{mean} |m - M(\hat x)|`.
    M is the model's own log-mel and x̂ the step's sample."""

    name = "mel_distance"

    def forward(self, step: Step) -> Tensor:
        sample = step.sample
        with torch.autocast(sample.audio.device.type, enabled=False):
            return step.model.mel_spec.distance(sample.mel, sample.recorded_mel)


class Stft(Loss):
    r"""Multi-resolution STFT distance of the step's sample from the recording, without unit.

    .. math:: D_{STFT}(\hat x, x) = \frac1R \sum_r \frac{\lVert S_r(x) - S_r(\hat x) \rVert_F}
        {\lVert S_r(x) \rVert_F} + \operatorname{mean} |\log S_r(x) - \log S_r(\hat x)|

    S is the magnitude under a Hann window, at least 1e-4 (about the noise of 16 bits). The loss
    gives up some nats for better sound. Papers: Parallel WaveGAN (Yamamoto et al., 2020);
    WG-WaveNet (Hsu and Lee, 2020) trains a flow in this way.

    Args:
        weight, start: see `Loss`. Start after a tenth of the budget or later.
        resolutions: FFT lengths in samples; the hop is a quarter of each, the window as long.
    """

    name = "stft"

    def __init__(
        self,
        weight: float = 1.0,
        start: float = 0.0,
        resolutions: Sequence[int] = (512, 1024, 2048),
    ) -> None:
        super().__init__(weight, start)
        self.resolutions = tuple(resolutions)

    def forward(self, step: Step) -> Tensor:
        sample = step.sample
        with torch.autocast(sample.audio.device.type, enabled=False):
            return self.distance(sample.audio, sample.recorded)

    def distance(self, generated: Tensor, recorded: Tensor) -> Tensor:
        """The distance of audio in [-1, 1], (batch, samples) each: a scalar."""
        total, audio = generated.new_zeros(()), torch.stack([generated, recorded])
        for size in self.resolutions:
            window = torch.hann_window(size, device=generated.device, dtype=generated.dtype)
            how: Any = {"hop_length": size // 4, "window": window, "return_complex": True}
            spectra = torch.stft(audio.flatten(0, 1), size, **how).abs().clamp_min(1e-4)
            ours, theirs = spectra.unflatten(0, (2, -1))  # (batch, bins, frames) each
            difference = torch.linalg.vector_norm(theirs - ours, dim=(1, 2))
            convergence = difference / torch.linalg.vector_norm(theirs, dim=(1, 2))
            total = total + convergence.mean() + (theirs.log() - ours.log()).abs().mean()
        return total / len(self.resolutions)


def total_loss(losses: Iterable[Loss], step: Step) -> dict[str, Tensor]:
    r"""The weighted sum :math:`\sum_k w_k L_k` of the losses that have started, ``loss``, and each
    loss under its name, without gradient."""
    total = step.audio.new_zeros(())
    values: dict[str, Tensor] = {}
    for loss in losses:
        if step.budget_used >= loss.start:
            value = loss(step)
            total = total + loss.weight * value
            values[loss.name] = value.detach()
    return {"loss": total, **values}
