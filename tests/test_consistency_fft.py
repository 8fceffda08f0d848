"""The transform of eight frames, and the vector code that it is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from vocoder.audio import MelSpec
from vocoder.engines.consistency import fft
from vocoder.engines.consistency.lanes import LANES, Array, Index, kernel, transposed
from vocoder.engines.consistency.plan import plan_of
from vocoder.engines.consistency.step import BLOCK, step_of

SIZES = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
every_size = pytest.mark.parametrize("n_fft", SIZES)


@numba.njit
def _forward(tile: Any, tables: Any, out: Any) -> None:
    fft.forward(tile, tables, out)


@numba.njit
def _inverse(tile: Any, tables: Any, gains: Any) -> None:
    fft.inverse(tile, tables, gains)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def transformed(tile: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What `forward` makes of a tile, and the power."""
    tile = tile.copy()
    power = np.empty((len(tile) // 2 + 1, LANES), np.float32)
    _forward(tile, fft.tables(len(tile)), power)
    return tile, power


@every_size
def test_forward_is_the_fourier_transform(n_fft: int) -> None:
    frames = noise(n_fft, LANES)
    expected = 2 * np.fft.rfft(frames.astype(float), axis=0)
    tile, power = transformed(frames)
    scale = np.abs(expected).max()
    assert np.abs(np.sqrt(power) - np.abs(expected)).max() < 1e-6 * scale
    values = tile.reshape(-1, 2, LANES)
    offsets = fft.tables(n_fft).offsets // (2 * LANES)
    assert sorted(offsets) == list(range(n_fft // 2))
    bins = (values[:, 0] + 1j * values[:, 1])[offsets]
    assert np.abs(bins[1:] - expected[1:-1]).max() < 1e-6 * scale
    assert np.abs(bins[0] - (expected[0].real + 1j * expected[-1].real)).max() < 1e-6 * scale


@every_size
def test_inverse_applies_gains(n_fft: int) -> None:
    frames = noise(n_fft, LANES)
    gains = noise(n_fft // 2 + 1, LANES, seed=1)
    expected = np.fft.irfft(gains * np.fft.rfft(frames.astype(float), axis=0), n_fft, axis=0)
    tile, _ = transformed(frames)
    _inverse(tile, fft.tables(n_fft), gains)
    assert np.abs(tile / (2 * n_fft) - expected).max() < 2e-6 * np.abs(expected).max()


@every_size
def test_lanes_do_not_mix(n_fft: int) -> None:
    frames = noise(n_fft, LANES)
    moved = np.roll(frames, 3, axis=1)
    moved[:, 0] = np.inf
    for expected, own in zip(transformed(frames), transformed(moved), strict=True):
        assert np.array_equal(np.roll(expected, 3, axis=1)[:, 1:], own[:, 1:])


def test_sizes() -> None:
    assert [n for n in range(5000) if fft.suits(n)] == SIZES


@pytest.mark.parametrize("n_fft", [1024, 1000])
def test_a_frame_does_not_depend_on_its_place(n_fft: int) -> None:
    preset = MelSpec.preset("ljspeech")
    spec = dataclasses.replace(preset, n_fft=n_fft, win_length=n_fft, hop_length=250)
    step = step_of(plan_of(spec))
    distance = step.plan.distance
    w, target = noise(n_fft + BLOCK * distance), np.exp(noise(BLOCK, 80, seed=1))
    step.analyse(w, target)
    frames = step.r.swapaxes(1, 2).reshape(BLOCK, -1).copy()
    assert np.abs(frames[:, :-1]).min() > 0
    for first, last in ((0, 1), (5, 6), (3, 14), (BLOCK - 1, BLOCK)):
        step.analyse(w[first * distance :], target[first:last])
        own = step.r.swapaxes(1, 2).reshape(BLOCK, -1)[: last - first]
        assert np.array_equal(own, frames[first:last])


@kernel
def _transpose(x: Array, at: Index) -> None:
    places = [at + LANES * row for row in range(LANES)]
    for place, row in zip(places, transposed([x[place] for place in places]), strict=True):
        x[place] = row


@numba.njit
def _transpose_all(x: Any) -> None:
    _transpose(x, 0)


def test_vectors_are_transposed() -> None:
    x = noise(LANES, LANES)
    expected = x.T.copy()
    _transpose_all(x)
    assert np.array_equal(x, expected)


@pytest.mark.parametrize("x", [np.zeros(64), np.zeros(128, np.float32)[::2]], ids=["64", "stride"])
def test_kernels_refuse_other_arrays(x: NDArray[Any]) -> None:
    with pytest.raises(TypingError, match="contiguous float32 arrays"):
        _transpose_all(x)
