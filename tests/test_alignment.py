"""Monotonic alignment search and its companions, against counting every alignment."""

import itertools

import numpy as np
import pytest
import torch

from vocoder.text.alignment import align, monotonic_alignment_search, whole_durations


def every_alignment(states, frames):
    """The durations of all alignments: every way to cut the frames into so many pieces."""
    cuts = itertools.combinations(range(1, frames), states - 1)
    return [[b - a for a, b in itertools.pairwise((0, *inner, frames))] for inner in cuts]


def path(durations):
    """The state of every frame, (frames,)."""
    return torch.repeat_interleave(torch.arange(len(durations)), torch.tensor(durations))


SIZES = [(1, 1), (1, 6), (6, 6), (2, 7), (4, 9), (5, 11)]


@pytest.mark.parametrize("states, frames", SIZES)
def test_search_finds_the_best_of_all_alignments(states, frames):
    generator = torch.Generator().manual_seed(states + 100 * frames)
    alignments = every_alignment(states, frames)
    paths = torch.stack([path(durations) for durations in alignments])
    for _ in range(20):
        scores = 10 * torch.randn(frames, states, generator=generator)
        kept = scores.clone()
        totals = scores[torch.arange(frames), paths].sum(1)
        assert monotonic_alignment_search(scores).tolist() == alignments[int(totals.argmax())]
        assert torch.equal(scores, kept)


@pytest.mark.parametrize("fit_on", [1000, 20])
def test_hidden_durations_are_found(fit_on):
    """Symbols of different spectra, in random order and of random length, in noise."""
    rng = np.random.default_rng(0)
    spectra = rng.normal(0, 2, (8, 20))
    utterances, hidden = [], []
    for _ in range(40):
        symbols = rng.integers(8, size=12)
        # The boundary within a repeated symbol could not be found.
        symbols = symbols[np.diff(symbols, prepend=-1) != 0]
        durations = rng.integers(2, 15, len(symbols))
        clean = np.repeat(spectra[symbols], durations, axis=0)
        mel = torch.from_numpy(clean + rng.normal(0, 0.5, clean.shape)).T.float()
        utterances.append((torch.from_numpy(symbols), mel))
        hidden.append(durations)
    found = align(utterances, states=1, fit_on=fit_on)
    errors = []
    for own, expected, (_, mel) in zip(found, hidden, utterances, strict=True):
        assert int(own.sum()) == mel.shape[1]
        assert (own >= 1).all()
        errors.append(np.abs(np.cumsum(own.numpy()) - np.cumsum(expected)))
    assert np.mean(np.concatenate(errors) <= 1) > 0.95
    # The equal parts that it starts from are far off.
    even = [np.abs(np.linspace(0, h.sum(), len(h) + 1)[1:] - np.cumsum(h)) for h in hidden]
    assert np.mean(np.concatenate(even) <= 1) < 0.5


def test_rounded_durations_keep_the_total():
    lengths = torch.full((1000,), 0.4)
    whole = whole_durations(lengths)
    assert whole.sum() == 400
    assert set(whole.tolist()) == {0, 1}
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = 10 * torch.rand(30, generator=generator)
        whole = whole_durations(lengths)
        assert (whole >= 0).all()
        assert abs(float(whole.sum()) - float(lengths.sum())) <= 0.5 + 1e-6
        assert (whole - lengths).abs().max() <= 1
