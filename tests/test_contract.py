"""What every architecture that makes audio in one pass keeps to: lengths, seeds, streams, files.

A new architecture is a line in `VARIANTS`. Autoregressive ones: test_autoregressive.py.
"""

import dataclasses

import numpy as np
import pytest
import torch

import vocoder
from vocoder.audio import MelSpec
from vocoder.models import MdctFlow, Noise, WaveGlow, load_checkpoint

SPEC = MelSpec(
    sample_rate=8000, n_fft=256, hop_length=16, win_length=64, n_mels=40, fmin=0, fmax=4000
)

SOURCE = {"scale_channels": 5, "source": True, "source_channels": 5}
VARIANTS = {
    "published": (WaveGlow, {"n_group": 8, "n_flows": 4, "n_early_every": 2, "n_early_size": 2}),
    "odd channels": (WaveGlow, {"n_group": 8, "n_flows": 3, "n_early_every": 1, "n_early_size": 1}),
    "frame-rate blocks": (WaveGlow, {"n_group": 16, "n_flows": 3, "n_early_every": 0}),
    "mdct": (MdctFlow, {"n_flows": 4, "scale_channels": 5}),
    "without weight norm": (MdctFlow, {"n_flows": 2, "scale_channels": 5, "weight_norm": False}),
    "source": (MdctFlow, {"n_flows": 3, **SOURCE, "source_features": 3}),
    "source alone": (MdctFlow, {"n_flows": 0, **SOURCE}),
}


def build(name, spec=SPEC):
    """A small model whose every parameter has moved off its start."""
    torch.manual_seed(1)
    architecture, sizes = VARIANTS[name]
    model = architecture(**({"mel_spec": spec, "channels": 8, "n_layers": 2} | sizes))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    if sizes.get("source"):
        model.source.pitch.last.bias.data[-1] += 10  # every frame is voiced
    return model.eval()


@pytest.fixture(params=VARIANTS)
def model(request):
    return build(request.param)


def trained_parameters(model):
    """All but those of the pitch network, which come with the package."""
    for name, parameter in model.named_parameters():
        if name.startswith("source.pitch"):
            assert not parameter.requires_grad
        else:
            yield name, parameter


def random_mel(frames, batch=None):
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    return -8 + 4 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 16, 33])
def test_samples_are_frames_times_hop(model, frames):
    audio = model.synthesize(random_mel(frames))
    assert audio.shape == (frames * SPEC.hop_length,)
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1
    assert model.synthesize(random_mel(frames, 2)).shape == (2, frames * SPEC.hop_length)


def test_same_seed_same_audio_whatever_the_neighbours_and_the_padding(model):
    mels = [random_mel(frames) for frames in (9, 30, 21)]
    padded = torch.zeros(3, SPEC.n_mels, 30)
    for row, mel in enumerate(mels):
        padded[row, :, : mel.shape[1]] = mel
    batch = model.synthesize(padded, seed=5, lengths=[9, 30, 21])
    for row, mel in enumerate(mels):
        alone = model.synthesize(mel, seed=5)
        valid = alone.shape[0]
        assert (batch[row, :valid] - alone).abs().max() < 1e-5
        assert torch.equal(batch[row, valid:], torch.zeros(30 * SPEC.hop_length - valid))
    assert torch.equal(model.synthesize(mels[0], seed=5), model.synthesize(mels[0], seed=5))
    assert not torch.equal(model.synthesize(mels[0], seed=5), model.synthesize(mels[0], seed=6))
    assert not torch.equal(
        model.synthesize(mels[0], seed=None), model.synthesize(mels[0], seed=None)
    )


def test_items_of_a_batch_may_have_seeds_of_their_own(model, monkeypatch):
    mel, seeds, lengths = random_mel(70).expand(4, -1, -1), [5, 6, 5, 7], [70, 70, 31, 70]
    for longest in (100, 40):  # in one pass, and in windows
        monkeypatch.setattr("vocoder.models.base.LONGEST_PASS", longest)
        batch = model.synthesize(mel, seed=seeds, lengths=lengths)
        for item, seed, length in zip(batch, seeds, lengths, strict=True):
            alone = model.synthesize(mel[0, :, :length], seed=seed)
            assert (item[: len(alone)] - alone).abs().max() < 1e-5
        assert (batch[0] - batch[1]).abs().max() > 1e-3
    fused = model.fused().synthesize(mel, seed=np.array(seeds), lengths=lengths)
    assert (fused - batch).abs().max() < 1e-5


def test_seeds_that_fit_no_batch_are_refused():
    model = build("mdct")
    for seeds, named in (([1, 2], "do not fit a batch of 3"), ([1, 2, -3], "seed is -3")):
        with pytest.raises(ValueError, match=named):
            model.synthesize(random_mel(5, 3), seed=seeds)
    with pytest.raises(ValueError, match="seed is"):
        next(model.stream([random_mel(5)], seed=[1]))  # one for a stream


def test_temperature_zero_is_deterministic(model):
    mel = random_mel(12)
    silent = model.synthesize(mel, temperature=0, seed=1)
    assert torch.equal(silent, model.synthesize(mel, temperature=0.0, seed=2))
    zeros = torch.zeros(1, 12, model.noise_per_frame)
    sampled = model.sample(mel.unsqueeze(0), zeros, 1.0)[0]
    assert (silent - sampled.clamp(-1, 1)).abs().max() < 1e-6


@pytest.mark.parametrize("sizes", [[1] * 90, [90], [40, 3, 47], [7] * 12 + [6]])
def test_streaming_equals_one_pass(model, sizes):
    mel = random_mel(90)
    whole = model.synthesize(mel, seed=3)
    chunks = list(model.stream(iter(mel.split(sizes, dim=1)), seed=3))
    assert (torch.cat(chunks) - whole).abs().max() < 1e-5
    if len(sizes) == 90:
        assert len(chunks) > 10


def test_long_mels_are_made_in_windows(model, monkeypatch):
    mel = random_mel(130, 2)
    whole = model.synthesize(mel, lengths=[130, 101])
    monkeypatch.setattr("vocoder.models.base.LONGEST_PASS", 40)
    longest = []
    read = type(model.source).read

    def watched(self, mel):
        longest.append(mel.shape[2])
        return read(self, mel)

    monkeypatch.setattr(type(model.source), "read", watched)
    assert (model.synthesize(mel, lengths=[130, 101]) - whole).abs().max() < 1e-5
    assert len(longest) == 5 + 4  # the last ones of frames that wait for more mel
    past, ahead = model._window
    assert max(longest) <= 40 + past + 1 + ahead


def test_context_frames_is_what_the_output_depends_on(model):
    """Samples of a frame depend on no mel outside the context."""
    past, ahead = model.context_frames
    endless = past is None
    past = 40 if past is None else past
    frames = past + ahead + 20
    mel = random_mel(frames)
    changed = mel.clone()
    middle = past + 5
    changed[:, middle] += 1
    difference = (model.synthesize(mel) - model.synthesize(changed)).abs()
    moved = difference.reshape(frames, -1).amax(dim=1) > 1e-6
    first, last = moved.nonzero()[[0, -1], 0].tolist()
    assert moved[middle]
    assert middle - ahead <= first
    assert endless or last <= middle + past


def test_numpy_in_numpy_out(model):
    mel = random_mel(6)
    audio = model.synthesize(mel.numpy())
    assert isinstance(audio, np.ndarray)
    assert audio.dtype == np.float32
    assert np.array_equal(audio, model.synthesize(mel).numpy())
    assert np.array_equal(audio, model.synthesize(mel.double().numpy()))
    assert isinstance(model.mel(audio), np.ndarray)
    assert isinstance(model.log_prob(audio, mel.numpy()), np.ndarray)
    assert isinstance(next(model.stream([mel.numpy()])), np.ndarray)
    assert model.mel(torch.from_numpy(audio)).shape == (SPEC.n_mels, 6)


def test_log_prob_completes_the_last_hop_as_the_mel_does(model):
    audio = 0.1 * torch.randn(2, 5 * SPEC.hop_length - 7)
    mel = model.mel(audio)
    assert mel.shape == (2, SPEC.n_mels, 5)
    log_prob = model.log_prob(audio, mel)
    assert log_prob.shape == (2,)
    completed = torch.nn.functional.pad(audio, (0, 7))
    assert torch.equal(log_prob, model.log_prob(completed, mel))
    assert model.log_prob(audio[0], mel[0]).shape == ()
    for wrong in (audio[:, : 3 * SPEC.hop_length], torch.cat([audio, audio], dim=1)):
        with pytest.raises(ValueError, match="does not fit a mel"):
            model.log_prob(wrong, mel)
    with pytest.raises(ValueError, match=r"does not fit a mel .* both with a batch"):
        model.log_prob(audio[0], mel)


def test_saving_and_loading_gives_the_same_audio(model, tmp_path):
    mel = random_mel(8)
    directory = model.save(tmp_path / "model")
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in directory.iterdir()) == names
    for path in (directory, directory / "model.safetensors", str(directory)):
        loaded = vocoder.load(path)
        assert loaded.mel_spec == model.mel_spec
        assert not loaded.training
        assert (loaded.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    model.save(tmp_path / "model")  # over the previous one
    assert len(list(directory.iterdir())) == 3
    assert torch.equal(load_checkpoint(directory).synthesize(mel), model.synthesize(mel))


def test_a_fused_model_is_the_same_function_frozen(model):
    fused, mel = model.fused(), random_mel(8)
    before = fused.synthesize(mel)
    assert (before - model.synthesize(mel)).abs().max() < 1e-5
    assert not fused.config["weight_norm"]
    assert not any(p.requires_grad for p in fused.parameters())
    assert not any("parametrizations" in name for name in fused.state_dict())
    with pytest.raises(RuntimeError, match="frozen"):
        fused.train()
    # The model it came from goes on learning, and changes nothing in it.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    assert torch.equal(fused.synthesize(mel), before)
    assert (model.synthesize(mel) - before).abs().max() > 1e-3


def test_sample_is_what_synthesize_makes_and_differentiable(model):
    """What `synthesize` makes of a seed, `sample` makes of the same noise, with gradients."""
    mel = random_mel(9, 2).requires_grad_()
    noise = Noise(4).normal(0, 9, model.noise_per_frame).expand(2, -1, -1)
    sampled = model.sample(mel, noise, 0.7)
    made = model.synthesize(mel.detach(), temperature=0.7, seed=4)
    assert (sampled.detach().clamp(-1, 1) - made).abs().max() < 1e-5
    sampled.square().mean().backward()
    assert mel.grad is not None
    assert mel.grad.abs().max() > 0
    for name, parameter in trained_parameters(model):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("name", ["published", "mdct"])
def test_refined_audio_streams_batches_and_obeys_its_mel(name, center):
    spec = dataclasses.replace(SPEC, center=center)
    model = build(name, spec)
    generator = torch.Generator().manual_seed(0)
    samples = 40 * SPEC.hop_length - int(center)
    mel = model.mel(0.1 * torch.randn(samples, generator=generator))
    alone, pure = (model.synthesize(mel, refine=refine) for refine in (3, 0))
    assert torch.equal(model.synthesize(mel), pure)  # the default of the architecture
    distances = [float(spec.distance(model.mel(audio)[:, :40], mel)) for audio in (pure, alone)]
    assert distances[1] < 0.8 * distances[0]
    padded = torch.nn.functional.pad(mel, (0, 11))
    batch = model.synthesize(torch.stack([padded, padded]), lengths=[40, 51], refine=3)
    assert (batch[0, : len(alone)] - alone).abs().max() < 1e-5
    assert batch[0, len(alone) :].abs().max() == 0
    for size in (1, 7, 40):
        streamed = torch.cat(list(model.stream(mel.split(size, dim=1), refine=3)))
        assert (streamed - alone).abs().max() < 1e-5
    assert model.look_ahead(3) > model.look_ahead(0) == model.context_frames[1]
