"""Compiled loops: what the tests of their models do not show."""

from __future__ import annotations

import shutil
from pathlib import Path

import numba
import pytest

from vocoder.backends import jit


def test_without_a_folder_for_the_cache_it_compiles_all_the_same() -> None:
    namespace: dict[str, object] = {}
    exec("def double(x): return 2 * x", namespace)  # of no file, so that no cache has a place
    assert jit.jit(set())(namespace["double"])(21) == 42


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
