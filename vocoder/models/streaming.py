"""Long mels and streams: windows with their context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Renderer = Callable[[Tensor, int, int, int], Tensor]
"""(window of mel (batch, n_mels, frames), index of its first frame, first frame to render, the one
after the last) -> (..., samples) from the first frame to render to the end of the window."""


def in_windows(
    pieces: Iterable[tuple[T, Tensor]],
    context: tuple[int, int],
    render: Renderer,
    size: int = 1,
    unit: int = 1,
) -> Iterator[tuple[T, Tensor, bool]]:
    """Calls a `Renderer` for consecutive frames of a mel that comes in pieces, in constant memory.

    Args:
        pieces: mel (batch, n_mels, frames), each with a tag.
        context: frames before and after a frame that it depends on.
        size: samples that the renderer makes of a frame.
        unit: frames are rendered, and windows begin, at multiples of this.

    Yields:
        The tag of each piece, what it completes, (..., samples), which may be nothing, and False;
        after the last one, its tag, the rest, and True.
    """
    (past, ahead), start, done = context, 0, 0  # index of the first frame held, of the next to make
    held: Tensor | None = None

    @torch.no_grad()
    def until(held: Tensor, last: int) -> Tensor:
        if last <= done:
            return held[:, 0, :0]
        return render(held, start, done, last)[..., : (last - done) * size]

    for tag, piece in pieces:
        held = piece if held is None else torch.cat([held, piece], dim=2)
        ready = (start + held.shape[2] - ahead) // unit * unit
        yield tag, until(held, ready), False
        done, first = max(ready, done), start
        start = max(done - past, start) // unit * unit
        held = held[:, :, start - first :]
    if held is not None:
        yield tag, until(held, start + held.shape[2]), True
