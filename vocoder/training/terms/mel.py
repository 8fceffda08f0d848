"""Distance of the sample's mel from that of the recording."""

from __future__ import annotations

from torch import Tensor

from vocoder.training.step import Step

from .base import Term, in_float32


class Mel(Term):
    r"""Mean absolute difference of log-mels in nats: :math:`\operatorname{mean} |m - M(\hat x)|`.

    M is the model's own log-mel and x̂ the step's sample.
    """

    name = "mel_distance"

    def forward(self, step: Step) -> Tensor:
        sample = step.sample
        with in_float32(sample.audio):
            return step.model.mel_spec.distance(sample.mel, sample.recorded_mel)
