"""From a waveform to channels and back: plain blocks of samples, or a lapped transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bijection import Bijection, zero_log_det


class Squeeze(Bijection):
    r"""Plain blocks: :math:`z_{cf+i,\,t} = x_{c,\,tf+i}` for factor f, log-determinant 0.

    (batch, channels, time * factor) -> (batch, channels * factor, time). For a waveform (one
    channel) this is WaveGlow's "squeeze to vectors" of ``factor`` consecutive samples.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor is {factor}: a block holds at least one sample")
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, channels, time = x.shape
        if time % self.factor:
            raise ValueError(f"{time} samples are no whole number of blocks of {self.factor}")
        z = x.reshape(batch, channels, time // self.factor, self.factor)
        return z.transpose(2, 3).reshape(batch, channels * self.factor, -1), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        batch, channels, time = z.shape
        x = z.reshape(batch, channels // self.factor, self.factor, time)
        return x.transpose(2, 3).reshape(batch, channels // self.factor, time * self.factor)


class LappedTransform(Bijection):
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
    At the two ends of the signal there is no neighbour and so no rotation (a half-rectangular
    window): T blocks of samples give exactly T frames, for every T, and the map stays orthogonal.

    Band k is centred on :math:`(k + 1/2) f_s / 2M`. Paper: Princen and Bradley, 1986.

    Args:
        bands: M, the number of bands and the hop in samples; even.
    """

    rotation_sin: Tensor
    rotation_cos: Tensor
    dct: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        if bands < 2 or bands % 2:
            raise ValueError(f"bands is {bands}: a lapped transform needs an even number of bands")
        self.bands = bands
        # Fixed by `bands`, so not part of a checkpoint. Built in float64, since the cosine of a
        # large argument loses digits in float32; a float64 model gets them back by `_apply`.
        n = torch.arange(bands, dtype=torch.float64) + 0.5
        dct = math.sqrt(2 / bands) * torch.cos(math.pi / bands * torch.outer(n, n))
        theta = math.pi / (2 * bands) * (bands / 2 + n[: bands // 2])
        self._exact = {"dct": dct, "rotation_sin": theta.sin(), "rotation_cos": theta.cos()}
        for name, value in self._exact.items():
            self.register_buffer(name, value.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            buffer = getattr(self, name)
            if buffer.dtype == torch.float64:
                setattr(self, name, value.to(buffer.device))
        return self

    def _rotate(self, blocks: Tensor, sign: int) -> Tensor:
        """Rotate mirrored pairs about each inner boundary; sign -1 undoes it. (batch, time, M)"""
        half = self.bands // 2
        sin, cos = self.rotation_sin, sign * self.rotation_cos
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
                f"got {channels} channels of {time} samples: a lapped transform takes one channel "
                f"and a whole number of blocks of {self.bands} samples"
            )
        # Half precision would cost the exact inverse, and the transform is cheap.
        with torch.autocast(x.device.type, enabled=False):
            blocks = self._rotate(x.reshape(batch, -1, self.bands).to(self.dct.dtype), 1)
            return torch.matmul(self.dct, blocks.transpose(1, 2)), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            # The DCT-IV matrix is symmetric and orthogonal: its own inverse.
            blocks = torch.matmul(z.to(self.dct.dtype).transpose(1, 2), self.dct)
            return self._rotate(blocks, -1).reshape(z.shape[0], 1, -1)


class AnotherSize(Bijection):
    r"""A bijection g that works in a lapped transform of another size.

    .. math:: z = S \, g(T_m T_n^{-1} x;\, c')

    with :math:`T_n` the `LappedTransform` of n bands, c' the condition with every step repeated
    n / m times, and S the `Squeeze` of n / m steps into channels, so that z has the shape of x:
    (batch, n, time). All but g is orthogonal, so the log-determinant is that of g. A transform of
    half the size has twice the resolution in time and half of it in frequency. A step of z depends
    on x up to two steps away even if those of g do not mix.

    Args:
        bands: n, channels of x.
        size: m, channels of g's input (batch, m, time * n / m); even, and a divisor of n.
        inner: g, which keeps channels and time.
    """

    def __init__(self, bands: int, size: int, inner: Bijection) -> None:
        super().__init__()
        if size < 2 or size >= bands or bands % size:
            raise ValueError(
                f"size is {size}: the other transform must be smaller than that of {bands} bands "
                "and divide it"
            )
        self.outer_transform = LappedTransform(bands)
        self.inner_transform = LappedTransform(size)
        self.fold = Squeeze(bands // size)
        self.inner = inner

    def _condition(self, condition: Tensor | None) -> Tensor | None:
        return None if condition is None else condition.repeat_interleave(self.fold.factor, dim=-1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, _ = self.inner_transform(self.outer_transform.inverse(x))
        y, log_det = self.inner(y, self._condition(condition))
        z, _ = self.fold(y)
        return z, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        y = self.inner.inverse(self.fold.inverse(z), self._condition(condition))
        x, _ = self.outer_transform(self.inner_transform.inverse(y))
        return x
