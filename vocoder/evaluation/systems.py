"""The vocoders that the speed benchmark compares, each a `System`: load it, then make audio.

A system makes audio from a mel in its own convention, with the weights it is given or with random
ones (speed does not depend on them). `vocoder.evaluation.benchmark` times them.
"""

from __future__ import annotations

import copy
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vocoder.audio import LogMel, MelSpec
from vocoder.extras import require
from vocoder.models import FAMILIES, Vocoder, WaveGlow

from .griffin_lim import griffin_lim

Weights = Literal["trained", "random"]


@dataclass(frozen=True)
class Job:
    """Audio of a fixed size, made whenever ``run`` is called."""

    run: Callable[[], object]
    """Makes ``samples`` samples for each of ``items``."""
    samples: int
    items: int


class System(ABC):
    """A vocoder in the benchmark.

    Attributes:
        name: unique label of the row.
        family: kind of model; known after `load`.
        engine: what runs it.
        weights: "trained" or "random".
        devices: types of device it runs on.
        sequential: it makes samples one by one, so that each costs the same however many are made,
            and a few are enough to measure.
        dtype: the type it computes in, by torch's name.
        mel_spec: the convention of its mels; known after `load`.
        module: holds its parameters and buffers; there after `load`.
    """

    name: str
    family: str
    engine: str = "pytorch"
    weights: Weights = "random"
    devices: tuple[str, ...] = ("cpu", "cuda")
    sequential: bool = False
    dtype: str = "float32"
    mel_spec: MelSpec
    module: nn.Module

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Build the model on the device, or move it there.

        Raises:
            Exception: it cannot run here; the benchmark leaves it out and says why.
        """

    @abstractmethod
    def synthesize(self, mel: Tensor) -> object:
        """Audio (batch, frames * hop) of a mel (batch, n_mels, frames) on the device."""

    def mel(self, frames: int) -> Tensor:
        """A mel like that of a voiced sound, (1, n_mels, frames)."""
        spec = self.mel_spec
        audio = voiced_signal(frames * spec.hop_length, spec.sample_rate)
        return LogMel(spec)(audio)[:, :frames].unsqueeze(0)

    def job(self, batch: int, samples: int) -> Job:
        """The work of making at least ``samples`` samples for each of ``batch`` items."""
        frames = math.ceil(samples / self.mel_spec.hop_length)
        mel = self.mel(frames).expand(batch, -1, -1).contiguous()
        return Job(lambda: self.synthesize(mel), frames * self.mel_spec.hop_length, batch)

    def first_audio(self) -> Callable[[], object] | None:
        """Makes the first chunk of a stream; None for a system that cannot stream."""
        return None

    @property
    def threads(self) -> int:
        """CPU threads it runs on."""
        return torch.get_num_threads()

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def multiply_accumulates(self) -> float:
        """Multiply-accumulates per second of audio, see `count_macs`."""
        job = self.job(1, self.mel_spec.sample_rate)
        return count_macs(job.run) * self.mel_spec.sample_rate / job.samples


class PackageModel(System):
    """A `Vocoder` of this package, its own pass alone: sweeps of mel consistency are left out.

    Args:
        name, weights: see `System`.
        model: the model, which stays as it is, or a class whose defaults are built.
        engine: of an autoregressive model; None for its own.
        dtype: what the model computes in; other than float32, on the CPU only.
    """

    def __init__(
        self,
        name: str,
        model: Vocoder | Callable[[], Vocoder],
        weights: Weights = "random",
        engine: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name = name
        self.weights = weights
        self.dtype = str(dtype).removeprefix("torch.")
        # The caller's model stays as it is, and a fused one can travel to another process.
        own = copy.deepcopy(model).fused(dtype) if isinstance(model, Vocoder) else model
        self._source = own
        self._engine = engine
        if dtype != torch.float32:
            self.devices = ("cpu",)

    @property
    def model(self) -> Vocoder:
        """The model; there after `load`."""
        assert isinstance(self.module, Vocoder)
        return self.module

    def load(self, device: torch.device) -> None:
        source = self._source
        if isinstance(source, Vocoder):
            model = source
        else:
            model = source().fused(getattr(torch, self.dtype))
        self.module = model.to(device)
        self.family, self.mel_spec = model.family, model.mel_spec
        self.sequential = model.sequential
        if model.engines:
            setattr(model, "engine", self._engine)  # noqa: B010
            self.engine = getattr(model, "engine")  # noqa: B009
            if self.engine == "compiled":
                self.devices = ("cpu",)

    def mel(self, frames: int) -> Tensor:
        return super().mel(frames).to(self.model.device)

    def synthesize(self, mel: Tensor) -> object:
        return self.model.synthesize(mel, refine=0)

    def first_audio(self) -> Callable[[], object] | None:
        # The first chunk of audio needs the look-ahead and one frame.
        needed = self.model.look_ahead(refine=0) + 1
        chunks = self.mel(2 * needed)[0].split(needed, dim=1)
        return lambda: next(iter(self.model.stream(chunks, refine=0)))

    @property
    def threads(self) -> int:
        return 1 if self.engine == "compiled" else super().threads

    def multiply_accumulates(self) -> float:
        model = self.model
        if not model.sequential:
            return super().multiply_accumulates()
        # The counter does not see machine code. Teacher forcing computes the same for each sample
        # as a step of generation.
        frames = 8
        hop, mel = self.mel_spec.hop_length, self.mel(frames)
        audio = mel.new_zeros(1, frames * hop)
        return count_macs(lambda: model(audio, mel)) * self.mel_spec.sample_rate / (frames * hop)


class OnnxModel(PackageModel):
    """A flow of this package exported as an ONNX graph and run by onnxruntime, on the CPU."""

    engine = "onnxruntime"
    devices = ("cpu",)

    def load(self, device: torch.device) -> None:
        from vocoder.export import OnnxVocoder, export_onnx

        require("onnxruntime", "a flow as an ONNX graph", "export")
        super().load(device)
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(self.model, Path(folder) / "flow.onnx", refine=0)  # type: ignore[arg-type]
            self._graph = OnnxVocoder(path, threads=torch.get_num_threads())

    def synthesize(self, mel: Tensor) -> object:
        return self._graph.synthesize(mel.numpy())

    def first_audio(self) -> None:
        return None

    def multiply_accumulates(self) -> float:
        # The counter does not see onnxruntime, but the graph is the model's.
        twin = PackageModel(self.name, self.model)
        twin.load(torch.device("cpu"))
        return twin.multiply_accumulates()


class GriffinLim(System):
    """Griffin-Lim (`vocoder.evaluation.griffin_lim`), from the mel of another vocoder."""

    name = "Griffin-Lim"
    family = "griffin-lim"
    engine = "torchaudio"
    module = nn.Module()  # it has no weights

    def __init__(self, mel_spec: MelSpec | str = "ljspeech") -> None:
        self.mel_spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec

    def load(self, device: torch.device) -> None:
        self._device = device
        self._synthesize = griffin_lim(self.mel_spec, device=device)

    def mel(self, frames: int) -> Tensor:
        return super().mel(frames).to(self._device)

    def synthesize(self, mel: Tensor) -> object:
        return self._synthesize(mel)


class Vocos(System):
    """Vocos from its own package, in the published configuration for 24 kHz mels.

    Paper: Siuzdak, 2023.
    """

    name = "Vocos"
    family = "vocos"
    # Of the published charactr/vocos-mel-24khz, which the package can only download.
    mel_spec = MelSpec.preset("speech-24k")

    def load(self, device: torch.device) -> None:
        package = require("vocos", "Vocos", "bench")
        spec, dim = self.mel_spec, 512
        sizes: Mapping[str, Any] = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
        self.module = package.Vocos(
            package.feature_extractors.MelSpectrogramFeatures(spec.sample_rate, **sizes),
            package.models.VocosBackbone(spec.n_mels, dim, intermediate_dim=1536, num_layers=8),
            package.heads.ISTFTHead(dim, padding="center", **sizes),
        )
        self.module.to(device).eval()
        self._device = device

    def mel(self, frames: int) -> Tensor:
        # The transform is centred: F + 1 frames make F * hop samples.
        return super().mel(frames + 1).to(self._device)

    def synthesize(self, mel: Tensor) -> object:
        model: Any = self.module
        return model.decode(mel)


def standard_systems(
    models: Mapping[str, Vocoder] | None = None, quick: bool = False
) -> list[System]:
    """Every family of the package on each of its engines, and its rivals.

    Args:
        models: trained models by the name of their row, which come first.
        quick: without the ONNX graph, whose export takes longer than all the rest of its row.
    """
    systems: list[System] = [PackageModel(n, m, "trained") for n, m in (models or {}).items()]
    for family in FAMILIES.values():
        if family.engines:
            # The last engine is the plain one, which the tests compare the others with.
            systems += [
                PackageModel(f"{family.title}, {engine}", family, engine=engine)
                for engine in family.engines[:-1]
            ]
        else:
            # WaveGlow's defaults are those of the paper.
            name = f"{family.title}, published" if family is WaveGlow else family.title
            systems.append(PackageModel(name, family))
        if torch.bfloat16 in family.dtypes:
            half = PackageModel(f"{family.title}, bfloat16", family, dtype=torch.bfloat16)
            systems += [half, *([] if quick else [OnnxModel(f"{family.title}, ONNX", family)])]
    return [*systems, GriffinLim(), Vocos()]


def voiced_signal(samples: int, sample_rate: int) -> Tensor:
    """Audio like a voiced sound in some noise, (samples,)."""
    generator = torch.Generator().manual_seed(0)
    phase = torch.cumsum(torch.full((samples,), 120 / sample_rate, dtype=torch.float64), 0) % 1
    pulses = torch.exp(-12 * phase).float() - 0.08
    return 0.2 * pulses + 0.01 * torch.randn(samples, generator=generator)


def count_macs(run: Callable[[], object]) -> float:
    """Multiply-accumulates of a call: half the floating point operations of PyTorch's counter.

    Counts matrix products, convolutions and Fourier transforms (5 N log2 N operations for a complex
    one of N points, half of that for a real one); pointwise operations count as nothing.
    """
    aten = torch.ops.aten
    extra = {
        aten._fft_r2c: _real_fft,
        aten._fft_c2r: _complex_to_real_fft,
        aten._fft_c2c: _fft,
        # The counter knows these products, but not their in-place forms.
        aten.addmm_: _product,
        aten.baddbmm_: _product,
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=extra) as counter:
        run()
    return counter.get_total_flops() / 2


def _product(shape: Sequence[int], left: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(shape) * left[-1]


def _fft(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return round(5 * math.prod(shape) * math.log2(math.prod(shape[axis] for axis in dim)))


def _real_fft(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _fft(shape, dim) // 2


def _complex_to_real_fft(
    shape: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
) -> int:
    return _fft(out_shape, dim) // 2
