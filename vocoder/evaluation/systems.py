"""The vocoders that the speed benchmark compares, each behind one protocol: load, then run.

A system makes audio from a mel in its own convention, with the weights it is given or with
random ones (speed does not depend on them). How they are timed: `vocoder.evaluation.benchmark`.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torchaudio
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vocoder.audio import LogMel, MelSpec
from vocoder.engines.onnx import OnnxVocoder, export_onnx
from vocoder.models import FAMILIES, FlowVocoder, MdctFlow, Vocoder, WaveGlow
from vocoder.models.autoregressive import AutoregressiveVocoder
from vocoder.models.wavenet import WaveNet

from .extras import require

Weights = Literal["trained", "random"]

# Hyper-parameters of the published charactr/vocos-mel-24khz, which the package can only download.
_VOCOS_MEL: Mapping[str, Any] = {
    "sample_rate": 24000,
    "n_fft": 1024,
    "hop_length": 256,
    "n_mels": 100,
    "padding": "center",
}
_VOCOS_BACKBONE: Mapping[str, Any] = {
    "input_channels": 100,
    "dim": 512,
    "intermediate_dim": 1536,
    "num_layers": 8,
}


@dataclass(frozen=True)
class Job:
    """One piece of work: audio of a fixed size, made as often as ``run`` is called."""

    run: Callable[[], object]
    """Makes ``samples`` samples for each of ``items``."""
    samples: int
    items: int


class System(ABC):
    """A vocoder in the benchmark.

    Attributes:
        name: unique label of the row.
        family: kind of model.
        engine: what runs it.
        weights: "trained" or "random".
        devices: types of device that it runs on.
        sequential: it makes samples one by one, so that the cost of each is the same however many
            are made, and few of them are enough to measure.
    """

    name: str
    family: str
    engine: str = "pytorch"
    weights: Weights = "random"
    devices: tuple[str, ...] = ("cpu", "cuda")
    sequential: bool = False
    counted_seconds: float = 1.0

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples per second of its audio, Hz."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """What holds its parameters and buffers; there after `load`."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Build the model on the device, or move it there.

        Raises:
            Exception: it cannot run here; the benchmark leaves it out and says why.
        """

    @abstractmethod
    def job(self, batch: int, samples: int) -> Job:
        """The work of making at least ``samples`` samples for each of ``batch`` items.

        A system may take fewer items where that costs the same for each.
        """

    def first_audio(self) -> Callable[[], object] | None:
        """Makes audio up to the first chunk that can be heard; None where it comes whole only."""
        return None

    @property
    def threads(self) -> int:
        """CPU threads that it runs on."""
        return torch.get_num_threads()

    @property
    def dtype(self) -> str:
        """The type that it computes in, by torch's name."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        floating = next(tensor.dtype for tensor in tensors if tensor.is_floating_point())
        return str(floating).removeprefix("torch.")

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def multiply_accumulates(self) -> float:
        """Multiply-accumulates per second of audio, counted while it makes `counted_seconds`."""
        job = self.job(1, round(self.counted_seconds * self.sample_rate))
        job.run()  # what is computed once for all, as weights multiplied out, is left aside
        return count_macs(job.run) * self.sample_rate / job.samples


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
        # The counter knows these products, and overlooks their forms in place.
        aten.addmm_: _product,
        aten.baddbmm_: _product,
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=extra) as counter:
        run()
    return counter.get_total_flops() / 2


def _product(shape: Sequence[int], left: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * torch.Size(shape).numel() * left[-1]


def _fft(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    points = 1
    for axis in dim:
        points *= shape[axis]
    return round(5 * torch.Size(shape).numel() * torch.tensor(float(points)).log2().item())


def _real_fft(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return _fft(shape, dim) // 2


def _complex_to_real_fft(
    shape: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
) -> int:
    return _fft(out_shape, dim) // 2


def voiced_signal(samples: int, sample_rate: int) -> Tensor:
    """Audio like a voiced sound in some noise, (samples,): what a mel of speech can look like."""
    generator = torch.Generator().manual_seed(0)
    phase = torch.cumsum(torch.full((samples,), 120 / sample_rate, dtype=torch.float64), 0) % 1
    pulses = torch.exp(-12 * phase).float() - 0.08
    return 0.2 * pulses + 0.01 * torch.randn(samples, generator=generator)


class PackageModel(System):
    """A `Vocoder` of this package that makes all samples in parallel, run as its users run it.

    Args:
        name, weights, counted_seconds: see `System`.
        model: the model, or a function that builds it, without weight normalisation.
    """

    def __init__(
        self,
        name: str,
        model: Vocoder | Callable[[], Vocoder],
        weights: Weights = "random",
        counted_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self.weights = weights
        self.counted_seconds = counted_seconds
        self._source = model
        self._model: Vocoder | None = None

    @property
    def model(self) -> Vocoder:
        """The model; there after `load`."""
        assert self._model is not None, "load first"
        return self._model

    @property
    def family(self) -> str:  # type: ignore[override]
        return self.model.family

    @property
    def module(self) -> nn.Module:
        return self.model

    @property
    def sample_rate(self) -> int:
        return self.model.sample_rate

    def load(self, device: torch.device) -> None:
        if self._model is None:
            source = self._source
            # The caller's model is left as it is.
            if isinstance(source, Vocoder):
                self._model = copy.deepcopy(source).fused()
            else:
                self._model = source().eval()
        self._model.to(device)

    def mel(self, frames: int) -> Tensor:
        """A mel (n_mels, frames) in the model's convention, on its device."""
        samples = frames * self.model.mel_spec.hop_length
        audio = voiced_signal(samples, self.sample_rate).to(self.model.device)
        return self.model.mel(audio)[:, :frames]

    def job(self, batch: int, samples: int) -> Job:
        hop = self.model.mel_spec.hop_length
        frames = -(-samples // hop)
        mel = self.mel(frames)
        if batch > 1:
            mel = mel.expand(batch, -1, -1).contiguous()
        return Job(lambda: self.model.synthesize(mel), frames * hop, batch)

    def first_audio(self) -> Callable[[], object] | None:
        # The first chunk of mel is what the first chunk of audio needs: look-ahead and one frame.
        needed = self.model.context_frames[1] + 1
        chunks = self.mel(2 * needed).split(needed, dim=1)
        return lambda: next(iter(self.model.stream(chunks)))


class BFloat16Flow(PackageModel):
    """A flow of this package whose couplings compute in bfloat16, on the CPU.

    Args:
        name, model, weights: as in `PackageModel`.
    """

    devices = ("cpu",)
    dtype = "bfloat16"

    def load(self, device: torch.device) -> None:
        if self._model is None:
            super().load(device)
            self._model = self.model.fused(torch.bfloat16)


class OnnxFlow(PackageModel):
    """A flow of this package exported as an ONNX graph and run by onnxruntime, on the CPU.

    Args:
        name, model, weights: as in `PackageModel`.
    """

    engine = "onnxruntime"
    devices = ("cpu",)

    def load(self, device: torch.device) -> None:
        super().load(device)
        require("onnxruntime", "WaveGlow as an ONNX graph", "export")
        assert isinstance(self.model, FlowVocoder)
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(self.model, Path(folder) / "flow.onnx")
            self._graph = OnnxVocoder(path, threads=torch.get_num_threads())

    def job(self, batch: int, samples: int) -> Job:
        hop = self.model.mel_spec.hop_length
        frames = -(-samples // hop)
        mel = self.mel(frames).expand(batch, -1, -1).contiguous().numpy()
        return Job(lambda: self._graph.synthesize(mel), frames * hop, batch)

    def first_audio(self) -> None:
        return None

    def multiply_accumulates(self) -> float:
        # onnxruntime is not counted by PyTorch, but the graph is the model's own, piece by piece.
        model = self.model
        assert isinstance(model, FlowVocoder)
        frames = -(-self.sample_rate // model.mel_spec.hop_length)
        mel = self.mel(frames).unsqueeze(0)
        z = torch.zeros(1, model.n_group, frames * model.steps_per_frame)
        macs = count_macs(lambda: model.inverse(z, mel))
        return macs * self.sample_rate / (frames * model.mel_spec.hop_length)


class AutoregressiveModel(PackageModel):
    """An `AutoregressiveVocoder` of this package on one of its engines.

    Args:
        name, model, weights: as in `PackageModel`.
        engine: one of the model's engines; None for its own.
    """

    sequential = True

    def __init__(
        self,
        name: str,
        model: Vocoder | Callable[[], Vocoder],
        weights: Weights = "random",
        engine: str | None = None,
    ) -> None:
        super().__init__(name, model, weights)
        self._engine = engine

    @property
    def engine(self) -> str:  # type: ignore[override]
        model = self.model
        assert isinstance(model, AutoregressiveVocoder)
        return model.engine

    @property
    def devices(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("cpu",) if self.engine == "compiled" else ("cpu", "cuda")

    @property
    def threads(self) -> int:
        return 1 if self.engine == "compiled" else torch.get_num_threads()

    def load(self, device: torch.device) -> None:
        super().load(device)
        if self._engine is not None:
            assert isinstance(self.model, AutoregressiveVocoder)
            self.model.engine = self._engine

    def multiply_accumulates(self) -> float:
        # The counter sees nothing of machine code. Teacher forcing computes the same for each
        # sample as a step of generation, except that nothing is computed twice.
        model = self.model
        hop = model.mel_spec.hop_length
        frames = 8
        mel = self.mel(frames).unsqueeze(0)
        audio = mel.new_zeros(1, frames * hop)
        return count_macs(lambda: model(audio, mel)) * self.sample_rate / (frames * hop)


class NaiveWaveNet(AutoregressiveModel):
    """WaveNet whose every sample is a pass over its whole receptive field.

    A frame of it takes minutes, so single samples are made, of speech that has gone on for longer
    than the receptive field. (The first samples of all, which have less behind them, are cheaper:
    `first_audio` has those.) On a CPU one item stands for a batch: thousands of steps in parallel
    keep it as busy as can be.
    """

    def __init__(
        self, name: str, model: Vocoder | Callable[[], Vocoder], weights: Weights = "random"
    ) -> None:
        super().__init__(name, model, weights, "naive")

    def job(self, batch: int, samples: int) -> Job:
        model = self.model
        assert isinstance(model, WaveNet)
        hop = model.mel_spec.hop_length
        if model.device.type == "cpu":
            batch = 1
        past = -(-(model.stack.receptive_field + 1) // hop)
        frames = -(-samples // hop)
        mel = self.mel(past + frames + 2).expand(batch, -1, -1)  # a neighbour on either side
        noise = torch.rand(2, samples, generator=torch.Generator().manual_seed(0)).to(mel)
        audio = voiced_signal(past * hop, self.sample_rate).to(mel).expand(batch, -1)
        with torch.no_grad():
            features = model.conditioner(mel)

        def run() -> Tensor:
            with torch.no_grad():
                session: Any = model._begin("naive", batch, 0.667)
                session.audio, session.features = audio, features[..., : past + 2]
                result: Tensor = session(features[..., past:], noise[0], noise[1])
            return result

        return Job(run, samples, batch)

    def multiply_accumulates(self) -> float:
        return count_macs(self.job(1, 1).run) * self.sample_rate


class GriffinLim(System):
    """Griffin-Lim of torchaudio, from the same mel: least squares to linear frequency, 32 rounds.

    Paper: Griffin and Lim, 1984; the fast version of Perraudin, Balazs and Soendergaard, 2013.
    """

    name = "Griffin-Lim"
    family = "griffin-lim"
    engine = "torchaudio"
    weights: Weights = "random"  # it has none: the phase starts at random

    def __init__(self, mel_spec: MelSpec | str = "ljspeech") -> None:
        spec = MelSpec.preset(mel_spec) if isinstance(mel_spec, str) else mel_spec
        # torchaudio's frames are centred on k * hop.
        self.mel_spec = dataclasses.replace(spec, center=True)

    @property
    def sample_rate(self) -> int:
        return self.mel_spec.sample_rate

    @property
    def module(self) -> nn.Module:
        return self._transforms

    def load(self, device: torch.device) -> None:
        spec = self.mel_spec
        linear = torchaudio.transforms.InverseMelScale(
            n_stft=spec.n_fft // 2 + 1,
            n_mels=spec.n_mels,
            sample_rate=spec.sample_rate,
            f_min=spec.fmin,
            f_max=spec.fmax,
            norm=spec.mel_norm,
            mel_scale=spec.mel_scale,
            # The one driver that takes filters of less than full rank; CUDA has none such.
            driver="gelsd" if device.type == "cpu" else "gels",
        )
        phase = torchaudio.transforms.GriffinLim(
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            power=spec.power,
        )
        self._transforms = nn.Sequential(linear, phase).to(device)
        self._device = device

    def job(self, batch: int, samples: int) -> Job:
        spec = self.mel_spec
        # The transform reflects half a window at the ends, and needs more than that.
        hops = max(-(-samples // spec.hop_length), spec.n_fft // 2 // spec.hop_length + 1)
        audio = voiced_signal(hops * spec.hop_length, spec.sample_rate)
        mel = LogMel(spec)(audio).expand(batch, -1, -1).to(self._device).contiguous()

        def run() -> Tensor:
            magnitude = mel.exp() if spec.log_base == "e" else 10.0**mel
            with torch.no_grad():
                result: Tensor = self._transforms(magnitude)
            return result

        return Job(run, hops * spec.hop_length, batch)


class Vocos(System):
    """Vocos from its own package, in the published configuration for 24 kHz mels.

    Paper: Siuzdak, 2023.
    """

    name = "Vocos"
    family = "vocos"

    @property
    def sample_rate(self) -> int:
        return int(_VOCOS_MEL["sample_rate"])

    @property
    def module(self) -> nn.Module:
        return self._model

    def load(self, device: torch.device) -> None:
        package = require("vocos", "Vocos", "bench")
        hop = {"n_fft": _VOCOS_MEL["n_fft"], "hop_length": _VOCOS_MEL["hop_length"]}
        self._model: nn.Module = package.Vocos(
            package.feature_extractors.MelSpectrogramFeatures(**_VOCOS_MEL),
            package.models.VocosBackbone(**_VOCOS_BACKBONE),
            package.heads.ISTFTHead(dim=_VOCOS_BACKBONE["dim"], padding="center", **hop),
        )
        self._model.to(device).eval()
        self._device = device

    def job(self, batch: int, samples: int) -> Job:
        hop = int(_VOCOS_MEL["hop_length"])
        # The transform reflects half a window at the ends, and needs more than that.
        hops = max(-(-samples // hop), int(_VOCOS_MEL["n_fft"]) // 2 // hop + 1)
        model: Any = self._model
        audio = voiced_signal(hops * hop, self.sample_rate).expand(batch, -1).to(self._device)
        with torch.no_grad():
            mel = model.feature_extractor(audio)
        return Job(lambda: model.decode(mel), hops * hop, batch)


class TorchaudioWaveRNN(System):
    """torchaudio's WaveRNN in the configuration of its published LJSpeech pipeline.

    Paper: Kalchbrenner et al., 2018.
    """

    name = "WaveRNN (torchaudio)"
    family = "wavernn"
    engine = "torchaudio"
    sequential = True
    counted_seconds = 0.01

    # Its weights would have to be downloaded; its hyper-parameters are at hand.
    _sizes = torchaudio.pipelines.TACOTRON2_WAVERNN_CHAR_LJSPEECH._wavernn_params

    @property
    def sample_rate(self) -> int:
        return 22050  # of LJSpeech

    @property
    def module(self) -> nn.Module:
        return self._model

    def load(self, device: torch.device) -> None:
        self._model = torchaudio.models.WaveRNN(**self._sizes).to(device).eval()
        self._device = device

    def job(self, batch: int, samples: int) -> Job:
        hop = self._sizes["hop_length"]
        frames = -(-samples // hop)
        mel = torch.rand(
            batch, self._sizes["n_freq"], frames, generator=torch.Generator().manual_seed(0)
        )
        mel = mel.to(self._device)

        def run() -> Tensor:
            with torch.no_grad():
                audio: Tensor = self._model.infer(mel)[0]
            return audio

        return Job(run, frames * hop, batch)


def standard_systems(
    models: Mapping[str, Vocoder] | None = None, quick: bool = False
) -> list[System]:
    """Every family and preset of the package, on every engine, and its rivals.

    Args:
        models: trained models by the name of their row, which come first. They stay as they are.
        quick: without the ONNX graph, whose export takes longer than all the rest of its row.
    """
    trained = [_of_package(name, model, "trained") for name, model in (models or {}).items()]
    return [
        *trained,
        PackageModel("MDCT flow", _mdct_flow),
        BFloat16Flow("MDCT flow, bfloat16", _mdct_flow),
        *([] if quick else [OnnxFlow("MDCT flow, ONNX", _mdct_flow)]),
        PackageModel("WaveGlow, published", _published, counted_seconds=0.1),
        *(
            _of_package(f"{family.__name__}, {engine}", family, "random", engine)
            for family in FAMILIES.values()
            if issubclass(family, AutoregressiveVocoder)
            for engine in family.engines
        ),
        TorchaudioWaveRNN(),
        GriffinLim(),
        Vocos(),
    ]


def _mdct_flow() -> MdctFlow:
    return MdctFlow(weight_norm=False)  # the recipe's sizes are the defaults


def _published() -> WaveGlow:
    return WaveGlow(weight_norm=False)  # the paper's sizes are the defaults


def _of_package(
    name: str, model: Vocoder | type[Vocoder], weights: Weights, engine: str | None = None
) -> System:
    family = model if isinstance(model, type) else type(model)
    if not issubclass(family, AutoregressiveVocoder):
        return PackageModel(name, model, weights)
    if family is WaveNet and engine == "naive":
        return NaiveWaveNet(name, model, weights)
    return AutoregressiveModel(name, model, weights, engine)
