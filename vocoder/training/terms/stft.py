"""Distance of the sample from the recording in spectra of several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vocoder.training.step import Step

from .base import Term, in_float32


class Stft(Term):
    r"""Multi-resolution STFT distance of the step's sample from the recording.

    :math:`D_{STFT}(\hat x, x)`, see `multi_resolution_stft`. Likelihood alone spends its effort on
    noise; this term gives up some nats for better sound. Paper: WG-WaveNet (Hsu and Lee, 2020)
    trains a flow in this way.

    Args:
        weight, start: see `Term`. Audio from an untrained flow has nothing to teach, so start
            after a tenth of the budget or later.
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
        with in_float32(sample.audio):
            return multi_resolution_stft(sample.audio, sample.recorded, self.resolutions)


def multi_resolution_stft(
    generated: Tensor, recorded: Tensor, resolutions: Sequence[int] = (512, 1024, 2048)
) -> Tensor:
    r"""Spectral convergence and log-magnitude distance, averaged over STFT resolutions.

    .. math:: D_{STFT}(\hat x, x) = \frac1R \sum_r \frac{\lVert S_r(x) - S_r(\hat x) \rVert_F}
        {\lVert S_r(x) \rVert_F} + \operatorname{mean} |\log S_r(x) - \log S_r(\hat x)|

    S is the magnitude under a Hann window, at least 1e-4 (about the noise of 16 bits). Paper:
    Parallel WaveGAN (Yamamoto et al., 2020).

    Args:
        generated, recorded: x̂ and x, (batch, samples), in [-1, 1]; at least half of the longest
            resolution.
        resolutions: FFT lengths in samples.

    Returns:
        A scalar without unit.
    """
    total = generated.new_zeros(())
    for size in resolutions:
        ours, theirs = _magnitude(generated, size), _magnitude(recorded, size)
        difference = torch.linalg.vector_norm(theirs - ours, dim=(1, 2))
        convergence = difference / torch.linalg.vector_norm(theirs, dim=(1, 2))
        total = total + convergence.mean() + (theirs.log() - ours.log()).abs().mean()
    return total / len(resolutions)


def _magnitude(audio: Tensor, size: int) -> Tensor:
    """(batch, bins, frames), at a hop of a quarter of the FFT length."""
    window = torch.hann_window(size, device=audio.device, dtype=audio.dtype)
    stft = torch.stft(audio, size, size // 4, size, window, return_complex=True)
    return stft.abs().clamp_min(1e-4)
