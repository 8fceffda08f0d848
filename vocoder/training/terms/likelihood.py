"""The exact likelihood."""

from __future__ import annotations

from torch import Tensor

from vocoder.training.step import Step

from .base import Term


class Likelihood(Term):
    r"""Negative log-likelihood of the audio, in nats per sample: :math:`-\log p(x \mid m) / T`."""

    name = "nll"

    def forward(self, step: Step) -> Tensor:
        return step.nll
