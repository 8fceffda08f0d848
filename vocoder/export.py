"""A flow as an ONNX graph, and that graph run by onnxruntime."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.atomic import write_atomic
from vocoder.audio import MelSpec, Refine, check_mel, check_refine, check_temperature
from vocoder.audio.noise import batch_noise
from vocoder.audio.validation import Clamp, as_tensor
from vocoder.models import FlowVocoder

OPSET = 18
"""The ONNX operator set of exported graphs."""


class InferenceGraph(nn.Module):
    r"""What is exported: :math:`(m, \epsilon) \mapsto f^{-1}(\epsilon; m)`, refined and clipped.

    Shapes: mel (batch, n_mels, frames), noise (batch, frames, `Vocoder.noise_per_frame`), already
    scaled by the temperature; audio (batch, frames * hop) in [-1, 1].
    """

    def __init__(self, model: FlowVocoder, refine: Refine, restore: float) -> None:
        super().__init__()
        self.model = model.fused()
        self.restoration = self.model.restoration if restore else None
        self.refine, self.restore = refine, restore

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        if self.restoration is not None:
            mel = self.restoration.restore(mel, 0.0, strength=self.restore)
        audio = self.model.sample(mel, noise, 1.0)
        if self.refine:
            audio = self.model.refine_audio(audio, mel, self.refine)
        return audio.clamp(-1, 1)


def export_onnx(
    model: FlowVocoder,
    path: str | os.PathLike[str],
    refine: Refine | None = None,
    restore: float | None = None,
) -> Path:
    """Write a flow as an ONNX graph ``(mel, noise) -> audio`` with dynamic batch and length.

    The mel convention travels in the graph's metadata. Run it with `OnnxVocoder` or with
    onnxruntime directly.

    Args:
        model: a trained flow.
        path: file to write, ``.onnx``; replaced whole or not at all.
        refine: iterations in the graph, as in `Vocoder.synthesize`; None takes the model's
            ``default_refine``. They take some ten times as long as outside of it.
        restore: as in `Vocoder.synthesize`; in the graph a mel is restored to its mean.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: the model is not a flow (only flows run in one pass), or refine is out of range.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ImportError(
            f'ONNX export needs {error.name}: pip install "flow-vocoder[export]"'
        ) from error
    if not isinstance(model, FlowVocoder):
        raise ValueError(f"{type(model).__name__} is not a flow: only flows export as one graph")
    refine = model.default_refine if refine is None else refine
    check_refine(refine)
    if restore is None:
        restore = float(model.restoration is not None)
    graph = InferenceGraph(model, refine, restore).float().cpu().eval()
    spec = model.mel_spec
    # Any sizes but 0 and 1, which the exporter would take for constants, as it would frames - 1.
    # The graph runs on any number of frames.
    frames = 5
    example = (torch.zeros(2, spec.n_mels, frames), torch.zeros(2, frames, model.noise_per_frame))
    batch_size, length = torch.export.Dim("batch"), torch.export.Dim("frames", min=3)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    with warnings.catch_warnings():
        # The exporter's own warnings (deprecations, optional packages) do not help users.
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
    facts = {
        "mel_spec": spec.to_dict(),
        "default_temperature": model.default_temperature,
        "noise_per_frame": model.noise_per_frame,
        "refine": refine,
    }
    for name, value in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    onnx.checker.check_model(proto)
    return write_atomic(Path(path), proto.SerializeToString())


class OnnxVocoder:
    """An exported flow, run by onnxruntime on the CPU.

    Args:
        path: a file that `export_onnx` wrote.
        threads: threads within one operator; 0 leaves the choice to onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the graph carries no mel convention: this package did not export it.
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
        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own kinds have no common base
            raise ValueError(
                f"{path} is not an ONNX graph that can be run: write it again with vocoder export "
                "--onnx"
            ) from error
        facts = self.session.get_modelmeta().custom_metadata_map
        if "mel_spec" not in facts:
            raise ValueError(f"{path} carries no mel_spec: export it with vocoder export --onnx")
        self.mel_spec = MelSpec.from_dict(json.loads(facts["mel_spec"]))
        self.default_temperature: float = json.loads(facts["default_temperature"])
        self.noise_per_frame: int = json.loads(facts["noise_per_frame"])
        """Standard normal numbers that the graph takes for each frame."""
        self.refine: Refine = json.loads(facts["refine"])
        """Iterations in the graph."""

    def synthesize(
        self,
        mel: NDArray[np.float32],
        temperature: float | None = None,
        seed: int | Sequence[int] | None = 0,
    ) -> NDArray[np.float32]:
        """Audio from a mel, equal to `Vocoder.synthesize` with the same seed and as many iterations
        (to 1e-4).

        Args:
            mel: (n_mels, frames) or (batch, n_mels, frames), float32.
            temperature, seed: as in `Vocoder.synthesize`.

        Returns:
            (frames * hop,) or (batch, frames * hop), float32, in [-1, 1].

        Raises:
            MelError: the mel cannot come from the model's `mel_spec`, or is far too loud.
            ValueError: the temperature or the seed is out of range.
        """
        if not isinstance(mel, np.ndarray):
            raise TypeError(f"mel is a {type(mel).__name__}: give a numpy array")
        check_mel(as_tensor(mel), self.mel_spec)
        if temperature is None:
            temperature = self.default_temperature
        check_temperature(temperature)
        batch = mel if mel.ndim == 3 else mel[None]
        clamps = [Clamp(self.mel_spec, temperature) for _ in batch]
        for clamp, item in zip(clamps, batch, strict=True):
            clamp.expect(as_tensor(item))
        drawn = batch_noise(seed, len(batch)).normal(0, batch.shape[2], self.noise_per_frame)
        noise = (temperature * drawn).expand(len(batch), *drawn.shape[-2:]).contiguous().numpy()
        inputs = {"mel": batch.astype(np.float32), "noise": noise}
        audio: NDArray[np.float32] = self.session.run(["audio"], inputs)[0]
        for clamp, row, item in zip(clamps, audio, batch, strict=True):  # the graph has clamped
            clamp(torch.from_numpy(row), as_tensor(item))
            clamp.finish()
        return audio if mel.ndim == 3 else audio[0]
