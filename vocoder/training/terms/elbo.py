"""The evidence lower bound of a VAE, with free bits."""

from __future__ import annotations

import torch
from torch import Tensor

from vocoder.models import VaeVocoder
from vocoder.training.step import Step

from .base import Term


class Elbo(Term):
    r"""Negative evidence lower bound of the audio, in nats per sample, with free bits.

    .. math:: -\frac1T \Bigl( \log p(x \mid z, m) -
        F \sum_j \max\bigl(\lambda, \operatorname{mean} D_j\bigr) \Bigr), \qquad
        z \sim q(z \mid x, m)

    over F frames and T samples. D_j is the KL divergence of latent channel j in a frame; its mean
    is over the frames and the batch. Up to lambda a channel costs nothing, so it pays to use it: a
    VAE whose decoder does well without its latents would otherwise shut them off (posterior
    collapse) before they learn to carry anything. Paper: Kingma et al., 2016.

    Args:
        weight, start: see `Term`.
        free_bits: lambda, in nats per latent channel and frame; 0 gives the bound itself.

    Raises:
        ValueError: free_bits below 0.
    """

    name = "negative_elbo"

    def __init__(self, weight: float = 1.0, start: float = 0.0, free_bits: float = 0.0) -> None:
        super().__init__(weight, start)
        if free_bits < 0:
            raise ValueError(f"free_bits is {free_bits}: it must be 0 or more")
        self.free_bits = free_bits

    def forward(self, step: Step) -> Tensor:
        model, audio, mel = step.model, step.audio, step.mel
        if not isinstance(model, VaeVocoder):
            raise NotImplementedError(
                f"{type(model).__name__} has no evidence lower bound: use Likelihood"
            )
        shape = (mel.shape[0], model.latent_channels, mel.shape[2])
        noise = torch.randn(shape, generator=step.generator, device=mel.device)
        bound = model.bound(audio, mel, noise)
        divergence = bound.kl.mean(dim=(0, 2)).clamp_min(self.free_bits).sum() * mel.shape[2]
        return (divergence - bound.reconstruction.mean()) / audio.shape[-1]
