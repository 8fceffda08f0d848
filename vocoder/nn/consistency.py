"""Sweeps of mel consistency in which networks add to the gains: learnt sweeps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio.consistency import MOMENTUM, MelConsistency, phases_of
from vocoder.audio.mel_spec import MelSpec


class LearntConsistency(MelConsistency):
    r"""`MelConsistency` whose first steps know what speech looks like.

    .. math:: C_i = X\, \bigl(e^{W r + g_i(r, s)} - 1\bigr)

    Each of the first (half) steps has a `GainNetwork` g_i and a momentum of its own, which starts
    at 0.9; all later steps are plain, so any number of sweeps can follow. Untrained, they are plain
    as well. A step may also move magnitudes that the mel leaves open, such as those between two
    harmonics.

    The networks see r of the past and present frames of their step, and s of two frames on either
    side, so they do not look further ahead than plain steps where s is known in time.

    Args:
        mel_spec: the convention of the mel.
        learnt: number of sweeps that are learnt.
        n_seen: channels of s.
        channels: width of the networks.
    """

    def __init__(self, mel_spec: MelSpec, learnt: int, n_seen: int, channels: int = 128) -> None:
        super().__init__(mel_spec)
        steps = phases_of(mel_spec) * learnt
        self.networks = nn.ModuleList(GainNetwork(mel_spec, n_seen, channels) for _ in range(steps))
        self.momenta = nn.Parameter(torch.full((steps,), MOMENTUM))

    def momentum(self, number: int) -> Tensor | float:
        return self.momenta[number] if number < len(self.networks) else MOMENTUM

    def gain(self, number: int, ratio: Tensor, seen: Tensor | None) -> Tensor:
        plain = super().gain(number, ratio, seen)
        if number >= len(self.networks):
            return plain
        assert seen is not None
        learnt: Tensor = self.networks[number](ratio, seen, number % phases_of(self.mel_spec))
        return plain + learnt


class GainNetwork(nn.Module):
    r"""What one learnt step adds to the log gain of each bin.

    .. math:: a_k = \gamma(A * r + B * s), \qquad b_k = a_k + \gamma(D * a), \qquad
        g_k = 2 \tanh(G b_k / 2)

    over the frames k of the step, with the GELU gamma. A and D have three taps, on the step's frame
    k and the two before it; B has five, on frames around k, those of the other step among them. G
    starts at zero. g is bounded: a step changes a magnitude by two nats beyond plain ones at most.

    Args:
        mel_spec: the convention of the mel.
        n_seen: channels of s.
        channels: width.
    """

    def __init__(self, mel_spec: MelSpec, n_seen: int, channels: int) -> None:
        super().__init__()
        self.stride = phases_of(mel_spec)
        self.ratio = nn.Conv1d(mel_spec.n_mels, channels, PAST + 1, bias=False)
        self.seen = nn.Conv1d(n_seen, channels, 2 * AROUND + 1, stride=self.stride)
        self.middle = nn.Conv1d(channels, channels, PAST + 1)
        self.last = nn.Conv1d(channels, mel_spec.n_fft // 2 + 1, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, ratio: Tensor, seen: Tensor, phase: int) -> Tensor:
        """g of the frames of a step, (batch, count, bins), in nats.

        Args:
            ratio: r, (batch, count, n_mels).
            seen: s of all frames, (batch, n_seen, frames).
            phase: the number of the step's first frame.
        """
        x = self.ratio(F.pad(ratio.transpose(1, 2), (PAST, 0)))
        x = F.gelu(x + self.seen(F.pad(seen, (AROUND - phase, AROUND + phase)))[:, :, : x.shape[2]])
        x = x + F.gelu(self.middle(F.pad(x, (PAST, 0))))
        y: Tensor = self.last(x)
        return BOUND * torch.tanh(y.transpose(1, 2) / BOUND)


PAST = 2
"""Frames of the same step before a frame on which its gain depends."""

AROUND = 2
"""Frames before and after a frame whose s its gain depends on."""

BOUND = 2.0
