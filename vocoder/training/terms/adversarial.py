"""Adversarial training: hinge loss against discriminators, and feature matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.audio import check_sweeps
from vocoder.flows.bijection import promote
from vocoder.nn.discriminators import Discriminators
from vocoder.training.step import Step

from .base import TrainedTerm, in_float32

Features = Sequence[Sequence[Tensor]]
"""Of each discriminator, the outputs of its layers; the last of them are its scores."""


class Adversarial(TrainedTerm):
    r"""Hinge loss against `Discriminators`, and feature matching.

    .. math::
        T &= -\frac1K \sum_k \operatorname{mean} D_k(\hat x)
            + \lambda\, \mathrm{FM}(\hat x, x) \\
        O &= \frac1K \sum_k \operatorname{mean} \max(0, 1 - D_k(x))
            + \operatorname{mean} \max(0, 1 + D_k(\hat x))

    The model minimises T, the discriminators D minimise O; FM is `feature_distance`. The best D
    makes O two less twice the total variation distance between samples and recordings: near 2 they
    look alike to D, near 0 it separates them. Likelihood punishes a model for recordings that it
    misses, this term for samples that are unlike recordings. On a flow that keeps `Likelihood` it
    is Flow-GAN, which has both.

    D sees the same random stretch of sample and recording. Papers: GAN (Goodfellow et al., 2014);
    the hinge loss: Lim and Ye, 2017; feature matching: Larsen et al., 2016; for vocoders: HiFi-GAN
    (Kong et al., 2020), Vocos (Siuzdak, 2023); Flow-GAN (Grover et al., 2018).

    Args:
        weight, start, trained_from, learning_rate, gradient_clip: see `TrainedTerm`.
        feature_matching: lambda, 0 or more.
        sweeps: sweeps of mel consistency between sample and D, through which gradients reach the
            model, for models that are used with `refine`. Recordings are left unchanged, as sweeps
            onto their own mel would leave them.
        crop: samples that D sees of each item, or all if there are fewer.
        periods, resolutions, channels: see `Discriminators`. By default they are narrow: a step of
            the default flow takes about half as long again.

    Raises:
        ValueError: an argument out of range.
    """

    name = "adversarial"

    def __init__(
        self,
        weight: float = 1.0,
        start: float = 0.0,
        trained_from: float | None = None,
        learning_rate: float | None = None,
        gradient_clip: float | None = None,
        feature_matching: float = 2.0,
        sweeps: int = 0,
        crop: int = 8192,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        resolutions: Sequence[int] = (256, 512, 1024),
        channels: int = 8,
    ) -> None:
        super().__init__(weight, start, trained_from, learning_rate, gradient_clip)
        if feature_matching < 0:
            raise ValueError(f"feature_matching is {feature_matching}: it is a weight, 0 or more")
        check_sweeps(sweeps)
        self.discriminators = Discriminators(periods, resolutions, channels)
        if crop < self.discriminators.longest:
            raise ValueError(
                f"crop is {crop} samples: give at least {self.discriminators.longest}, the longest "
                "period or resolution"
            )
        self.feature_matching = feature_matching
        self.sweeps = sweeps
        self.crop = crop

    def forward(self, step: Step) -> Tensor:
        generated, recorded = self._pair(step)
        features = self.discriminators(generated)
        loss = -torch.stack([_mean(layers[-1]) for layers in features]).mean()
        if self.feature_matching:
            with torch.no_grad():
                wanted = self.discriminators(recorded)
            loss = loss + self.feature_matching * feature_distance(features, wanted)
        return loss

    def own_loss(self, step: Step) -> Tensor:
        with torch.no_grad():
            generated, recorded = self._pair(step)
        return hinge_loss(self.discriminators(recorded), self.discriminators(generated))

    def _pair(self, step: Step) -> tuple[Tensor, Tensor]:
        """The stretch of the step's sample that is judged, and that of the recordings."""
        sample = step.sample
        model, audio = step.model, sample.audio
        samples = audio.shape[1]
        if samples < self.discriminators.longest:
            raise NotImplementedError(
                f"{samples} samples are shorter than the longest period or resolution of the "
                f"discriminators, {self.discriminators.longest}: give a larger speech.crop_frames"
            )
        with in_float32(audio):
            if self.sweeps:
                audio = model.consistent(audio, sample.recorded_mel, self.sweeps)
        length = min(self.crop, samples)
        first = 0
        if length < samples:
            place: Any = {"generator": step.generator, "device": audio.device}
            first = int(torch.randint(samples - length + 1, (), **place))
        end = first + length
        return audio[:, first:end], sample.recorded[:, first:end]


def hinge_loss(recorded: Features, generated: Features) -> Tensor:
    r"""The discriminators' loss on their features of recordings and of samples.

    .. math:: O = \frac1K \sum_k \operatorname{mean} \max(0, 1 - D_k(x))
        + \operatorname{mean} \max(0, 1 + D_k(\hat x))

    Returns:
        A scalar, 0 or more: 0 where all scores of recordings are above 1 and all those of samples
        below -1, 2 where all scores are 0.
    """
    losses = [
        _mean(F.relu(1 - real[-1])) + _mean(F.relu(1 + fake[-1]))
        for real, fake in zip(recorded, generated, strict=True)
    ]
    return torch.stack(losses).mean()


def feature_distance(generated: Features, recorded: Features) -> Tensor:
    r"""Feature matching: the mean absolute difference of the layers that lead to the scores.

    .. math:: \mathrm{FM} = \frac1K \sum_k \frac1L \sum_{l=1}^{L}
        \operatorname{mean} |D_k^l(\hat x) - D_k^l(x)|

    Returns:
        A scalar, 0 or more.
    """
    distances = [
        torch.stack(
            [_mean((ours - theirs).abs()) for ours, theirs in zip(g[:-1], r[:-1], strict=True)]
        ).mean()
        for g, r in zip(generated, recorded, strict=True)
    ]
    return torch.stack(distances).mean()


def _mean(values: Tensor) -> Tensor:
    """The mean, in at least float32 under any autocast."""
    return values.mean(dtype=promote(values.dtype))
