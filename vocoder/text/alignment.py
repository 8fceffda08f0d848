"""Which frames belong to which symbol: monotonic alignment search and related algorithms.

An alignment of S states with T frames is given by durations: a whole number of frames for each
state, in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        scores: q, (batch, frames, states), finite; values in the padding do not matter.
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
            "of the batch): every state lasts at least one frame"
        )
    # The library overwrites its input, so it gets a copy; it wants (batch, states, frames).
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
    r"""Probability that each frame falls into each state, with a uniform prior over alignments.

    .. math:: \gamma_{t,s} = P(s(t) = s \mid q) \propto
        \sum_{d:\, s(t; d) = s} \exp \sum_{t'} q_{t', s(t'; d)}

    Computed by the forward-backward algorithm. It shows how certain the alignment is: the mean over
    frames of the greatest value is 1 if only one alignment is plausible.

    Args:
        scores: q of one utterance, (frames, states), in nats.

    Returns:
        (frames, states), float64; rows sum to 1.
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
        frames: number of frames to look up.
    """
    ends = durations.cumsum(dim=1)
    index = torch.arange(frames, device=durations.device).expand(durations.shape[0], -1)
    return torch.searchsorted(ends, index.contiguous(), right=True)


def whole_durations(lengths: Tensor) -> Tensor:
    r"""Durations in whole frames from lengths in fractions of a frame.

    .. math:: d_s = \mathrm{round}\Bigl(\sum_{r \le s} l_r\Bigr)
        - \mathrm{round}\Bigl(\sum_{r < s} l_r\Bigr)

    The boundaries are rounded, not the lengths, so errors do not add up: the total is within half a
    frame of that of the lengths. A state may get no frame.

    Args:
        lengths: l, (states,), not negative, in frames.

    Returns:
        (states,) int64.
    """
    ends = lengths.double().cumsum(dim=0).add(0.5).floor().long()
    return torch.diff(ends, prepend=ends.new_zeros(1))


def flat_start(
    utterances: Sequence[tuple[Tensor, Tensor]], states: int, iterations: int = 12
) -> list[Tensor]:
    r"""Alignments of a corpus by a hidden Markov model, from its texts and mels alone.

    Each symbol has ``states`` states, whatever its neighbours, and each state s a Gaussian with
    diagonal covariance over cepstra and their slopes. At first, utterances are cut into equal
    parts. Then two steps alternate: the Gaussians are estimated from the alignment, and the
    alignment becomes the best one under the Gaussians:

    .. math:: (\mu_s, \sigma_s) \leftarrow \text{moments of } \{y_t : s(t) = s\}, \qquad
        d \leftarrow \arg\max_d \sum_t \log \mathcal N(y_t;\ \mu_{s(t)}, \sigma_{s(t)}^2).

    This is the classic start of speech recognisers (segmental k-means; Rabiner, 1989, "A tutorial
    on hidden Markov models"). It takes seconds; a flow trained by gradients needs thousands of
    steps to find the same alignments, since its encoder can adapt to any wrong one.

    Args:
        utterances: symbols, (symbols,) int64, and log-mel, (n_mels, frames), of each; at least
            ``states`` frames per symbol.
        states: states per symbol.
        iterations: rounds of estimating and aligning.

    Returns:
        Durations, (symbols * states,) int64, of each utterance.
    """
    features = [_cepstra(mel) for _, mel in utterances]
    everything = torch.cat(features)
    average, deviation = everything.mean(dim=0), everything.std(dim=0).clamp_min(1e-6)
    features = [(feature - average) / deviation for feature in features]
    ids = [
        (symbols.unsqueeze(1) * states + torch.arange(states)).flatten()
        for symbols, _ in utterances
    ]
    count = int(max(int(i.max()) for i in ids)) + 1
    durations = [
        whole_durations(torch.full((len(i),), len(feature) / len(i)))
        for i, feature in zip(ids, features, strict=True)
    ]
    for _ in range(iterations):
        frames, first, second = torch.zeros(count, 1), *torch.zeros(2, count, len(average))
        for i, feature, duration in zip(ids, features, durations, strict=True):
            path = torch.repeat_interleave(i, duration)
            frames.index_add_(0, path, torch.ones(len(path), 1))
            first.index_add_(0, path, feature)
            second.index_add_(0, path, feature.square())
        # One frame of average speech keeps rare states from getting too narrow.
        mean = first / (frames + 1)
        variance = (second + 1) / (frames + 1) - mean.square()
        variance = variance.clamp_min(0.05)
        offset = -0.5 * (mean.square() / variance + variance.log()).sum(dim=1)
        for item, (i, feature) in enumerate(zip(ids, features, strict=True)):
            scores = (
                offset + feature @ (mean / variance).T - 0.5 * feature.square() @ (1 / variance).T
            )
            durations[item] = monotonic_alignment_search(
                scores[:, i].unsqueeze(0), torch.tensor([len(i)]), torch.tensor([len(feature)])
            )[0]
    return durations


def _cepstra(mel: Tensor, count: int = 13, reach: int = 2) -> Tensor:
    """(frames, 2 * count): the first cosine coefficients of each frame, and their slopes."""
    bands = torch.arange(mel.shape[0], dtype=torch.float32) + 0.5
    cosines = torch.cos(math.pi / mel.shape[0] * torch.outer(torch.arange(count), bands))
    cepstra = mel.T.float() @ cosines.T
    ends = torch.cat([cepstra[:1].expand(reach, -1), cepstra, cepstra[-1:].expand(reach, -1)])
    return torch.cat([cepstra, ends[2 * reach :] - ends[: -2 * reach]], dim=1)
