"""A flow as an ONNX graph, and that graph run by onnxruntime."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vocoder.audio import MelSpec, check_mel
from vocoder.flows import Bijection, InvertibleConv1x1, PLUConv1x1
from vocoder.models import Noise, WaveGlow
from vocoder.models.base import check_temperature
from vocoder.whole_files import write_whole

OPSET = 18
"""The ONNX operator set of exported graphs."""


class _Constant(Bijection):
    """A 1x1 convolution whose inverse is a constant of the graph; runs backwards only."""

    inverse_weight: Tensor

    def __init__(self, inverse_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("inverse_weight", inverse_weight.unsqueeze(-1).clone())

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("an exported graph runs from latents to audio only")

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.conv1d(z, self.inverse_weight)


def _with_constant_inverses(piece: nn.Module) -> None:
    """Replace every 1x1 convolution below ``piece`` by its inverse matrix."""
    with torch.no_grad():
        for name, child in piece.named_children():
            if isinstance(child, InvertibleConv1x1 | PLUConv1x1):
                setattr(piece, name, _Constant(child.inverse_matrix()))
            elif isinstance(child, Bijection | nn.ModuleList):
                _with_constant_inverses(child)


class InferenceGraph(nn.Module):
    r"""What is exported: :math:`(m, \epsilon) \mapsto f^{-1}(\epsilon; m)`, clipped to [-1, 1].

    Shapes: mel (batch, n_mels, frames), noise (batch, frames, hop), already scaled by the
    temperature; audio (batch, frames * hop).
    """

    def __init__(self, model: WaveGlow) -> None:
        super().__init__()
        self.model = copy.deepcopy(model.fused())
        self.shaping = self.model.noise_shaping()  # from the matrices that go in the next line
        _with_constant_inverses(self.model.flow)

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        batch, frames, hop = noise.shape
        z = noise.reshape(batch, frames * self.model.steps_per_frame, self.model.n_group)
        z = z.transpose(1, 2)
        if self.shaping is not None:
            z = F.conv1d(z, self.shaping.unsqueeze(-1))
        audio = self.model.flow.inverse(z, self.model._condition(mel))
        return audio.reshape(batch, frames * hop).clamp(-1, 1)


def export_onnx(model: WaveGlow, path: str | os.PathLike[str]) -> Path:
    """Write a flow as an ONNX graph ``(mel, noise) -> audio`` with dynamic batch and length.

    The mel convention travels in the graph's metadata. Run it with `OnnxVocoder` or with
    onnxruntime directly.

    Args:
        model: a trained flow.
        path: file to write, ``.onnx``; replaced whole or not at all.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: the model is no flow, and only flows run in one pass.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ImportError(
            f'ONNX export needs {error.name}: pip install "flow-vocoder[export]"'
        ) from error
    if not isinstance(model, WaveGlow):
        raise ValueError(f"{type(model).__name__} is no flow: only flows export as one graph")
    path = Path(path)
    graph = InferenceGraph(model).float().cpu().eval()
    spec = model.mel_spec
    # Any sizes but 0 and 1, which the exporter would take for constants.
    frames = 3
    example = (torch.zeros(2, spec.n_mels, frames), torch.zeros(2, frames, spec.hop_length))
    batch_size, length = torch.export.Dim("batch"), torch.export.Dim("frames")
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    with warnings.catch_warnings():
        # What torch's exporter says of itself (its deprecations, packages it could use) is of no
        # use to who exports a model.
        warnings.simplefilter("ignore")
        exporter_log.setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["mel", "noise"],
            output_names=["audio"],
            dynamic_shapes=({0: batch_size, 2: length}, {0: batch_size, 1: length}),
            verbose=False,
        )
    exporter_log.setLevel(level)
    assert program is not None
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "mel_spec", json.dumps(spec.to_dict())
    onnx.checker.check_model(proto)
    return write_whole(path, proto.SerializeToString())


class OnnxVocoder:
    """An exported flow, run by onnxruntime on the CPU.

    Args:
        path: a file that `export_onnx` wrote.
        threads: threads within one operator; 0 leaves the choice to onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the graph carries no mel convention, so it was not exported by this package.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                'running ONNX needs onnxruntime: pip install "flow-vocoder[export]"'
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "mel_spec" not in metadata:
            raise ValueError(f"{path} carries no mel_spec: export it with vocoder export --onnx")
        self.mel_spec = MelSpec.from_dict(json.loads(metadata["mel_spec"]))

    def synthesize(
        self, mel: NDArray[np.float32], temperature: float = 0.667, seed: int = 0
    ) -> NDArray[np.float32]:
        """Audio from a mel, as `Vocoder.synthesize` makes it from the same seed (to 1e-4).

        Args:
            mel: (n_mels, frames) or (batch, n_mels, frames), float32.
            temperature, seed: as in `Vocoder.synthesize`.

        Returns:
            (frames * hop,) or (batch, frames * hop), float32, in [-1, 1].

        Raises:
            MelError: the mel cannot come from the model's `mel_spec`.
            ValueError: the temperature is out of range.
        """
        if not isinstance(mel, np.ndarray):
            raise TypeError(f"mel is a {type(mel).__name__}: give a numpy array")
        check_mel(torch.from_numpy(np.array(mel)), self.mel_spec)
        check_temperature(temperature)
        batch = mel if mel.ndim == 3 else mel[None]
        noise = Noise(seed).normal(0, batch.shape[2], self.mel_spec.hop_length).numpy()
        noise = np.broadcast_to(noise * np.float32(temperature), (len(batch), *noise.shape))
        inputs = {"mel": batch.astype(np.float32), "noise": np.ascontiguousarray(noise)}
        audio: NDArray[np.float32] = self.session.run(["audio"], inputs)[0]
        return audio if mel.ndim == 3 else audio[0]
