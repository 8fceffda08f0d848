"""WaveGlow as a whole: exact likelihood, inverse, lengths, repeatability, streaming."""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vocoder.models.folded import foldable

import vocoder
from vocoder.audio import MelSpec
from vocoder.flows import AffineCoupling
from vocoder.models import Noise, Vocoder, WaveGlow, load_checkpoint

SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
)
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"

VARIANTS = {
    "published": {
        "squeeze": "blocks",
        "n_group": 8,
        "n_flows": 4,
        "n_early_every": 2,
        "n_early_size": 2,
    },
    "odd channels": {
        "squeeze": "blocks",
        "n_group": 8,
        "n_flows": 3,
        "n_early_every": 1,
        "n_early_size": 1,
    },
    "frame-rate blocks": {"squeeze": "blocks", "n_group": 16, "n_flows": 3, "n_early_every": 0},
    "lapped": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_flows": 4,
        "n_early_every": 0,
        "mixing": ["even-odd", "half-swap"],
        "conditional_scale": True,
        "scale_channels": 5,
    },
    "lapped small": {
        "squeeze": "lapped",
        "n_group": 8,
        "n_flows": 2,
        "n_early_every": 0,
        "plu": True,
    },
    "bounded separable": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_flows": 2,
        "n_early_every": 0,
        "log_scale_bound": 2.0,
        "separable": True,
        "weight_norm": False,
    },
    "frames": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_flows": 3,
        "n_early_every": 0,
        "split": "frames",
    },
    "band temperature": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_flows": 2,
        "n_early_every": 0,
        "band_temperature": [1.0, 0.4, 0.7],
    },
    "frames and channels": {
        "squeeze": "blocks",
        "n_group": 8,
        "n_flows": 4,
        "n_early_every": 2,
        "n_early_size": 1,
        "n_layers": 1,
        "split": ["frames", "channels"],
    },
    "shared": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_flows": 3,
        "n_early_every": 2,
        "n_early_size": 4,
        "shared": True,
    },
    "two sizes": {
        "squeeze": "lapped",
        "n_group": 16,
        "n_late_group": 8,
        "n_flows": 4,
        "n_early_every": 0,
        "split": ["channels", "frames"],
        "conditional_scale": True,
        "scale_channels": 5,
    },
}


def build(name: str, spec: MelSpec = SPEC) -> WaveGlow:
    """A small WaveGlow whose every parameter has moved off its start."""
    torch.manual_seed(1)
    sizes = {"channels": 8, "n_layers": 2} | VARIANTS[name]
    model = WaveGlow(mel_spec=spec, **sizes)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> WaveGlow:
    return build(request.param)


def random_mel(frames: int, batch: int | None = None) -> Tensor:
    shape = (SPEC.n_mels, frames) if batch is None else (batch, SPEC.n_mels, frames)
    return -4 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


def test_log_prob_is_the_change_of_variables(model: WaveGlow) -> None:
    """log p(x) = log N(f(x)) + log |det df/dx|, the Jacobian by autograd, in float64."""
    model = model.double()
    frames = 3
    mel = random_mel(frames).double()
    audio = 0.3 * torch.randn(frames * SPEC.hop_length, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, mel)[0].flatten(), audio)
    z, log_det = model(audio, mel)
    assert (log_det - torch.linalg.slogdet(jacobian).logabsdet).abs() < 1e-8
    normal = -0.5 * z.square().sum() - 0.5 * z.numel() * math.log(2 * math.pi)
    likelihood = model.log_likelihood(audio[None], mel[None])[0]
    assert (likelihood - normal - log_det).abs() < 1e-8
    assert (model.inverse(z, mel) - audio).abs().max() < 1e-10


def test_gradient_reaches_every_parameter_both_ways(model: WaveGlow) -> None:
    audio, mel = 0.1 * torch.randn(2, 10 * SPEC.hop_length), random_mel(10, 2)
    model.training_loss({"audio": audio, "mel": mel}).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    model.zero_grad()
    z = model(audio, mel)[0].detach()
    model.inverse(z, mel).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 16, 33])
def test_samples_are_frames_times_hop(model: WaveGlow, frames: int) -> None:
    audio = model.synthesize(random_mel(frames))
    assert audio.shape == (frames * SPEC.hop_length,)
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1
    assert model.synthesize(random_mel(frames, 2)).shape == (2, frames * SPEC.hop_length)


def test_same_seed_same_audio_whatever_the_neighbours_and_the_padding(model: WaveGlow) -> None:
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


def test_temperature_zero_is_deterministic(model: WaveGlow) -> None:
    mel = random_mel(12)
    silent = model.synthesize(mel, temperature=0, seed=1)
    assert torch.equal(silent, model.synthesize(mel, temperature=0.0, seed=2))
    zeros = torch.zeros(model.n_group, 12 * model.steps_per_frame)
    assert (silent - model.inverse(zeros, mel).clamp(-1, 1)).abs().max() < 1e-6


@pytest.mark.parametrize("sizes", [[1] * 90, [90], [40, 3, 47], [7] * 12 + [6]])
def test_streaming_equals_one_pass(model: WaveGlow, sizes: list[int]) -> None:
    mel = random_mel(90)
    whole = model.synthesize(mel, seed=3)
    chunks = list(model.stream(iter(mel.split(sizes, dim=1)), seed=3))
    assert (torch.cat(chunks) - whole).abs().max() < 1e-5
    if len(sizes) == 90:
        assert len(chunks) > 10


def test_long_mels_are_made_in_windows(model: WaveGlow, monkeypatch: pytest.MonkeyPatch) -> None:
    if foldable(model):
        pytest.skip("a folded flow works in pieces of its own: tests/test_folded.py")
    mel = random_mel(130, 2)
    whole = model.synthesize(mel, lengths=[130, 101])
    monkeypatch.setattr("vocoder.models.base.LONGEST_PASS", 40)
    longest = []
    generate = type(model).generate

    def watched(self: WaveGlow, mel: Tensor, *arguments: Any) -> Tensor:
        longest.append(mel.shape[2])
        return generate(self, mel, *arguments)

    monkeypatch.setattr(type(model), "generate", watched)
    assert (model.synthesize(mel, lengths=[130, 101]) - whole).abs().max() < 1e-5
    assert len(longest) == 4 + 3
    assert max(longest) <= 40 + sum(model.context_frames)


def test_context_frames_is_what_the_output_depends_on(model: WaveGlow) -> None:
    """Samples of a frame depend on no mel outside the context."""
    past, ahead = model.context_frames
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
    assert last <= middle + past


def test_streaming_nothing_gives_nothing() -> None:
    assert list(build("lapped").stream(iter([]))) == []


def test_streaming_takes_empty_chunks_and_keeps_no_gradient() -> None:
    model, mel = build("lapped"), random_mel(12).requires_grad_()
    chunks = [mel[:, :0], mel[:, :5], mel[:, 5:5], mel[:, 5:]]
    made = torch.cat(list(model.stream(iter(chunks))))
    assert not made.requires_grad
    torch.testing.assert_close(made, model.synthesize(mel.detach()), atol=1e-5, rtol=0)


def test_integer_audio_is_refused(model: WaveGlow) -> None:
    mel = random_mel(6)
    audio = np.zeros(6 * SPEC.hop_length, dtype=np.int16)
    for judge in (model.log_prob, model.forward):
        with pytest.raises(ValueError, match="divide int16 samples by 32768"):
            judge(audio, mel.numpy())


def test_made_in_inference_mode_and_used_outside(tmp_path: Path) -> None:
    path, mel = build("lapped").save(tmp_path / "model"), random_mel(6)
    with torch.inference_mode():
        model = load_checkpoint(path)
        inside = model.synthesize(mel)
    assert torch.equal(model.synthesize(mel), inside)
    model = load_checkpoint(path).requires_grad_(False)
    assert isinstance(model, WaveGlow)
    with torch.inference_mode():
        model.inverse(torch.zeros(model.n_group, 6), mel)
    mel.requires_grad_()
    model.inverse(torch.zeros(model.n_group, 6), mel).sum().backward()
    assert mel.grad is not None
    assert mel.grad.abs().max() > 0


def test_other_types_than_float32() -> None:
    model, mel = build("lapped"), random_mel(6)
    audio = model.synthesize(mel)
    nats = model.log_prob(audio, mel)
    torch.testing.assert_close(build("lapped").double().log_prob(audio, mel).float(), nats)
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(model.synthesize(mel), audio)
        assert build("lapped").float().synthesize(mel).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_numpy_in_numpy_out(model: WaveGlow) -> None:
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


def test_log_prob_completes_the_last_hop_as_the_mel_does(model: WaveGlow) -> None:
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


def test_saving_and_loading_gives_the_same_audio(model: WaveGlow, tmp_path: Path) -> None:
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


def test_fusing_keeps_the_function(model: WaveGlow) -> None:
    mel = random_mel(8)
    fused = model.fused()
    assert (fused.synthesize(mel) - model.synthesize(mel)).abs().max() < 1e-5
    assert not fused.config["weight_norm"]
    assert not any("parametrizations" in name for name in fused.state_dict())
    exact = load_checkpoint_exactly(model)
    assert torch.equal(exact.synthesize(mel), model.synthesize(mel))


def load_checkpoint_exactly(model: WaveGlow) -> Vocoder:
    with tempfile.TemporaryDirectory() as folder:
        return load_checkpoint(model.save(Path(folder) / "model"))


def test_sharing_saves_parameters_and_still_tells_the_steps_apart() -> None:
    shared = build("shared")
    own = WaveGlow(**{**shared.config, "mel_spec": SPEC, "shared": False})
    first, second = (coupling.conditioner for coupling in couplings(shared)[:2])
    assert first.dilated is second.dilated
    names = [name for name, _ in shared.named_parameters()]
    assert len([name for name in names if ".dilated.0." in name and "bias" in name]) == 1
    assert set(names) < {name for name, _ in own.named_parameters()}
    assert set(shared.state_dict()) == set(names)
    # Copies share among themselves, and not with the original.
    copied = copy.deepcopy(shared)
    one, other = (coupling.conditioner for coupling in couplings(copied)[:2])
    assert one.dilated is other.dilated
    assert one.dilated is not first.dilated


def test_band_temperature_quietens_its_bands() -> None:
    """Through the 1x1 convolutions alone, the noise of each band comes out as told."""
    torch.manual_seed(0)
    sizes = {"squeeze": "lapped", "n_group": 16, "n_early_every": 0, "channels": 4, "n_layers": 1}
    plain = WaveGlow(mel_spec=SPEC, n_flows=3, **sizes).eval()
    mel, noise = random_mel(4000), Noise(0)
    flat = WaveGlow(**{**plain.config, "mel_spec": SPEC, "band_temperature": [1.0, 1.0]}).eval()
    flat.load_state_dict(plain.state_dict())
    both = [model.latents(mel[None], noise, 0.5) for model in (plain, flat)]
    assert (both[0] - both[1]).abs().max() < 1e-5
    tilted = WaveGlow(**{**plain.config, "mel_spec": SPEC, "band_temperature": [1.0, 0.2]}).eval()
    tilted.load_state_dict(plain.state_dict())
    transform = tilted.flow.pieces[0]
    bands, _ = transform(tilted.generate(mel[None], noise, 0.5).unsqueeze(1))
    expected = 0.5 * (1.0 - 0.8 * (torch.arange(16) + 0.5) / 16)
    assert (bands[0].std(dim=1) / expected - 1).abs().max() < 0.06
    # The matrix follows the weights.
    before = tilted.noise_shaping()
    assert tilted.noise_shaping() is before
    with torch.no_grad():
        tilted.flow.pieces[1].pieces[0].weight.add_(0.3 * torch.randn(16, 16))
    assert (tilted.noise_shaping() - before).abs().max() > 0.01


def couplings(model: WaveGlow) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, AffineCoupling)]


def test_bfloat16_autocast_keeps_the_sensitive_parts(model: WaveGlow) -> None:
    audio, mel = 0.1 * torch.randn(2, 20 * SPEC.hop_length), random_mel(20, 2)
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
    ("arguments", "words"),
    [
        ({"squeeze": "wavelet"}, "choose 'blocks' or 'lapped'"),
        ({"n_group": 7}, "does not divide the hop"),
        ({"n_flows": 0}, "at least one step"),
        ({"n_flows": 12, "n_early_every": 1}, "early outputs"),
        ({"conditional_scale": True}, "conditional_scale"),
        ({"split": "time"}, "choose 'channels' or 'frames'"),
        ({"n_late_group": 4}, "n_late_group"),
        ({"band_temperature": [1.0, 1.0]}, "band_temperature shapes"),
        (
            {"squeeze": "lapped", "n_early_every": 0, "band_temperature": [1.0]},
            "two or more factors",
        ),
        (
            {"squeeze": "lapped", "n_group": 16, "n_early_every": 0, "n_late_group": 5},
            "must be smaller",
        ),
        ({"kernel_size": 2}, "odd"),
        ({"mel_spec": "nope"}, "presets"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, object], words: str) -> None:
    sizes = {"mel_spec": SPEC, "channels": 4, "n_layers": 1} | arguments
    with pytest.raises(ValueError, match=words):
        WaveGlow(**sizes)  # type: ignore[arg-type]


def test_bad_input_is_refused_in_one_sentence() -> None:
    model, mel = build("lapped"), random_mel(5)
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
    """White noise of a known level comes out of the untrained lapped flow close to white."""
    torch.manual_seed(0)
    for preset in ("ljspeech", "speech-16k", "speech-24k", "speech-44k"):
        hop = MelSpec.preset(preset).hop_length
        model = WaveGlow(
            mel_spec=preset,
            squeeze="lapped",
            n_group=hop,
            n_flows=1,
            n_early_every=0,
            channels=4,
            n_layers=1,
            conditional_scale=True,
        )
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
        model = WaveGlow(
            mel_spec=dataclasses.replace(spec, **change),  # type: ignore[arg-type]
            squeeze="lapped",
            n_group=256,
            n_flows=1,
            n_early_every=0,
            channels=4,
            n_layers=1,
            conditional_scale=True,
        )
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
    model = WaveGlow(
        mel_spec="speech-16k",
        squeeze="lapped",
        n_group=256,
        n_flows=4,
        n_early_every=0,
        channels=16,
        n_layers=2,
        mixing=["even-odd", "half-swap"],
        conditional_scale=True,
    )
    assert rate == model.sample_rate
    mel = model.mel(audio)
    completed = torch.nn.functional.pad(audio, (0, mel.shape[1] * 256 - len(audio)))
    z, _ = model(completed, mel)
    assert (model.inverse(z, mel) - completed).abs().max() < 1e-4
    assert model.log_prob(audio, mel) > model.log_prob(audio, mel.flip(1))
