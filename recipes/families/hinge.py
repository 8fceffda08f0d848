"""The loss of discriminators that several studies train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def hinge_loss(
    recorded: Sequence[Sequence[Tensor]], generated: Sequence[Sequence[Tensor]]
) -> Tensor:
    r"""The discriminators' loss on their features of recordings and of samples.

    .. math:: O = \frac1K \sum_k \operatorname{mean} \max(0, 1 - D_k(x))
        + \operatorname{mean} \max(0, 1 + D_k(\hat x))

    Returns:
        A scalar, 0 or more: 0 where all scores of recordings are above 1 and all those of samples
        below -1, 2 where all scores are 0.
    """
    losses = [
        F.relu(1 - real[-1]).mean() + F.relu(1 + fake[-1]).mean()
        for real, fake in zip(recorded, generated, strict=True)
    ]
    return torch.stack(losses).mean()
