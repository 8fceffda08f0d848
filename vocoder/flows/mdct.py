"""The modified discrete cosine transform (MDCT): from a waveform to frequency bands and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bijection import Bijection, zero_log_det


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
    The two ends of the signal have no neighbour and hence no rotation (a half-rectangular
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
            raise ValueError(f"bands is {bands}: an MDCT needs an even number of bands")
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
                f"got {channels} channels of {time} samples: an MDCT takes one channel "
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
