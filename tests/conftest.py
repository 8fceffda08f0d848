"""What many tests share: small models, their noise, and how scripts are imported.

Fixtures of one file stay in that file.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from vocoder import cli
from vocoder.models import MdctFlow
from vocoder.text.acoustic import AcousticModel
from vocoder.text.frontend import SYMBOLS

ROOT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several processes that share the cores
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
        torch.set_num_threads(1)
    elif getattr(config.option, "numprocesses", None):
        from vocoder.evaluation.metrics import periodicity_error

        # librosa's pitch tracker, compiled before several processes would do so at once, and crash.
        noise = np.random.default_rng(0).standard_normal(1600)
        periodicity_error(noise, noise, 16000)


def command(*words: object, stdin: bytes = b"") -> Result:
    """The command `vocoder`, within this process, since starting torch anew takes seconds."""
    return CliRunner().invoke(cli.app, [*map(str, words)], input=stdin, catch_exceptions=False)


def perturb(module: nn.Module, scale: float = 0.05) -> None:
    """Add noise to every parameter: zero-initialised layers are the identity, and hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter.dtype))


def full_disk(*_: object, **__: object) -> None:
    """In place of a function that writes a file."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As in the processes that tests start, so that sums are rounded alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def scripts(folder: str) -> Iterator[Callable[[str], Any]]:
    """Imports scripts of a folder by name: ``with scripts("docs/scripts") as get: get("load")``.

    Scripts of several folders share names, so all of the folder are forgotten in the end.
    """
    place = ROOT / folder

    def script(name: str) -> Any:
        module = importlib.import_module(name)
        file = place.joinpath(*name.split(".")).with_suffix(".py")
        assert module.__file__ == str(file), f"{name} is {module.__file__}"
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        yield script
    for name, module in list(sys.modules.items()):
        if place in Path(getattr(module, "__file__", None) or "").parents:
            del sys.modules[name]


@pytest.fixture
def double_precision() -> Iterator[None]:
    """PyTorch's default dtype is float64, and its generator has seed 0."""
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)


@pytest.fixture(scope="session")
def tiny_flow() -> Callable[..., MdctFlow]:
    """Builds a `MdctFlow` of a few thousand weights, all perturbed, the same for the same call."""

    def build(mel_spec: Any = "speech-16k", **arguments: Any) -> MdctFlow:
        sizes: dict[str, Any] = {"n_flows": 1, "channels": 8, "n_layers": 1, "scale_channels": 8}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MdctFlow(mel_spec, **(sizes | arguments))
        perturb(model, 0.01)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def tiny_acoustic() -> Callable[..., AcousticModel]:
    """Builds an `AcousticModel` of a few thousand weights, all perturbed, the same for the same
    call. Its mels have the level of speech."""

    def build(
        mel_spec: Any = "speech-16k",
        symbols: Sequence[str] = SYMBOLS,
        perturbed: float = 0.01,
        **arguments: Any,
    ) -> AcousticModel:
        sizes: dict[str, Any] = {
            "channels": 8, "encoder_blocks": 1, "prosody_blocks": 1, "decoder_blocks": 1
        }  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AcousticModel(symbols, mel_spec, **(sizes | arguments))
        perturb(model, perturbed)
        bands = torch.ones(model.mel_spec.n_mels)
        model.normalise_by(-5 * bands, 2 * bands, torch.zeros_like(model.prosody_mean))
        return model.eval()

    return build
