"""Coupling layers: one part of the variables sets an affine map of the other part.

A coupling is built from a *partition*, which says what the conditioner sees and what is
transformed, and a *conditioner*, any network ``conditioner(context, condition) -> parameters``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bijection import Bijection, promote


class Partition(nn.Module, ABC):
    """Which variables a coupling reads and which it changes."""

    @abstractmethod
    def context(self, x: Tensor) -> Tensor:
        """The part of x that the conditioner may see; independent of the changing variables."""

    @abstractmethod
    def target(self, x: Tensor) -> Tensor:
        """The values passed to the affine map; where `changes` is 0 they stay as they are."""

    @abstractmethod
    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        """x with its changing variables replaced by those of ``target``."""

    def condition(self, condition: Tensor | None) -> Tensor | None:
        """The condition as the conditioner receives it."""
        return condition

    def changes(self, x: Tensor) -> Tensor | None:
        """Mask, 1 where the target of x holds changing variables; None where all of it does."""
        return None


class ChannelHalves(Partition):
    """The first half of the channels conditions the second (with ``swap``: the other way round).

    With an odd number of channels C the first part has C // 2. The conditioner sees
    (batch, C // 2, time) and transforms C - C // 2 channels.
    """

    def __init__(self, swap: bool = False) -> None:
        super().__init__()
        self.swap = swap

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]

    def context(self, x: Tensor) -> Tensor:
        return self._parts(x)[int(self.swap)]

    def target(self, x: Tensor) -> Tensor:
        return self._parts(x)[1 - int(self.swap)]

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        context = self.context(x)
        return torch.cat([target, context] if self.swap else [context, target], dim=1)


class _Masked(Partition):
    """A mask over (channels, time): the conditioner sees x with the changing variables zeroed."""

    def keep(self, x: Tensor) -> Tensor:
        """1 where x stays as it is, broadcastable to x."""
        raise NotImplementedError

    def context(self, x: Tensor) -> Tensor:
        return x * self.keep(x)

    def target(self, x: Tensor) -> Tensor:
        return x

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        keep = self.keep(x)
        return keep * x + (1 - keep) * target

    def changes(self, x: Tensor) -> Tensor:
        return 1 - self.keep(x)


class Checkerboard(_Masked):
    """Alternating time steps (parity 0: the even ones condition the odd ones).

    The one-dimensional checkerboard of Real NVP (Dinh et al., 2017, section 3.4). The conditioner
    maps (batch, C, time) to parameters of C channels.
    """

    def __init__(self, parity: int = 0) -> None:
        super().__init__()
        if parity not in (0, 1):
            raise ValueError(f"parity is {parity}: it must be 0 or 1")
        self.parity = parity

    def keep(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[-1], device=x.device) + self.parity
        return (steps % 2 == 0).to(x.dtype)


class AlternatingFrames(Partition):
    """The partition of `Checkerboard`, with a conditioner at half the rate instead of a mask.

    Two neighbouring time steps make one of the conditioner: of T steps it sees the
    n = ceil(T / 2) even ones (with ``parity`` 1 the odd ones), (batch, C, n), and sets the others.
    Its condition is both steps' condition, (batch, 2 * condition channels, n), even step first.
    So it does half the work and sees twice as far. If T is odd, the missing step is zero, under
    the condition of the last one.

    Even and odd are counted from the first step of x: if a signal is processed in pieces,
    each must begin at an even step.

    Args:
        parity: 0 if the even steps condition the odd ones, 1 if the odd ones the even.
        n_condition: the conditioner sees as many channels of the condition, the first ones; None
            for all.
    """

    def __init__(self, parity: int = 0, n_condition: int | None = None) -> None:
        super().__init__()
        if parity not in (0, 1):
            raise ValueError(f"parity is {parity}: it must be 0 or 1")
        self.parity = parity
        self.n_condition = n_condition

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Even and odd steps, n each."""
        return x[..., 0::2], F.pad(x, (0, 1))[..., 1::2]

    def context(self, x: Tensor) -> Tensor:
        return self._parts(x)[self.parity]

    def target(self, x: Tensor) -> Tensor:
        return self._parts(x)[1 - self.parity]

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        context = self.context(x)
        pair = [target, context] if self.parity else [context, target]
        return torch.stack(pair, dim=-1).flatten(-2).narrow(-1, 0, x.shape[-1])

    def condition(self, condition: Tensor | None) -> Tensor | None:
        if condition is None:
            return None
        condition = condition[:, : self.n_condition]
        # Zeros in a log-mel would be a loud sound, which a conditioner has never seen here.
        longer = F.pad(condition, (0, 1), mode="replicate")
        return torch.cat([condition[..., 0::2], longer[..., 1::2]], dim=1)

    def changes(self, x: Tensor) -> Tensor | None:
        if self.parity:
            return None  # there is an even step in every pair
        steps = torch.arange(1, x.shape[-1] + 1, 2, device=x.device)
        return (steps < x.shape[-1]).to(x.dtype)


class ChannelMask(_Masked):
    """Any subset of channels conditions the others.

    Args:
        keep: one truth value per channel, true for the channels that are kept and seen by the
            conditioner; neither all true nor all false.
    """

    kept: Tensor

    def __init__(self, keep: list[bool]) -> None:
        super().__init__()
        if all(keep) or not any(keep):
            raise ValueError("keep must name some channels to keep and some to transform")
        mask = torch.tensor(keep, dtype=torch.get_default_dtype()).unsqueeze(1)
        self.register_buffer("kept", mask, persistent=False)

    def keep(self, x: Tensor) -> Tensor:
        return self.kept.to(x.dtype)


class AffineCoupling(Bijection):
    r"""Affine coupling, the layer of Real NVP, Glow and WaveGlow.

    .. math:: z_b = e^{s} \odot x_b + t, \quad z_a = x_a, \quad (t, s) = g(x_a, c), \qquad
              \log|\det| = \textstyle\sum s

    Paper: Real NVP (Dinh et al., 2017).

    Args:
        conditioner: network g; of its output channels the first half is the shift t, the second
            half the log-scale s (WaveGlow's order). Give it a zero-initialised last layer and the
            coupling starts as the identity.
        partition: which variables are a and which are b; halves of the channels by default.
        log_scale_bound: if given, :math:`s = \beta \tanh(s'/\beta)` lies in (-beta, beta), which
            keeps early training and half precision from overflowing.
    """

    def __init__(
        self,
        conditioner: nn.Module,
        partition: Partition | None = None,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__()
        if log_scale_bound is not None and log_scale_bound <= 0:
            raise ValueError(f"log_scale_bound is {log_scale_bound}: it must be positive")
        self.conditioner = conditioner
        self.partition = partition or ChannelHalves()
        self.log_scale_bound = log_scale_bound

    def _parameters_of(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shift and log-scale of the target, in at least float32."""
        condition = self.partition.condition(condition)
        parameters: Tensor = self.conditioner(self.partition.context(x), condition)
        shift, log_scale = parameters.to(promote(parameters.dtype)).chunk(2, dim=1)
        if self.log_scale_bound is not None:
            log_scale = self.log_scale_bound * torch.tanh(log_scale / self.log_scale_bound)
        changes = self.partition.changes(x)
        return shift, log_scale if changes is None else log_scale * changes

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._parameters_of(x, condition)
        target = torch.exp(log_scale) * self.partition.target(x) + shift
        return self.partition.merge(x, target), log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        shift, log_scale = self._parameters_of(z, condition)
        target = torch.exp(-log_scale) * (self.partition.target(z) - shift)
        return self.partition.merge(z, target)


class AdditiveCoupling(AffineCoupling):
    r"""Additive coupling: :math:`z_b = x_b + t(x_a, c)`, :math:`z_a = x_a`, log-determinant 0.

    Paper: NICE (Dinh et al., 2015).

    Args:
        conditioner: network t, ``conditioner(context, condition)`` of as many channels as the
            partition's target has.
        partition: which variables are a and which are b.
    """

    def __init__(self, conditioner: nn.Module, partition: Partition | None = None) -> None:
        super().__init__(conditioner, partition)

    def _parameters_of(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        condition = self.partition.condition(condition)
        shift: Tensor = self.conditioner(self.partition.context(x), condition)
        shift = shift.to(promote(shift.dtype))
        return shift, torch.zeros_like(shift)


class ConditionalScale(Bijection):
    r"""Diagonal scale set by the condition alone: an affine layer without coupling.

    .. math:: z = e^{s(c)} \odot x, \qquad \log|\det| = \textstyle\sum s(c)

    In a vocoder s is minus the log standard deviation that the mel spectrogram predicts for each
    band and frame, so z is close to white whatever the loudness.

    Args:
        network: s, from (batch, condition channels, time) to (batch, channels, time).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def _log_scale(self, condition: Tensor | None) -> Tensor:
        if condition is None:
            raise ValueError("a conditional scale needs a condition, got None")
        log_scale: Tensor = self.network(condition)
        return log_scale.to(promote(log_scale.dtype))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(condition)
        return torch.exp(log_scale) * x, log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.exp(-self._log_scale(condition)) * z
