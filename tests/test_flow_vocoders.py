"""Flow vocoders as a whole: exact likelihood, inverse, lengths, repeatability, streaming."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import vocoder
from vocoder.audio import MelSpec
from vocoder.models import FlowVocoder, MdctFlow, Noise, Vocoder, WaveGlow, load_checkpoint

SPEC = MelSpec(
    sample_rate=8000, n_fft=256, hop_length=16, win_length=64, n_mels=40, fmin=0, fmax=4000
)
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"

VARIANTS: dict[str, tuple[type[FlowVocoder], dict[str, Any]]] = {
    "published": (WaveGlow, {"n_group": 8, "n_flows": 4, "n_early_every": 2, "n_early_size": 2}),
    "odd channels": (WaveGlow, {"n_group": 8, "n_flows": 3, "n_early_every": 1, "n_early_size": 1}),
    "frame-rate blocks": (WaveGlow, {"n_group": 16, "n_flows": 3, "n_early_every": 0}),
    "mdct": (MdctFlow, {"n_flows": 4, "split": "channels", "scale_channels": 5}),
    "without weight norm": (MdctFlow, {"n_flows": 2, "scale_channels": 5, "weight_norm": False}),
    "frames": (MdctFlow, {"n_flows": 3, "scale_channels": 5}),
    "source": (
        MdctFlow,
        {
            "n_flows": 3,
            "scale_channels": 5,
            "source": True,
            "source_channels": 5,
            "source_features": 3,
        },
    ),
    "source alone": (
        MdctFlow,
        {"n_flows": 0, "scale_channels": 5, "source": True, "source_channels": 5},
    ),
}


def build(name: str, spec: MelSpec = SPEC) -> Any:
    """A small flow whose every parameter has moved off its start."""
    torch.manual_seed(1)
    family, sizes = VARIANTS[name]
    model = family(mel_spec=spec, **({"channels": 8, "n_layers": 2} | sizes))
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    if getattr(model, "source", None) is not None:
        model.source.pitch.last.bias.data[-1] += 10  # every frame is voiced
    return model.eval()


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def trained_parameters(model: FlowVocoder) -> Iterator[tuple[str, nn.Parameter]]:
    """All but those of the pitch network, which come with the package."""
    for name, parameter in model.named_parameters():
        if name.startswith("source.pitch"):
            assert not parameter.requires_grad
        else:
            yield name, parameter


def random_mel(frames: int, batch: int | None = None) -> Tensor:
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    return -8 + 4 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


def test_log_prob_is_the_change_of_variables(model: FlowVocoder) -> None:
    """log p(x) = log N(f(x)) + log |det df/dx|, the Jacobian by autograd, in float64."""
    model = model.double()
    frames = 3
    mel = random_mel(frames).double()
    audio = 1e-3 * torch.randn(frames * SPEC.hop_length, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, mel)[0].flatten(), audio)
    z, log_det = model(audio, mel)
    assert (log_det - torch.linalg.slogdet(jacobian).logabsdet).abs() < 1e-8
    normal = -0.5 * z.square().sum() - 0.5 * z.numel() * math.log(2 * math.pi)
    # With a source, given the phase that `forward` takes; `log_likelihood` is a mixture over all.
    likelihood = model._density(audio[None], model.condition(mel[None]))[0]
    assert (likelihood - normal - log_det).abs() < 1e-8
    assert (model.inverse(z, mel) - audio).abs().max() < 1e-10


def test_gradient_reaches_every_parameter_both_ways(model: FlowVocoder) -> None:
    audio, mel = 0.1 * torch.randn(2, 10 * SPEC.hop_length), random_mel(10, 2)
    model.training_loss({"audio": audio, "mel": mel}).backward()
    trained = dict(trained_parameters(model))
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    model.zero_grad()
    z = model(audio, mel)[0].detach()
    model.inverse(z, mel).square().sum().backward()
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 16, 33])
def test_samples_are_frames_times_hop(model: FlowVocoder, frames: int) -> None:
    audio = model.synthesize(random_mel(frames))
    assert audio.shape == (frames * SPEC.hop_length,)
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1
    assert model.synthesize(random_mel(frames, 2)).shape == (2, frames * SPEC.hop_length)


def test_same_seed_same_audio_whatever_the_neighbours_and_the_padding(model: FlowVocoder) -> None:
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


def test_temperature_zero_is_deterministic(model: FlowVocoder) -> None:
    mel = random_mel(12)
    silent = model.synthesize(mel, temperature=0, seed=1)
    assert torch.equal(silent, model.synthesize(mel, temperature=0.0, seed=2))
    zeros = torch.zeros(model.n_group, 12 * model.steps_per_frame)
    assert (silent - model.inverse(zeros, mel).clamp(-1, 1)).abs().max() < 1e-6


@pytest.mark.parametrize("sizes", [[1] * 90, [90], [40, 3, 47], [7] * 12 + [6]])
def test_streaming_equals_one_pass(model: FlowVocoder, sizes: list[int]) -> None:
    mel = random_mel(90)
    whole = model.synthesize(mel, seed=3)
    chunks = list(model.stream(iter(mel.split(sizes, dim=1)), seed=3))
    assert (torch.cat(chunks) - whole).abs().max() < 1e-5
    if len(sizes) == 90:
        assert len(chunks) > 10


def test_long_mels_are_made_in_windows(model: FlowVocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = random_mel(130, 2)
    whole = model.synthesize(mel, lengths=[130, 101])
    monkeypatch.setattr("vocoder.models.base.LONGEST_PASS", 40)
    longest = []
    generate = type(model).generate

    def watched(self: FlowVocoder, mel: Tensor, *arguments: Any) -> Tensor:
        longest.append(mel.shape[2])
        return generate(self, mel, *arguments)

    monkeypatch.setattr(type(model), "generate", watched)
    assert (model.synthesize(mel, lengths=[130, 101]) - whole).abs().max() < 1e-5
    assert len(longest) == 4 + 3
    past, ahead = model.context_frames
    assert past is None or max(longest) <= 40 + past + ahead


def test_context_frames_is_what_the_output_depends_on(model: FlowVocoder) -> None:
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


def test_streaming_nothing_gives_nothing() -> None:
    assert list(build("mdct").stream(iter([]))) == []


def test_streaming_takes_empty_chunks_and_keeps_no_gradient() -> None:
    model, mel = build("mdct"), random_mel(12).requires_grad_()
    chunks = [mel[:, :0], mel[:, :5], mel[:, 5:5], mel[:, 5:]]
    made = torch.cat(list(model.stream(iter(chunks))))
    assert not made.requires_grad
    torch.testing.assert_close(made, model.synthesize(mel.detach()), atol=1e-5, rtol=0)


def test_integer_audio_is_refused(model: FlowVocoder) -> None:
    mel = random_mel(6)
    audio = np.zeros(6 * SPEC.hop_length, dtype=np.int16)
    for judge in (model.log_prob, model.forward):
        with pytest.raises(ValueError, match="divide int16 samples by 32768"):
            judge(audio, mel.numpy())


def test_made_in_inference_mode_and_used_outside(tmp_path: Path) -> None:
    path, mel = build("mdct").save(tmp_path / "model"), random_mel(6)
    with torch.inference_mode():
        model = load_checkpoint(path)
        inside = model.synthesize(mel)
    assert torch.equal(model.synthesize(mel), inside)
    model = load_checkpoint(path).requires_grad_(False)
    assert isinstance(model, FlowVocoder)
    with torch.inference_mode():
        model.inverse(torch.zeros(model.n_group, 6), mel)
    mel.requires_grad_()
    model.inverse(torch.zeros(model.n_group, 6), mel).sum().backward()
    assert mel.grad is not None
    assert mel.grad.abs().max() > 0


def test_other_types_than_float32() -> None:
    model, mel = build("mdct"), random_mel(6)
    audio = model.synthesize(mel)
    nats = model.log_prob(audio, mel)
    torch.testing.assert_close(build("mdct").double().log_prob(audio, mel).float(), nats)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(model.synthesize(mel), audio)
        assert build("mdct").float().synthesize(mel).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_numpy_in_numpy_out(model: FlowVocoder) -> None:
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


def test_log_prob_completes_the_last_hop_as_the_mel_does(model: FlowVocoder) -> None:
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
    with pytest.raises(ValueError, match="do not go together"):
        model.log_prob(audio[0], mel)


def test_saving_and_loading_gives_the_same_audio(model: FlowVocoder, tmp_path: Path) -> None:
    mel = random_mel(8)
    directory = model.save(tmp_path / "model")
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]
    for path in (directory, directory / "model.safetensors", str(directory)):
        loaded = vocoder.load(path)
        assert loaded.mel_spec == model.mel_spec
        assert not loaded.training
        assert (loaded.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    model.save(tmp_path / "model")  # over the previous one
    assert len(list(directory.iterdir())) == 2


def test_fusing_keeps_the_function(model: FlowVocoder) -> None:
    mel = random_mel(8)
    fused = model.fused()
    assert (fused.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    assert not fused.config["weight_norm"]
    assert not any("parametrizations" in name for name in fused.state_dict())
    exact = load_checkpoint_exactly(model)
    assert torch.equal(exact.synthesize(mel), model.synthesize(mel))


def load_checkpoint_exactly(model: FlowVocoder) -> Vocoder:
    with tempfile.TemporaryDirectory() as folder:
        return load_checkpoint(model.save(Path(folder) / "model"))


def test_a_fused_model_is_frozen(model: FlowVocoder) -> None:
    fused = model.fused()
    assert fused.frozen
    assert not model.frozen
    assert not any(p.requires_grad for p in fused.parameters())
    assert not any("parametrizations" in name for name in fused.state_dict())
    with pytest.raises(RuntimeError, match="frozen"):
        fused.train()
    with pytest.raises(RuntimeError, match="frozen"):
        fused.load_state_dict(fused.state_dict())
    fused.eval()
    # The model it came from goes on learning, and changes nothing in it.
    mel = random_mel(8)
    before = fused.synthesize(mel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    assert torch.equal(fused.synthesize(mel), before)
    assert (model.synthesize(mel) - before).abs().max() > 1e-3
    assert (model.fused().synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5


def test_sample_is_the_inverse_of_noise_and_differentiable(model: FlowVocoder) -> None:
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


def test_the_default_temperature_is_that_of_the_family(model: FlowVocoder) -> None:
    mel = random_mel(9)
    usual = model.synthesize(mel, temperature=model.default_temperature)
    assert torch.equal(model.synthesize(mel), usual)
    assert torch.equal(torch.cat(list(model.stream([mel]))), usual)
    assert not torch.equal(model.synthesize(mel, temperature=0.3), usual)


def test_bfloat16_autocast_keeps_the_sensitive_parts(model: FlowVocoder) -> None:
    mel = random_mel(20, 2)
    audio = model.sample(mel, torch.randn(2, 20, model.noise_per_frame), 1.0).detach()
    exact = model.log_prob(audio, mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, log_det = model(audio, mel)
        rough = model.log_prob(audio, mel)
        back = model.inverse(z, mel)
    assert z.dtype == log_det.dtype == rough.dtype == torch.float32
    assert ((exact - rough).abs() / audio.shape[1] < 0.1).all()
    # Both directions round the couplings alike, so the inverse stays close.
    assert (back - audio).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("family", "arguments", "words"),
    [
        (WaveGlow, {"n_group": 7}, "does not divide the hop"),
        (WaveGlow, {"n_flows": 0}, "at least one step"),
        (WaveGlow, {"n_flows": 12, "n_early_every": 1}, "early outputs"),
        (WaveGlow, {"kernel_size": 2}, "odd"),
        (WaveGlow, {"mel_spec": "nope"}, "presets"),
        (MdctFlow, {"n_flows": -1}, "0 or more steps"),
        (MdctFlow, {"split": "time"}, "choose 'channels' or 'frames'"),
        (MdctFlow, {"conv1x1_init": "rotation"}, "give a list"),
        (MdctFlow, {"conv1x1_init": []}, "give a list"),
        (MdctFlow, {"conv1x1_init": ["spin"]}, "unknown start 'spin'"),
        (MdctFlow, {"look_ahead": -1}, "look_ahead is -1"),
        (MdctFlow, {"mel_spec": "nope"}, "presets"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    family: type[FlowVocoder], arguments: dict[str, object], words: str
) -> None:
    sizes = {"mel_spec": SPEC, "channels": 4, "n_layers": 1} | arguments
    with pytest.raises(ValueError, match=words):
        family(**sizes)


def test_bad_input_is_refused_in_one_sentence() -> None:
    model, mel = build("mdct"), random_mel(5)
    for temperature in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            model.synthesize(mel, temperature=temperature)
    for lengths in ([5, 5], [0], [6]):
        with pytest.raises(ValueError, match="lengths"):
            model.synthesize(mel, lengths=lengths)
    with pytest.raises(ValueError, match="non-negative"):
        model.synthesize(mel, seed=-1)
    with pytest.raises(TypeError, match="torch tensor or a numpy array"):
        model.synthesize([[0.0]])  # type: ignore[type-var]
    with pytest.raises(vocoder.MelError):
        model.synthesize(mel.T)
    with pytest.raises(ValueError, match="do not fit the mel"):
        model.inverse(torch.zeros(16, 4), mel)
    with pytest.raises(ValueError, match="chunks"):
        next(model.stream([mel[None]]))


def test_the_scale_starts_as_the_level_of_the_bands() -> None:
    """White noise of a known level comes out of the untrained flow close to white."""
    torch.manual_seed(0)
    for preset in ("ljspeech", "speech-16k", "speech-24k", "speech-44k"):
        hop = MelSpec.preset(preset).hop_length
        model = MdctFlow(preset, n_flows=1, channels=4, n_layers=1)
        audio = 0.05 * torch.randn(200 * hop)
        z, _ = model(audio, model.mel(audio))
        assert 0.8 < z.std() < 1.25


def test_the_scale_reads_every_log_convention() -> None:
    spec = MelSpec.preset("speech-16k")
    stds = []
    torch.manual_seed(0)
    audio = 0.05 * torch.randn(100 * 256)
    for change in ({}, {"log_base": "10"}, {"power": 2.0, "floor": 1e-10}, {"mel_norm": None}):
        torch.manual_seed(1)
        changed = dataclasses.replace(spec, **change)  # type: ignore[arg-type]
        model = MdctFlow(changed, n_flows=1, channels=4, n_layers=1)
        stds.append(model(audio, model.mel(audio))[0].std().item())
    assert max(stds) / min(stds) < 1.15


def test_config_is_recorded_for_subclasses_too() -> None:
    class Renamed(WaveGlow):
        """Inherits the constructor."""

    class Small(WaveGlow):
        """Has a constructor of its own."""

        def __init__(self, mel_spec: MelSpec, width: int = 4) -> None:
            super().__init__(mel_spec=mel_spec, n_flows=1, channels=width, n_layers=1)

    renamed = Renamed(SPEC, n_flows=1, channels=4, n_layers=1)
    assert renamed.config["channels"] == 4
    assert renamed.config["kernel_size"] == 3
    assert Small(SPEC, 6).config == {"mel_spec": SPEC.to_dict(), "width": 6}


def test_noise_is_a_function_of_seed_and_position() -> None:
    noise = Noise(7)
    whole = noise.normal(0, 100, 16)
    assert torch.equal(whole[37:80], noise.normal(37, 43, 16))
    assert torch.equal(whole, Noise(7).normal(0, 100, 16))
    assert not torch.equal(whole, Noise(8).normal(0, 100, 16))
    assert noise.uniform(0, 50, 4).min() >= 0
    draws = noise.normal(0, 4000, 16)
    assert abs(draws.mean()) < 0.02
    assert abs(draws.std() - 1) < 0.02
    assert noise.normal(3, 0, 16).shape == (0, 16)


def test_recorded_speech_round_trip_and_likelihood() -> None:
    """On real speech in float32: exact inverse, and a density that prefers its own mel."""
    audio, rate = vocoder.read_audio(SAMPLE)
    model = MdctFlow("speech-16k", n_flows=4, channels=16, n_layers=2)
    assert rate == model.sample_rate
    mel = model.mel(audio)
    completed = torch.nn.functional.pad(audio, (0, mel.shape[1] * 256 - len(audio)))
    z, _ = model(completed, mel)
    assert (model.inverse(z, mel) - completed).abs().max() < 1e-4
    assert model.log_prob(audio, mel) > model.log_prob(audio, mel.flip(1))


def test_the_bundled_flows_sound_as_they_did() -> None:
    """Audio and likelihood of both, stored when they were first bundled in this form."""
    stored = load_file(Path(__file__).parent / "data/bundled_flows.safetensors")
    for name in ("default", "recorded-russian"):
        model = vocoder.load(name)
        mel = stored[f"{name}/mel"]
        for temperature in (0.0, 0.667):
            made = model.synthesize(mel, temperature=temperature, seed=3)
            expected = stored[f"{name}/audio-{temperature}"]
            assert np.abs(made - expected).max() < 1e-5
        with torch.no_grad():
            latents, _ = model.forward(expected, mel)
            assert np.abs(model.inverse(latents, mel) - expected).max() < 1e-4
            recording, _ = vocoder.read_audio(SAMPLE.with_name("ru_0051.flac"), model.sample_rate)
            excerpt = recording[model.sample_rate :][: expected.size].numpy()
            likelihood = float(model.log_prob(excerpt, mel))
        assert abs(likelihood / float(stored[f"{name}/log_prob"]) - 1) < 1e-5


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("name", ["published", "frames"])
def test_refined_audio_streams_batches_and_obeys_its_mel(name: str, center: bool) -> None:
    spec = dataclasses.replace(SPEC, center=center)
    model = build(name, spec)
    generator = torch.Generator().manual_seed(0)
    samples = 40 * SPEC.hop_length - int(center)
    mel = model.mel(0.1 * torch.randn(samples, generator=generator))
    alone, pure = (model.synthesize(mel, refine=sweeps) for sweeps in (3, 0))
    assert torch.equal(model.synthesize(mel), pure)  # the default of the family
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


def test_the_number_of_sweeps_is_part_of_a_model(tmp_path: Path) -> None:
    model = MdctFlow(SPEC, n_flows=1, channels=4, n_layers=1, refine=2).eval()
    mel = random_mel(20)
    loaded = vocoder.load(model.save(tmp_path / "model"))
    assert loaded.default_refine == 2
    assert (loaded.synthesize(mel) - model.synthesize(mel, refine=2)).abs().max() < 1e-5
    for refine in (-1, 1.5, 10**6, True):
        with pytest.raises(ValueError, match="sweeps must be"):
            model.synthesize(mel, refine=refine)
        with pytest.raises(ValueError, match="sweeps must be"):
            next(model.stream([mel], refine=refine))
        with pytest.raises(ValueError, match="sweeps must be"):
            MdctFlow(SPEC, n_flows=1, channels=4, n_layers=1, refine=refine)  # type: ignore[arg-type]
