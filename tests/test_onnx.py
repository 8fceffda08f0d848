"""The exported graph in the real onnxruntime gives the audio of the model it came from."""

import sys

import numpy as np
import pytest
import torch

from tests.test_contract import SPEC, build
from vocoder.audio import MelError

pytest.importorskip("onnxscript", reason="extra export is not installed")
pytest.importorskip("onnxruntime", reason="extra export is not installed")

from vocoder.export import OnnxVocoder, export_onnx


@pytest.fixture(scope="module", params=["source", "published"])
def pair(request, tmp_path_factory):
    model = build(request.param)
    path = export_onnx(model.fused(), tmp_path_factory.mktemp("onnx") / "model.onnx")
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    return model, OnnxVocoder(path, threads=1)


@pytest.mark.parametrize("frames", [1, 2, 17, 200])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_same_audio_as_the_model(pair, frames, batch):
    model, exported = pair
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    mel = (-4 + 2 * np.random.default_rng(frames).random(shape)).astype(np.float32)
    ours = model.synthesize(mel, temperature=0.8, seed=4)
    theirs = exported.synthesize(mel, temperature=0.8, seed=4)
    assert theirs.dtype == np.float32
    assert theirs.shape == ours.shape
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(ours).max() > 0.01


def test_the_mel_convention_travels(pair):
    assert pair[1].mel_spec == SPEC
    assert pair[1].default_temperature == pair[0].default_temperature
    mel = np.full((SPEC.n_mels, 3), -4, dtype=np.float32)
    usual = pair[1].synthesize(mel, temperature=pair[0].default_temperature)
    assert np.array_equal(pair[1].synthesize(mel), usual)


def test_what_the_model_refuses_is_refused(pair):
    mel = np.full((SPEC.n_mels, 8), -4, dtype=np.float32)
    with pytest.raises(MelError, match="bands"):
        pair[1].synthesize(mel[:-1])
    with pytest.raises(MelError, match="decibels"):
        pair[1].synthesize(15 * mel)
    for temperature in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature is"):
            pair[1].synthesize(mel, temperature=temperature)


def test_what_is_not_a_flow_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a flow"):
        export_onnx(torch.nn.Linear(1, 1), tmp_path / "x.onnx")


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"flow-vocoder\[export\]"):
        export_onnx(build("published"), tmp_path / "x.onnx")
