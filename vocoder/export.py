"""A flow as an ONNX graph, and that graph run by onnxruntime."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vocoder.atomic import write_atomic
from vocoder.audio import MelSpec, Refine, check_mel, check_refine, check_temperature
from vocoder.audio.validation import Clamp, as_tensor
from vocoder.extras import require
from vocoder.models import FlowVocoder, Noise


class InferenceGraph(nn.Module):
    r"""What is exported: :math:`(m, \epsilon) \mapsto f^{-1}(\epsilon; m)`, refined and clipped.

    Shapes: mel (batch, n_mels, frames), noise (batch, frames, `Vocoder.noise_per_frame`), scaled by
    the temperature; audio (batch, frames * hop).
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
    """Write a flow as an ONNX graph ``(mel, noise) -> audio`` with dynamic batch and length, the
    mel convention in its metadata, to `path`, a file ``.onnx``.

    Args:
        refine: as in `Vocoder.synthesize`; ten times as slow as outside of a graph.
        restore: as in `Vocoder.synthesize`; in the graph a mel is restored to its mean.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: the model is not a flow, or refine is out of range.
    """
    onnx = require("onnx", "ONNX export", "export")
    require("onnxscript", "ONNX export", "export")  # torch's exporter needs it
    if not isinstance(model, FlowVocoder):
        raise ValueError(f"{type(model).__name__} is not a flow: only flows export as one graph")
    refine = model.default_refine if refine is None else refine
    check_refine(refine)
    restore = float(model.restoration is not None) if restore is None else restore
    graph = InferenceGraph(model, refine, restore).float().cpu().eval()
    spec = model.mel_spec
    # Sizes of 0 and 1 the exporter would take for constants; the graph runs on any.
    example = (torch.zeros(2, spec.n_mels, 5), torch.zeros(2, 5, model.noise_per_frame))
    batch_size, length = torch.export.Dim("batch"), torch.export.Dim("frames", min=3)
    how: dict[str, Any] = {"dynamo": True, "opset_version": 18, "verbose": False}
    how["dynamic_shapes"] = {0: batch_size, 2: length}, {0: batch_size, 1: length}
    how |= {"input_names": ["mel", "noise"], "output_names": ["audio"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto: Any = torch.onnx.export(graph, example, **how).model_proto  # type: ignore[union-attr]
    facts = {"mel_spec": spec.to_dict(), "default_temperature": model.default_temperature}
    facts |= {"noise_per_frame": model.noise_per_frame, "refine": refine}
    onnx.helper.set_model_props(proto, {name: json.dumps(value) for name, value in facts.items()})
    onnx.checker.check_model(proto)
    return write_atomic(Path(path), proto.SerializeToString())


class OnnxVocoder:
    """An exported flow, run by onnxruntime on the CPU; ValueError if it is none. ``threads`` are
    those within one operator; 0 leaves the choice to onnxruntime."""

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        onnxruntime = require("onnxruntime", "running ONNX", "export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        cpu = {"providers": ["CPUExecutionProvider"]}
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), options, **cpu)
        except Exception as error:  # onnxruntime's own kinds have no common base
            what = "is not an ONNX graph: write it with vocoder export --onnx"
            raise ValueError(f"{path} {what}") from error
        facts = self.session.get_modelmeta().custom_metadata_map
        if "mel_spec" not in facts:
            raise ValueError(f"{path} has no mel_spec: write it with vocoder export --onnx")
        values = {name: json.loads(value) for name, value in facts.items()}
        self.mel_spec = MelSpec.from_dict(values["mel_spec"])
        self.default_temperature: float = values["default_temperature"]
        self.noise_per_frame: int = values["noise_per_frame"]
        self.refine: Refine = values["refine"]

    def synthesize(
        self, mel: NDArray[np.float32], temperature: float | None = None,
        seed: int | Sequence[int] | None = 0,
    ) -> NDArray[np.float32]:  # fmt: skip
        """Audio from a mel (n_mels, frames) or (batch, n_mels, frames), equal to that of
        `Vocoder.synthesize` with the same seed and iterations (to 1e-4), with its errors."""
        check_mel(as_tensor(mel), self.mel_spec)
        temperature = self.default_temperature if temperature is None else temperature
        check_temperature(temperature)
        batch = (mel if mel.ndim == 3 else mel[None]).astype(np.float32)
        drawn = Noise(seed, len(batch)).normal(0, batch.shape[2], self.noise_per_frame)
        noise = (temperature * drawn).expand(len(batch), *drawn.shape[-2:]).contiguous().numpy()
        inputs = {"mel": batch, "noise": noise}
        audio: NDArray[np.float32] = self.session.run(["audio"], inputs)[0]
        for item, row in zip(batch, audio, strict=True):  # which the graph has clamped
            clamp = Clamp(self.mel_spec, temperature)
            clamp.expect(torch.from_numpy(item))
            clamp(torch.from_numpy(row))
            clamp.finish()
        return audio if mel.ndim == 3 else audio[0]
