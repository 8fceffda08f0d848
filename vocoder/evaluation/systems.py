"""The vocoders that the speed benchmark compares, each a `System`, and what they cost to run.

Speed does not depend on the weights, so most have random ones.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vocoder.audio import Refine
from vocoder.extras import require
from vocoder.models import ARCHITECTURES, Vocoder

from .baselines import GriffinLim, HifiGan, Vocos

Synthesize = Callable[[Tensor], object]
"""From a mel (batch, n_mels, frames) on the device to audio (batch, frames * hop)."""


@dataclass
class System:
    """A vocoder in the benchmark.

    Attributes:
        name: unique label of the row.
        build: the model; what it raises where it cannot run is shown.
        graph: whether a flow runs as an ONNX graph, on the CPU.
        dtype: what it computes in; other than float32 on the CPU only.
        refine: as in `Vocoder.synthesize`.
        trained: whether its weights are.
    """

    name: str
    build: Callable[[], Vocoder]
    graph: bool = False
    dtype: torch.dtype = torch.float32
    refine: Refine = 0
    trained: bool = False

    def load(self, device: torch.device) -> tuple[Vocoder, Synthesize]:
        """The model in the form that is fastest to run, and what synthesizes with it."""
        model = self.build().fused(self.dtype).to(device)
        if self.graph:
            from vocoder.export import OnnxVocoder, export_onnx

            require("onnxruntime", "a flow as an ONNX graph", "export")
            with tempfile.TemporaryDirectory() as folder:
                path = export_onnx(model, Path(folder) / "flow.onnx", refine=0)  # type: ignore[arg-type]
                graph = OnnxVocoder(path, threads=torch.get_num_threads())
            return model, lambda mel: graph.synthesize(mel.numpy())
        return model, lambda mel: model.synthesize(mel, refine=self.refine)


def standard_systems(
    models: Mapping[str, Vocoder] | None = None, quick: bool = False
) -> list[System]:
    """Every architecture of the package, and others' vocoders.

    Args:
        models: trained models by the name of their row, which come first.
        quick: without the ONNX graph, whose export takes longer than all the rest of its row.
    """
    found: list[System] = []
    for name, own in (models or {}).items():
        build = functools.partial(lambda model: model, own)
        found.append(System(name, build, trained=True))
        if own.default_refine:
            found.append(System(f"{name}, refined", build, refine=own.default_refine, trained=True))
    for model in ARCHITECTURES.values():
        found.append(System(model.title, model))
        if torch.bfloat16 in model.dtypes:
            found.append(System(f"{model.title}, bfloat16", model, dtype=torch.bfloat16))
            if not quick:
                found.append(System(f"{model.title}, ONNX", model, graph=True))
    griffin_lim = functools.partial(GriffinLim, "ljspeech")
    return [
        *found,
        System("HiFi-GAN V1", HifiGan, trained=True),
        System("HiFi-GAN V1, refined", HifiGan, refine="default", trained=True),
        System("Griffin-Lim", griffin_lim),
        System("Griffin-Lim, refined", griffin_lim, refine="default"),
        System("Vocos", Vocos),
    ]


def voiced_signal(samples: int, sample_rate: int) -> Tensor:
    """Audio like a voiced sound in some noise, (samples,)."""
    generator = torch.Generator().manual_seed(0)
    phase = torch.cumsum(torch.full((samples,), 120 / sample_rate, dtype=torch.float64), 0) % 1
    pulses = torch.exp(-12 * phase).float() - 0.08
    return 0.2 * pulses + 0.01 * torch.randn(samples, generator=generator)


def count_macs(run: Callable[[], object]) -> float:
    """Multiply-accumulates of a call: half the floating point operations of PyTorch's counter.

    Counts matrix products and convolutions; Fourier transforms and pointwise operations count as
    nothing, and compiled code is not seen.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def macs_per_second(model: Vocoder) -> float:
    """Multiply-accumulates of a model in plain PyTorch for a second of audio, see `count_macs`."""
    frames = 8 if model.sequential else model.sample_rate // model.mel_spec.hop_length
    samples = frames * model.mel_spec.hop_length
    mel = mel_of(model, frames)
    if model.sequential:
        # Teacher forcing computes the same for each sample as a step of generation.
        macs = count_macs(lambda: model.log_likelihood(mel.new_zeros(1, samples), mel))
    else:
        macs = count_macs(lambda: model.synthesize(mel, refine=0))
    return macs * model.sample_rate / samples


def mel_of(model: Vocoder, frames: int) -> Tensor:
    """A mel like that of a voiced sound, (1, n_mels, frames)."""
    audio = voiced_signal(frames * model.mel_spec.hop_length, model.sample_rate)
    return model.mel(audio)[:, :frames].unsqueeze(0).to(model.device)
