"""The mathematics of normalizing flows: invertible pieces under one contract, and no audio.

Every piece is a `Bijection`: ``forward(x, condition) -> (z, log_det)`` and
``inverse(z, condition) -> x``. A coupling has a *partition*, which says what is transformed, and a
*conditioner*, any network ``conditioner(context, condition) -> parameters``.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Conv1x1Init = Literal["rotation", "even-odd", "half-swap", "identity"]


class Bijection(nn.Module, ABC):
    r"""An invertible map with a tractable Jacobian determinant.

    Change of variables: if :math:`z = f(x; c)` and :math:`z \sim p_z`, then

    .. math:: \log p_x(x \mid c) = \log p_z(f(x; c)) + \log |\det \partial f / \partial x|.

    Shapes: ``x`` is (batch, channels, time), ``condition`` (batch, condition channels, time) or
    None where the piece takes none, ``log_det`` is (batch,), in nats, at least float32.
    """

    @abstractmethod
    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From data to latent: ``(z, log_det)``."""

    @abstractmethod
    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """From latent to data: the ``x`` of which ``forward`` gives ``z``."""

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """The ``x`` to listen to: ``inverse``, unless a piece draws otherwise than it scores."""
        return self.inverse(z, condition)


def zero_log_det(x: Tensor) -> Tensor:
    """The log-determinant of a volume-preserving map: (batch,) zeros in at least float32."""
    return torch.zeros(x.shape[0], device=x.device, dtype=promote(x.dtype))


def promote(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 if the input has it."""
    return torch.promote_types(dtype, torch.float32)


def log_density(z: Tensor, log_det: Tensor) -> Tensor:
    """log N(z; 0, I) + log_det in nats, (batch,), of latents (batch, channels, time)."""
    z = z.to(log_det.dtype)
    size = z[0].numel()
    return log_det - 0.5 * z.square().sum(dim=(1, 2)) - 0.5 * size * math.log(2 * math.pi)


class Chain(Bijection):
    r"""Composition :math:`f = f_n \circ \dots \circ f_1` under the same condition."""

    def __init__(self, pieces: Iterable[Bijection]) -> None:
        super().__init__()
        self.pieces: Any = nn.ModuleList(pieces)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = zero_log_det(x)
        for piece in self.pieces:
            x, piece_log_det = piece(x, condition)
            log_det = log_det + piece_log_det
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for piece in reversed(self.pieces):
            z = piece.inverse(z, condition)
        return z

    def generate(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for piece in reversed(self.pieces):
            z = piece.generate(z, condition)
        return z


class FactorOut(Bijection):
    r"""Multi-scale architecture: some channels are finished here, the others continue.

    .. math:: z = [x_{1..n},\; g(x_{n+1..C}; c)]

    where :math:`g` is a bijection of the remaining channels that keeps time. Papers: Real NVP (Dinh
    et al., 2017, section 3.6); WaveGlow (Prenger et al., 2019), whose "early outputs" these are.
    """

    def __init__(self, n_channels: int, rest: Bijection) -> None:
        super().__init__()
        self.n_channels, self.rest = n_channels, rest

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.rest(x[:, self.n_channels :], condition)
        return torch.cat([x[:, : self.n_channels], z], dim=1), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.rest.inverse(z[:, self.n_channels :], condition)
        return torch.cat([z[:, : self.n_channels], x], dim=1)


class Squeeze(Bijection):
    r"""Plain blocks: :math:`z_{cf+i,\,t} = x_{c,\,tf+i}` for factor f, log-determinant 0.

    (batch, channels, time * factor) -> (batch, channels * factor, time): WaveGlow's squeeze.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, channels, time = x.shape
        if time % self.factor:
            raise ValueError(f"{time} samples are not a whole number of blocks of {self.factor}")
        z = x.reshape(batch, channels, time // self.factor, self.factor)
        return z.transpose(2, 3).flatten(1, 2), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z.unflatten(1, (-1, self.factor)).transpose(2, 3).flatten(2)


class Mdct(Bijection):
    r"""Modified discrete cosine transform (MDCT) with a sine window: orthogonal, log-det 0.

    (batch, 1, time * bands) -> (batch, bands, time): frame t is centred on the middle of block t
    of ``bands`` samples and reaches half a block into each neighbour, so blocks have no edges.

    The MDCT of M bands factors into two orthogonal steps (Malvar, 1990): a plane rotation of each
    pair of samples that lie mirrored about a block boundary,

    .. math::
        \begin{pmatrix} v'_i \\ u'_i \end{pmatrix} =
        \begin{pmatrix} \sin\theta_i & \cos\theta_i \\ -\cos\theta_i & \sin\theta_i \end{pmatrix}
        \begin{pmatrix} v_i \\ u_i \end{pmatrix}, \qquad
        \theta_i = \frac{\pi}{2M}\Big(\frac{M}{2} + i + \frac12\Big),

    where :math:`v_i` is sample i after the boundary and :math:`u_i` sample i before it; then a
    DCT-IV of each block, :math:`C_{kn} = \sqrt{2/M} \cos\frac{\pi}{M}(n+\frac12)(k+\frac12)`.
    The two ends of the signal are not rotated: T blocks of samples give exactly T frames.

    ``bands`` is M, even, also the hop in samples. Band k is centred on :math:`(k + 1/2) f_s / 2M`.
    Paper: Princen and Bradley, 1986.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        if bands < 2 or bands % 2:
            raise ValueError(f"bands is {bands}: an MDCT needs an even number of bands")
        self.bands = bands
        # In float64: the cosine of a large argument loses digits in float32.
        n = torch.arange(bands, dtype=torch.float64) + 0.5
        dct = math.sqrt(2 / bands) * torch.cos(math.pi / bands * torch.outer(n, n))
        theta = math.pi / (2 * bands) * (bands / 2 + n[: bands // 2])
        self.dct = nn.Buffer(dct, persistent=False)
        self.rotation = nn.Buffer(torch.stack([theta.sin(), theta.cos()]), persistent=False)

    def _rotate(self, blocks: Tensor, sign: int) -> Tensor:
        """Rotate mirrored pairs about each inner boundary; sign -1 undoes it. (batch, time, M)"""
        half = self.bands // 2
        sin, cos = self.rotation.to(blocks.dtype)
        cos = sign * cos
        after, before = blocks[:, 1:, :half], blocks[:, :-1, half:].flip(-1)
        rotated_after = sin * after + cos * before
        rotated_before = (sin * before - cos * after).flip(-1)
        left = torch.cat([blocks[:, :1, :half], rotated_after], dim=1)
        right = torch.cat([rotated_before, blocks[:, -1:, half:]], dim=1)
        return torch.cat([left, right], dim=2)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, channels, time = x.shape
        if channels != 1 or time % self.bands:
            raise ValueError(
                f"an MDCT takes one channel and a whole number of blocks of {self.bands} samples, "
                f"got {channels} channels of {time}"
            )
        # Half precision would cost the exact inverse, and the transform is cheap.
        with torch.autocast(x.device.type, enabled=False):
            blocks = self._rotate(x.reshape(batch, -1, self.bands).to(promote(x.dtype)), 1)
            dct = self.dct.to(blocks.dtype)
            return torch.matmul(dct, blocks.transpose(1, 2)), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            # The DCT-IV matrix is symmetric and orthogonal: its own inverse.
            z = z.to(promote(z.dtype))
            blocks = torch.matmul(z.transpose(1, 2), self.dct.to(z.dtype))
            return self._rotate(blocks, -1).reshape(z.shape[0], 1, -1)


class InvertibleConv1x1(Bijection):
    r"""Invertible 1x1 convolution.

    .. math:: z_{:,t} = W x_{:,t}, \qquad \log|\det| = T \log|\det W|

    with T time steps and W of shape (channels, channels). Papers: Glow (Kingma and Dhariwal,
    2018), WaveGlow (Prenger et al., 2019). W may have a negative determinant; a singular W has
    log-determinant -inf and no inverse (`torch.linalg.LinAlgError`).

    W starts as an orthogonal matrix: "rotation" is random with determinant +1, from torch's global
    generator (Glow, WaveGlow); "even-odd" puts even channels first, "half-swap" the second half.
    """

    stored_inverse: Tensor | None
    stored_log_det: Tensor | None

    def __init__(self, channels: int, init: Conv1x1Init = "rotation") -> None:
        super().__init__()
        self.weight = nn.Parameter(_initial_matrix(channels, init))
        self.register_buffer("stored_inverse", None, persistent=False)
        self.register_buffer("stored_log_det", None, persistent=False)

    def inverse_matrix(self) -> Tensor:
        """W^-1, (channels, channels), differentiable."""
        if self.stored_inverse is not None:
            return self.stored_inverse
        weight = self.weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return torch.linalg.inv(weight.to(promote(weight.dtype)))
        # On the CPU float64 costs little, and keeps W W^-1 = 1 to rounding.
        exact = torch.linalg.inv(weight.detach().double().cpu())
        return exact.to(device=weight.device, dtype=promote(weight.dtype))

    def log_abs_det(self) -> Tensor:
        """log |det W| in nats, a scalar."""
        if self.stored_log_det is not None:
            return self.stored_log_det
        return torch.linalg.slogdet(self.weight.to(promote(self.weight.dtype))).logabsdet

    def fused(self) -> Self:
        """A copy that cannot change any more, its inverse and log-determinant computed once."""
        copied = copy.deepcopy(self).requires_grad_(False)
        copied.stored_inverse = copied.inverse_matrix()
        copied.stored_log_det = copied.log_abs_det()
        return copied

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = _mix(self.weight, x)
        return z, zero_log_det(z) + x.shape[-1] * self.log_abs_det()

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return _mix(self.inverse_matrix(), z)


def _initial_matrix(channels: int, kind: Conv1x1Init) -> Tensor:
    index = torch.arange(channels)
    orders = {
        "even-odd": torch.cat([index[0::2], index[1::2]]),
        "half-swap": index.roll(-(channels // 2)),
        "identity": index,
    }
    if kind in orders:
        return torch.eye(channels)[orders[kind]]
    # Drawn in float64 on the CPU so that the start is the same whatever the default type.
    q, r = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.det(q).sign()
    return q.to(torch.get_default_dtype())


def _mix(weight: Tensor, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        weight = weight.to(promote(weight.dtype))
        return torch.matmul(weight, x.to(weight.dtype))


class ActNorm(Bijection):
    r"""Per-channel affine map that starts by normalising the first batch.

    .. math:: z_{c,t} = e^{s_c} x_{c,t} + b_c, \qquad \log|\det| = T \textstyle\sum_c s_c

    On the first call of ``forward`` in training mode s and b are set so that each channel of z has
    zero mean and unit variance. Paper: Glow (Kingma and Dhariwal, 2018), section 3.1.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        flat = x.transpose(0, 1).flatten(1).to(self.shift.dtype)
        std = flat.std(dim=1, correction=0, keepdim=True).clamp_min(1e-6)
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-flat.mean(dim=1, keepdim=True) / std)
        self.initialized.fill_(True)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialized:
            self._initialize(x)
        z = self.log_scale.exp() * x + self.shift
        log_scale = self.log_scale.to(promote(self.log_scale.dtype))
        return z, zero_log_det(z) + x.shape[-1] * log_scale.sum()

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return (z - self.shift) * (-self.log_scale).exp()


class Partition(nn.Module, ABC):
    """Which variables a coupling reads and which it changes."""

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the conditioner may see of x, and the values passed to the affine map."""

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
    """The first C // 2 channels condition the rest (with ``swap``: the other way round)."""

    def __init__(self, swap: bool = False) -> None:
        super().__init__()
        self.swap = swap

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        return (second, first) if self.swap else (first, second)

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        context = self.split(x)[0]
        return torch.cat([target, context] if self.swap else [context, target], dim=1)


class AlternatingFrames(Partition):
    """Even time steps condition the odd ones (with ``parity`` 1, odd ones the even ones).

    The one-dimensional checkerboard of Real NVP (Dinh et al., 2017), at half the rate: of T steps
    the conditioner sees n = ceil(T / 2), (batch, C, n), and the first ``n_condition`` channels of
    the condition (None: all) of both steps of each pair, (batch, 2 * n_condition, n), even step
    first. If T is odd, the missing step is zero, under the condition of the last one.
    """

    def __init__(self, parity: int = 0, n_condition: int | None = None) -> None:
        super().__init__()
        self.parity, self.n_condition = parity, n_condition

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = x[..., 0::2], F.pad(x, (0, 1))[..., 1::2]
        return (odd, even) if self.parity else (even, odd)

    def merge(self, x: Tensor, target: Tensor) -> Tensor:
        context, _ = self.split(x)
        pair = [target, context] if self.parity else [context, target]
        return torch.stack(pair, dim=-1).flatten(-2).narrow(-1, 0, x.shape[-1])

    def condition(self, condition: Tensor | None) -> Tensor | None:
        if condition is None:
            return None
        condition = condition[:, : self.n_condition]
        longer = F.pad(condition, (0, 1), mode="replicate")
        return torch.cat([condition[..., 0::2], longer[..., 1::2]], dim=1)

    def changes(self, x: Tensor) -> Tensor | None:
        if self.parity:
            return None  # there is an even step in every pair
        steps = torch.arange(1, x.shape[-1] + 1, 2, device=x.device)
        return (steps < x.shape[-1]).to(x.dtype)


class AffineCoupling(Bijection):
    r"""Affine coupling, the layer of Real NVP, Glow and WaveGlow.

    .. math:: z_b = e^{s} \odot x_b + t, \quad z_a = x_a, \quad (t, s) = g(x_a, c), \qquad
              \log|\det| = \textstyle\sum s

    Paper: Real NVP (Dinh et al., 2017).

    Args:
        conditioner: network g; of its output channels the first half is the shift t, the second
            half the log-scale s. With zeros as its last layer the coupling is the identity.
        partition: which variables are a and which are b; halves of the channels by default.
        log_scale_bound: if given, :math:`s = \beta \tanh(s'/\beta)` lies in (-beta, beta).
    """

    def __init__(
        self,
        conditioner: nn.Module,
        partition: Partition | None = None,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__()
        self.conditioner = conditioner
        self.partition = partition or ChannelHalves()
        self.log_scale_bound = log_scale_bound

    def _affine(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The target, and its shift and log-scale in at least float32."""
        context, target = self.partition.split(x)
        parameters: Tensor = self.conditioner(context, self.partition.condition(condition))
        shift, log_scale = parameters.to(promote(parameters.dtype)).chunk(2, dim=1)
        if self.log_scale_bound is not None:
            log_scale = self.log_scale_bound * torch.tanh(log_scale / self.log_scale_bound)
        changes = self.partition.changes(x)
        return target, shift, log_scale if changes is None else log_scale * changes

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        target, shift, log_scale = self._affine(x, condition)
        z = self.partition.merge(x, torch.exp(log_scale) * target + shift)
        return z, log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        target, shift, log_scale = self._affine(z, condition)
        return self.partition.merge(z, torch.exp(-log_scale) * (target - shift))


class ConditionalScale(Bijection):
    r"""Diagonal scale set by the condition alone: an affine layer without coupling.

    .. math:: z = e^{s(c)} \odot x, \qquad \log|\det| = \textstyle\sum s(c)

    In a vocoder s, computed by ``network``, is minus the log standard deviation that the mel
    predicts for each band and frame, so z is close to white whatever the loudness.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def _log_scale(self, condition: Tensor | None) -> Tensor:
        log_scale: Tensor = self.network(condition)
        return log_scale.to(promote(log_scale.dtype))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(condition)
        return torch.exp(log_scale) * x, log_scale.sum(dim=(1, 2))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.exp(-self._log_scale(condition)) * z
