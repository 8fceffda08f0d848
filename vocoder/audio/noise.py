"""Reproducible noise, indexed by seed and absolute position, and the check of its temperature."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Real

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
        seed: a non-negative integer.

    Raises:
        ValueError: the seed is negative, or not a whole number.
    """

    def __init__(self, seed: int) -> None:
        try:
            self.seed = operator.index(seed)
        except TypeError:
            self.seed = -1
        if self.seed < 0:
            raise ValueError(f"seed is {seed!r}: it must be a non-negative integer")

    def normal(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """Standard normal, (frames, per_frame), float32."""
        return self._drawn(0, first_frame, frames, per_frame)

    def uniform(self, first_frame: int, frames: int, per_frame: int) -> Tensor:
        """Uniform on [0, 1), (frames, per_frame), float32; independent of `normal`."""
        return self._drawn(1, first_frame, frames, per_frame)

    def of_items(self, rows: Sequence[int]) -> Noise:
        """The noise of some items of a batch: all have the same."""
        return self

    def _drawn(self, kind: int, first_frame: int, frames: int, per_frame: int) -> Tensor:
        draw = torch.rand if kind else torch.randn
        first, offset = divmod(first_frame, _BLOCK_FRAMES)
        blocks = []
        for block in range(first, (first_frame + max(frames, 1) - 1) // _BLOCK_FRAMES + 1):
            state = np.random.SeedSequence([self.seed, kind, block]).generate_state(1, np.uint64)
            # torch takes signed 64-bit seeds.
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            # Whole blocks, since a shorter draw need not be a prefix of a longer one.
            blocks.append(draw(_BLOCK_FRAMES, per_frame, generator=generator, dtype=torch.float32))
        return torch.cat(blocks)[offset : offset + frames]


class BatchNoise(Noise):
    """`Noise` of (items, frames, per_frame) for a batch, of one seed each, as each has alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.items = [Noise(seed) for seed in seeds]

    def of_items(self, rows: Sequence[int]) -> Noise:
        return BatchNoise([self.items[row].seed for row in rows])

    def _drawn(self, kind: int, first_frame: int, frames: int, per_frame: int) -> Tensor:
        drawn = [item._drawn(kind, first_frame, frames, per_frame) for item in self.items]
        return torch.stack(drawn)


def fresh_seed() -> int:
    """A new seed, drawn from torch's global generator."""
    return int(torch.randint(2**62, ()).item())


def batch_noise(seed: int | Sequence[int] | None, items: int) -> Noise:
    """The noise of a batch, the same for all items or of one seed each; None draws a new seed.

    Raises:
        ValueError: the number of seeds is not that of the items, or a seed is out of range.
    """
    if not isinstance(seed, Iterable) or isinstance(seed, str):
        return Noise(fresh_seed() if seed is None else seed)
    seeds = list(seed)
    if len(seeds) != items:
        raise ValueError(
            f"seeds {seeds} do not fit a batch of {items} mels: give one for all, or one per item"
        )
    return BatchNoise(seeds)


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """Check a temperature, the scale of noise.

    Raises:
        ValueError: the temperature is negative, beyond `MOST_TEMPERATURE`, NaN, or not a number.
    """
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not (number and 0 <= temperature <= MOST_TEMPERATURE):
        raise ValueError(f"{name} is {temperature!r}: it must be a number from 0 up, usually to 1")
