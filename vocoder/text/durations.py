"""How long each state lasts: the network that predicts durations, its loss, and whole frames."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.text.alignment import whole_durations
from vocoder.text.mel_flow import FRAMES_PER_STEP
from vocoder.text.settings import check_speaking_rate


class DurationPredictor(nn.Module):
    """Log of the mean duration in frames of every state: (batch, time, channels) -> (..., states).

    Two convolutions, as in FastSpeech (Ren et al., 2019) and Glow-TTS.
    """

    def __init__(self, channels: int, states: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, states)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        keep = mask.unsqueeze(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.relu(convolution(x.transpose(1, 2) * keep)).transpose(1, 2)
            x = self.dropout(norm(hidden))
        result: Tensor = self.out(x)
        return result


def duration_loss(log_duration: Tensor, durations: Tensor, mask: Tensor) -> Tensor:
    r"""Mean of :math:`l + d e^{-l}` over the states where ``mask`` is true, a scalar.

    The negative log-likelihood of durations d that are exponentially distributed with mean e^l, so
    the mean duration is learnt. (A squared error of logarithms would give the geometric mean, and
    rushed speech.)
    """
    each = log_duration + durations * (-log_duration).exp()
    return each.masked_fill(~mask, 0.0).sum() / mask.sum()


def spoken_durations(log_duration: Tensor, speaking_rate: float) -> Tensor:
    """Whole frames of every state of one sentence, (states,) int64, on the CPU.

    Their sum is even, at least 2; the last state is lengthened if need be.

    Args:
        log_duration: (states,), from `DurationPredictor`.
        speaking_rate: 2 is twice as fast, 0.5 half as fast; 0.25 to 4.

    Raises:
        ValueError: the speaking rate is out of range.
    """
    check_speaking_rate(speaking_rate)
    durations = whole_durations(log_duration.double().exp().cpu() / speaking_rate)
    total = int(durations.sum())
    durations[-1] += max(-total % FRAMES_PER_STEP, FRAMES_PER_STEP - total)
    return durations
