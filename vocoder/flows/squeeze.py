"""WaveGlow's squeeze: blocks of consecutive samples become channels."""

from __future__ import annotations

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
            raise ValueError(f"{time} samples are not a whole number of blocks of {self.factor}")
        z = x.reshape(batch, channels, time // self.factor, self.factor)
        return z.transpose(2, 3).reshape(batch, channels * self.factor, -1), zero_log_det(x)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        batch, channels, time = z.shape
        x = z.reshape(batch, channels // self.factor, self.factor, time)
        return x.transpose(2, 3).reshape(batch, channels // self.factor, time * self.factor)
