"""Checkpoints on disk and models by name: what is refused, and with which message."""

import json

import pytest
import safetensors.torch
import torch

import vocoder
from vocoder import CheckpointError, MelSpec
from vocoder.checkpoints import checkpoint_hash, read_checkpoint, write_checkpoint
from vocoder.models import WaveGlow


@pytest.fixture
def checkpoint(tmp_path):
    spec = MelSpec(
        sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
    )
    model = WaveGlow(mel_spec=spec, n_flows=2, n_early_every=0, channels=4, n_layers=1)
    return model.save(tmp_path / "model")


def edit(checkpoint, **changes):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_half_precision_halves_the_file_and_loads_as_float32(checkpoint):
    model = vocoder.load(checkpoint)
    half = model.save(checkpoint.parent / "half", torch.float16)
    sizes = [(path / "model.safetensors").stat().st_size for path in (half, checkpoint)]
    assert sizes[0] < 0.7 * sizes[1]  # not 0.5: the header is as long as these small weights
    loaded = vocoder.load(half)
    for name, value in loaded.state_dict().items():
        exact = model.state_dict()[name]
        assert value.dtype == exact.dtype
        assert torch.equal(value, exact.half().to(exact.dtype))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 99}, "upgrade flow-vocoder"),
        ({"format_version": None}, "format_version"),
        ({"family": "wavelet"}, "architecture 'wavelet' is unknown"),
        ({"family": None}, "lacks"),
        ({"config": {"n_flowz": 2}}, "does not fit WaveGlow"),
        ({"config": {"n_flows": 3}}, "do not fit the config"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(checkpoint, changes, words):
    edit(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=words):
        vocoder.load(checkpoint)


def test_broken_or_missing_files_are_refused(checkpoint, tmp_path):
    for name in ("model.safetensors", "model.pt"):
        with pytest.raises(CheckpointError, match="give the name of a directory"):
            write_checkpoint(tmp_path / name, {}, {})
        assert not (tmp_path / name).exists()
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        vocoder.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"it has no config.json"):
        vocoder.load(tmp_path)
    (checkpoint / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="damaged"):
        vocoder.load(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        vocoder.load(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no model.safetensors"):
        vocoder.load(checkpoint)


def test_an_interrupted_write_leaves_the_previous_checkpoint(checkpoint, monkeypatch):
    before = (checkpoint / "model.safetensors").read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vocoder.load(checkpoint).save(checkpoint)
    assert (checkpoint / "model.safetensors").read_bytes() == before
    assert len(list(checkpoint.iterdir())) == 3


def test_a_name_that_is_neither_bundled_nor_a_path(monkeypatch):
    with pytest.raises(CheckpointError, match=r"no model 'nonesuch'.*train one"):
        vocoder.load("nonesuch")
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        vocoder.load("runs/nonesuch/model")
    monkeypatch.setattr("vocoder.pretrained.bundled_models", dict)
    with pytest.raises(CheckpointError, match=r"python recipes/ljspeech/train.py --data sample"):
        vocoder.load()


def test_every_public_name_resolves():
    for name in vocoder.__all__:
        assert getattr(vocoder, name) is not None
    with pytest.raises(AttributeError, match="nonesuch"):
        vocoder.nonesuch  # noqa: B018


def test_a_model_is_loaded_onto_a_device(checkpoint):
    assert vocoder.load(checkpoint).device.type == "cpu"
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert vocoder.load(checkpoint, device="auto").device.type == expected
    assert vocoder.load(checkpoint, device=torch.device("cpu")).device.type == "cpu"
    for name, words in {"gpu": "there is no device 'gpu'", "cuda:99": "sees no device"}.items():
        with pytest.raises(ValueError, match=words):
            vocoder.load(checkpoint, device=name)


def test_the_hash_of_a_checkpoint_is_that_of_the_weights_that_are_named(checkpoint):
    whole = checkpoint_hash(checkpoint)
    other = checkpoint / "step4.safetensors"
    other.write_bytes((checkpoint / "model.safetensors").read_bytes())
    assert checkpoint_hash(other) == whole == checkpoint_hash(checkpoint / "config.json")
    _, tensors = read_checkpoint(checkpoint)
    changed = {name: value + 1 for name, value in tensors.items()}
    safetensors.torch.save_file(changed, other)
    assert checkpoint_hash(other) != whole
    assert checkpoint_hash(checkpoint) == whole
