"""The prior of a text over the latents of its mel: a Gaussian and a duration for every state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vocoder.text.alignment import state_of_frame
from vocoder.text.mel_flow import FRAMES_PER_STEP


class Prior(NamedTuple):
    """Gaussians over latent frames, and durations, of the states of a batch of texts.

    mean, log_scale: (batch, states, 2, n_mels), for frames of even and of odd index.
    log_duration: (batch, states), log of the expected number of frames.
    states: number of states of each item, (batch,).
    """

    mean: Tensor
    log_scale: Tensor
    log_duration: Tensor
    states: Tensor

    def mask(self) -> Tensor:
        """(batch, states), true where there is no padding."""
        return length_mask(self.states, self.mean.shape[1])

    def frames(self, durations: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Mean and log-scale of every frame, (batch, n_mels, count) each.

        Args:
            durations: frames of every state, (batch, states).
            count: number of frames.
        """
        state = state_of_frame(durations, count).clamp(max=self.mean.shape[1] - 1)
        odd = torch.arange(count, device=state.device) % FRAMES_PER_STEP
        batch = torch.arange(state.shape[0], device=state.device).unsqueeze(1)
        # (batch, states, 2, n_mels) at (batch, frames) -> (batch, frames, n_mels)
        mean, log_scale = (x[batch, state, odd] for x in (self.mean, self.log_scale))
        return mean.transpose(1, 2), log_scale.transpose(1, 2)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """(batch, size), true before the end of each item; ``lengths`` is (batch,)."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
