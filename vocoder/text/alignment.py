"""Which frames belong to which symbol: durations, whole numbers of frames for S states in order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monotonic_alignment_search.core import maximum_path_c
from torch import Tensor


def monotonic_alignment_search(scores: Tensor) -> Tensor:
    r"""The best monotonic alignment, in which no state is skipped.

    .. math:: \hat d = \arg\max_{d \ge 1,\; \sum_s d_s = T} \sum_{t=1}^{T} q_{t, s(t; d)}

    for scores q, (frames, states), finite, where s(t; d) is the state of frame t when state s lasts
    d_s frames. Returns d, (states,) int64; the states may not outnumber the frames. Paper: Glow-TTS
    (Kim et al., 2020), algorithm 1.
    """
    frames, states = scores.shape
    assert states <= frames
    # The library overwrites its input, so it gets a copy; it wants (batch, states, frames).
    values = scores.T.float().numpy()[np.newaxis].copy()
    path = np.zeros_like(values, dtype=np.int32)
    maximum_path_c(path, values, np.array([states], np.int32), np.array([frames], np.int32))
    return torch.from_numpy(path[0].sum(axis=1, dtype=np.int64))


def whole_durations(lengths: Tensor) -> Tensor:
    r"""Durations in whole frames from lengths in fractions of a frame.

    .. math:: d_s = \mathrm{round}\Bigl(\sum_{r \le s} l_r\Bigr)
        - \mathrm{round}\Bigl(\sum_{r < s} l_r\Bigr)

    The boundaries are rounded, not the lengths l, (states,), so errors do not add up. A state may
    get no frame. Returns (states,) int64.
    """
    ends = lengths.double().cumsum(dim=0).add(0.5).floor().long()
    return torch.diff(ends, prepend=ends.new_zeros(1))


def align(
    utterances: Sequence[tuple[Tensor, Tensor]],
    states: int = 2,
    voicing: Sequence[Tensor] | None = None,
    fit_on: int = 1000,
) -> list[Tensor]:
    r"""Alignments of the utterances of one voice, from their texts and mels alone.

    A hidden Markov model: each symbol has ``states`` states in a row, whatever its neighbours, and
    each state s a Gaussian with diagonal covariance over cepstra, their slopes and voicing. At
    first, utterances are cut into equal parts. Then two steps alternate: the Gaussians are
    estimated from the alignment, and the alignment becomes the best one under the Gaussians:

    .. math:: (\mu_s, \sigma_s) \leftarrow \text{moments of } \{y_t : s(t) = s\}, \qquad
        d \leftarrow \arg\max_d \sum_t \log \mathcal N(y_t;\ \mu_{s(t)}, \sigma_{s(t)}^2).

    This is segmental k-means, as in Rabiner, 1989, "A tutorial on hidden Markov models".

    Args:
        utterances: symbols, (symbols,) int64, and log-mel, (n_mels, frames), of each; at least one
            frame per state.
        states: states per symbol.
        voicing: probability that each frame is voiced, (frames,), for each utterance.
        fit_on: the Gaussians are estimated on this many utterances, spread over the list.

    Returns:
        Durations, (symbols * states,) int64, of each utterance.
    """
    features = [_cepstra(mel) for _, mel in utterances]
    if voicing is not None:
        signs = [2 * v.float().unsqueeze(1) - 1 for v in voicing]
        features = [torch.cat(pair, dim=1) for pair in zip(features, signs, strict=True)]
    chosen = range(0, len(features), math.ceil(len(features) / fit_on))
    sample = torch.cat([features[k] for k in chosen])
    average, deviation = sample.mean(dim=0), sample.std(dim=0).clamp_min(1e-6)
    features = [(feature - average) / deviation for feature in features]
    within = torch.arange(states)
    ids = [(symbols.unsqueeze(1) * states + within).flatten() for symbols, _ in utterances]
    shares = {k: torch.full((len(ids[k]),), len(features[k]) / len(ids[k])) for k in chosen}
    durations = {k: whole_durations(equal) for k, equal in shares.items()}
    count = int(max(int(i.max()) for i in ids)) + 1
    for _ in range(15):
        frames, first, second = torch.zeros(count, 1), *torch.zeros(2, count, len(average))
        for k in chosen:
            path = torch.repeat_interleave(ids[k], durations[k])
            frames.index_add_(0, path, torch.ones(len(path), 1))
            first.index_add_(0, path, features[k])
            second.index_add_(0, path, features[k].square())
        # One frame of average speech keeps rare states from getting too narrow.
        mean = first / (frames + 1)
        variance = ((second + 1) / (frames + 1) - mean.square()).clamp_min(0.05)
        for k in chosen:
            durations[k] = _best_path(features[k], ids[k], mean, variance)
    return [
        durations[k] if k in durations else _best_path(feature, ids[k], mean, variance)
        for k, feature in enumerate(features)
    ]


def _best_path(feature: Tensor, ids: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Durations of the best alignment of one utterance under the Gaussians of its states."""
    mean, variance = mean[ids], variance[ids]
    scores = feature @ (mean / variance).T - 0.5 * feature.square() @ (1 / variance).T
    scores -= 0.5 * (mean.square() / variance + variance.log()).sum(dim=1)
    return monotonic_alignment_search(scores)


def _cepstra(mel: Tensor, count: int = 13, reach: int = 2) -> Tensor:
    """(frames, 2 * count): the first cosine coefficients of each frame, and their slopes."""
    bands = torch.arange(mel.shape[0], dtype=torch.float32) + 0.5
    cosines = torch.cos(math.pi / mel.shape[0] * torch.outer(torch.arange(count), bands))
    cepstra = mel.T.float() @ cosines.T
    ends = torch.cat([cepstra[:1].expand(reach, -1), cepstra, cepstra[-1:].expand(reach, -1)])
    return torch.cat([cepstra, ends[2 * reach :] - ends[: -2 * reach]], dim=1)
