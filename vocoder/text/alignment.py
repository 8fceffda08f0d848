"""Which frames belong to which symbol: monotonic alignment search, and what follows from it.

An alignment of S states with T frames is given by durations: whole numbers of frames, one a
state, in order.
"""

from __future__ import annotations

import numpy as np
import torch
from monotonic_alignment_search.core import maximum_path_c
from torch import Tensor


def monotonic_alignment_search(scores: Tensor, states: Tensor, frames: Tensor) -> Tensor:
    r"""The best monotonic alignment, in which no state is skipped.

    .. math:: \hat d = \arg\max_{d \ge 1,\; \sum_s d_s = T} \sum_{t=1}^{T} q_{t, s(t; d)}

    where s(t; d) is the state that frame t falls into when state s lasts d_s frames. Found by
    dynamic programming in O(T S). Paper: Glow-TTS (Kim et al., 2020), algorithm 1.

    Args:
        scores: q, (batch, frames, states), finite; what padding holds does not matter.
        states: S of each item, (batch,).
        frames: T of each item, (batch,).

    Returns:
        Durations (batch, states), int64, 0 where there is padding.

    Raises:
        ValueError: an item has more states than frames.
    """
    short = (states > frames).nonzero().flatten().tolist()
    if short:
        item = short[0]
        raise ValueError(
            f"{int(states[item])} states do not fit into {int(frames[item])} frames (item {item} "
            "of the batch): every state lasts a frame at least"
        )
    # The library adds up in place, so it gets a copy; it wants (batch, states, frames).
    values = scores.detach().transpose(1, 2).float().cpu().contiguous().numpy().copy()
    path = np.zeros(values.shape, dtype=np.int32)
    maximum_path_c(
        path,
        values,
        states.cpu().numpy().astype(np.int32),
        frames.cpu().numpy().astype(np.int32),
    )
    return torch.from_numpy(path.sum(axis=2, dtype=np.int64)).to(scores.device)


def alignment_posterior(scores: Tensor) -> Tensor:
    r"""Probability that each frame falls into each state, if all alignments are alike beforehand.

    .. math:: \gamma_{t,s} = P(s(t) = s \mid q) \propto
        \sum_{d:\, s(t; d) = s} \exp \sum_{t'} q_{t', s(t'; d)}

    By the forward-backward algorithm. How sure the alignment is can be read off it: the mean over
    frames of the greatest value is 1 where one alignment is beyond doubt.

    Args:
        scores: q of one utterance, (frames, states), in nats.

    Returns:
        (frames, states), float64, rows that add up to 1.
    """
    q = scores.double()
    frames, states = q.shape
    if states > frames:
        raise ValueError(f"{states} states do not fit into {frames} frames")
    nothing = q.new_full((1,), -torch.inf)
    forward, backward = torch.empty_like(q), torch.empty_like(q)
    forward[0] = -torch.inf
    forward[0, 0] = q[0, 0]
    for t in range(1, frames):
        forward[t] = q[t] + torch.logaddexp(
            forward[t - 1], torch.cat([nothing, forward[t - 1, :-1]])
        )
    backward[-1] = -torch.inf
    backward[-1, -1] = 0.0
    for t in range(frames - 2, -1, -1):
        after = backward[t + 1] + q[t + 1]
        backward[t] = torch.logaddexp(after, torch.cat([after[1:], nothing]))
    return torch.softmax(forward + backward, dim=1)


def state_of_frame(durations: Tensor, frames: int) -> Tensor:
    """Index of the state that each frame falls into: (batch, frames) int64.

    Frames after the end of an item get its number of states, so clamp before indexing.

    Args:
        durations: (batch, states), whole numbers.
        frames: how many frames to look up.
    """
    ends = durations.cumsum(dim=1)
    index = torch.arange(frames, device=durations.device).expand(durations.shape[0], -1)
    return torch.searchsorted(ends, index.contiguous(), right=True)


def diagonal_prior(states: Tensor, frames: Tensor, width: float) -> Tensor:
    r"""What to add to alignment scores so that paths near the diagonal are preferred.

    .. math:: -\frac{1}{2 w^2}
        \Bigl(\frac{t - \frac12}{T} - \frac{s - \frac12}{S}\Bigr)^2

    for t = 1 .. T and s = 1 .. S: the log-density, up to a constant, of a normal distribution of
    the relative position. An untrained model, to which all states look alike, needs it to begin
    with something better than chance.

    Args:
        states: S of each item, (batch,).
        frames: T of each item, (batch,).
        width: w, as a fraction of the utterance.

    Returns:
        (batch, max T, max S), float32.
    """
    device = frames.device
    t = (torch.arange(int(frames.max()), device=device) + 0.5) / frames.unsqueeze(1)
    s = (torch.arange(int(states.max()), device=device) + 0.5) / states.unsqueeze(1)
    return -0.5 * ((t.unsqueeze(2) - s.unsqueeze(1)) / width).square()


def whole_durations(lengths: Tensor) -> Tensor:
    r"""Durations in whole frames from lengths in fractions of a frame.

    .. math:: d_s = \mathrm{round}\Bigl(\sum_{r \le s} l_r\Bigr)
        - \mathrm{round}\Bigl(\sum_{r < s} l_r\Bigr)

    The boundaries are rounded, not the lengths, so that errors do not add up: the total is that
    of the lengths within half a frame. A state may come out with no frame.

    Args:
        lengths: l, (states,), not negative, in frames.

    Returns:
        (states,) int64.
    """
    ends = lengths.double().cumsum(dim=0).add(0.5).floor().long()
    return torch.diff(ends, prepend=ends.new_zeros(1))
