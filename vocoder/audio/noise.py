"""Reproducible noise, indexed by seed and absolute position, and the check of its temperature."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Noise is drawn in blocks of this many frames, each with its own generator, so that any stretch of
# a signal can be drawn without the noise before it.
_BLOCK_FRAMES = 32


MOST_TEMPERATURE = 1e6
"""Highest temperature: beyond, samples overflow."""


class Noise:
    """Standard normal and uniform noise as a function of (seed, absolute mel-frame index) only.

    The same frames give the same numbers alone or in a batch, in one pass or streaming, on any
    device (they are drawn on the CPU).

    Args:
        seed: a non-negative integer; or one for each item of a batch, whose noise then has the
            axis of the batch first.

    Raises:
        ValueError: a seed is negative, or not a whole number.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.seed = [_checked(s) for s in seed] if isinstance(seed, Sequence) else _checked(seed)

    def normal(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """Standard normal, (frames, per_frame) or (batch, frames, per_frame), float32."""
        return self._drawn(0, torch.randn, first_frame, frames, per_frame)

    def uniform(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """Uniform on [0, 1), (frames, per_frame) or (batch, frames, per_frame), float32;
        independent of `normal`.
        """
        return self._drawn(1, torch.rand, first_frame, frames, per_frame)

    def _drawn(self, *what: Any) -> Tensor:
        if isinstance(self.seed, int):
            return self._blocks(self.seed, *what)
        return torch.stack([self._blocks(seed, *what) for seed in self.seed])

    @staticmethod
    def _blocks(
        seed: int,
        kind: int,
        draw: Callable[..., Tensor],
        first_frame: int,
        frames: int,
        per_frame: int,
    ) -> Tensor:
        first_block = first_frame // _BLOCK_FRAMES
        last_block = (first_frame + max(frames, 1) - 1) // _BLOCK_FRAMES
        blocks = []
        for block in range(first_block, last_block + 1):
            state = np.random.SeedSequence([seed, kind, block]).generate_state(1, np.uint64)
            # torch takes signed 64-bit seeds.
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            # Whole blocks, since a shorter draw need not be a prefix of a longer one.
            blocks.append(draw(_BLOCK_FRAMES, per_frame, generator=generator, dtype=torch.float32))
        offset = first_frame - first_block * _BLOCK_FRAMES
        return torch.cat(blocks)[offset : offset + frames]


def _checked(seed: object) -> int:
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"seed is {seed!r}: it must be a non-negative integer")
    return number


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Check a temperature, the scale of noise.

    Raises:
        ValueError: the temperature is negative, beyond `MOST_TEMPERATURE`, NaN, or not a number.
    """
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not (number and 0 <= temperature <= MOST_TEMPERATURE):
        raise ValueError(f"{name} is {temperature!r}: it must be a number from 0 up, usually to 1")
