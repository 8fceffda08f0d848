"""The pieces of the compiled loops, each against PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from vocoder.engines import autoregressive as compiled
from vocoder.engines import jit
from vocoder.nn.upsampling import LinearUpsampling

RNG = np.random.default_rng(0)


def floats(*shape: int) -> compiled.Floats:
    return RNG.standard_normal(shape).astype(np.float32)


def test_tanh_and_sigmoid_are_exact_to_rounding() -> None:
    x = np.linspace(-30, 30, 20001, dtype=np.float32)
    one, y = np.full_like(x, 30), np.empty_like(x)
    compiled.gate(x, one, y)
    assert np.abs(y - np.tanh(x.astype(np.float64))).max() < 4e-7
    compiled.gate(one, x, y)
    assert np.abs(y - 1 / (1 + np.exp(-x.astype(np.float64)))).max() < 4e-7


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (8, 33), (13, 64)])
def test_multiply_add_is_a_matrix_product(rows: int, n: int, m: int) -> None:
    x, w, y = floats(rows, n), floats(n, m), floats(rows + 2, m)
    expected = y.copy()
    expected[1 : rows + 1] += x @ w
    compiled.multiply_add(x, w, y, 1, rows)
    assert np.allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hop", [1, 2, 7])
def test_interpolate_is_linear_upsampling(hop: int) -> None:
    upsampling = LinearUpsampling(hop)
    frames = floats(6, 9)
    expected = upsampling(torch.from_numpy(frames.T[None].copy()))[0].T  # (4 * hop, 9)
    out = np.empty(5, np.float32)
    for t in range(4 * hop):
        weights = upsampling.weights.numpy()
        compiled.interpolate(frames, t // hop, weights, t % hop, 3, out)
        assert np.allclose(out, expected[t, 3:8], atol=1e-6)


def test_linear_upsampling_is_what_torch_interpolates_between_the_ends() -> None:
    frames = torch.randn(2, 3, 8)
    expected = torch.nn.functional.interpolate(frames, scale_factor=5.0, mode="linear")
    assert torch.allclose(LinearUpsampling(5)(frames), expected[..., 5:-5], atol=1e-6)


def test_without_a_folder_for_the_cache_it_compiles_all_the_same() -> None:
    namespace: dict[str, object] = {}
    exec("def double(x): return 2 * x", namespace)  # of no file, so that no cache has a place
    assert compiled._compile(namespace["double"])(21) == 42


def test_a_read_only_installation_without_a_home_gets_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What librosa compiles on its import would otherwise end in an error of numba."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(jit, "_can_write", lambda folder: False)
    jit.give_cache_to("numba")
    given = Path(numba.config.CACHE_DIR)
    assert list(given.iterdir()) == []  # it is there
    shutil.rmtree(given)
    monkeypatch.undo()
    assert jit._can_write(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not jit._can_write(tmp_path / "file" / "b")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    jit.give_cache_to("numba")
    assert str(tmp_path) == numba.config.CACHE_DIR  # the user's own
