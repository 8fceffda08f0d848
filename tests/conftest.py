"""What many tests share: small models and their noise. Fixtures of one file stay in that file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vocoder.models import MdctFlow


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several processes that share the cores
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
        torch.set_num_threads(1)


def perturb(module: nn.Module, scale: float = 0.05) -> None:
    """Add noise to every parameter: zero-initialised layers are the identity, and hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter.dtype))


@pytest.fixture(scope="session")
def tiny_flow() -> Callable[..., MdctFlow]:
    """Builds a `MdctFlow` of a few thousand weights, all of them perturbed, in evaluation mode.

    ``tiny_flow(mel_spec="speech-16k", **arguments)``; the same call gives the same weights.
    """

    def build(mel_spec: Any = "speech-16k", **arguments: Any) -> MdctFlow:
        sizes: dict[str, Any] = {"n_flows": 1, "channels": 8, "n_layers": 1, "scale_channels": 8}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MdctFlow(mel_spec, **(sizes | arguments))
        perturb(model, 0.01)
        return model.eval()

    return build
