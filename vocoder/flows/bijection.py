"""The contract of every invertible piece, and ways to combine pieces."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


class Bijection(nn.Module, ABC):
    r"""An invertible map with a tractable Jacobian determinant.

    Change of variables: if :math:`z = f(x; c)` and :math:`z \sim p_z`, then

    .. math:: \log p_x(x \mid c) = \log p_z(f(x; c)) + \log |\det \partial f / \partial x|.

    Shapes: ``x`` is (batch, channels, time), ``condition`` (batch, condition channels, time) or
    None where the piece takes none, ``log_det`` is (batch,), in nats, at least float32 whatever
    the autocast.
    """

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From data to latent: ``(z, log_det)``."""

    @abstractmethod
    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """From latent to data: the ``x`` of which ``forward`` gives ``z``."""

    # nn.Module declares __call__ as returning Any; the contract is tighter.
    def __call__(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = super().__call__(x, condition)
        return result


def zero_log_det(x: Tensor) -> Tensor:
    """The log-determinant of a volume-preserving map: (batch,) zeros in at least float32."""
    return torch.zeros(x.shape[0], device=x.device, dtype=promote(x.dtype))


def promote(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 if the input has it: sums of logs need at least that."""
    return torch.promote_types(dtype, torch.float32)


def log_density(z: Tensor, log_det: Tensor) -> Tensor:
    """log N(z; 0, I) + log_det in nats, (batch,), of latents (batch, channels, time)."""
    z = z.to(log_det.dtype)
    size = z[0].numel()
    return log_det - 0.5 * z.square().sum(dim=(1, 2)) - 0.5 * size * math.log(2 * math.pi)


class Chain(Bijection):
    r"""Composition :math:`f = f_n \circ \dots \circ f_1`; log-determinants add up.

    Every piece sees the same condition.
    """

    def __init__(self, pieces: Iterable[Bijection]) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)

    def __iter__(self) -> Iterator[Bijection]:
        for piece in self.pieces:
            assert isinstance(piece, Bijection)
            yield piece

    def __len__(self) -> int:
        return len(self.pieces)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(x)
        for piece in self:
            x, piece_log_det = piece(x, condition)
            log_det = log_det + piece_log_det
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for piece in reversed(list(self)):
            z = piece.inverse(z, condition)
        return z


class FactorOut(Bijection):
    r"""Multi-scale architecture: some channels are finished here, the others continue.

    .. math:: z = [x_{1..n},\; g(x_{n+1..C}; c)]

    where :math:`g` is a bijection of the remaining channels that keeps time. The finished
    channels come first in ``z``. Real NVP (Dinh et al., 2017, section 3.6) factors half of the
    variables out at a time; WaveGlow (Prenger et al., 2019) calls the same "early outputs".

    Args:
        n_channels: how many channels, counted from the first, are finished here.
        rest: the bijection of the remaining channels.
    """

    def __init__(self, n_channels: int, rest: Bijection) -> None:
        super().__init__()
        if n_channels < 1:
            raise ValueError(
                f"n_channels is {n_channels}: at least one channel must be factored out"
            )
        self.n_channels = n_channels
        self.rest = rest

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.rest(x[:, self.n_channels :], condition)
        return torch.cat([x[:, : self.n_channels], z], dim=1), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.rest.inverse(z[:, self.n_channels :], condition)
        return torch.cat([z[:, : self.n_channels], x], dim=1)
