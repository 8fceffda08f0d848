"""WaveNet: causal, repeatable, an exact likelihood, engines that agree.

Engines work in float32 in orders of summation of their own, so that a sample within some 1e-7 of
the edge of a quantisation step can come out one step apart; later samples see it, and in a model
of random weights it fades. Hence `assert_same`: nearly all samples equal, none far off.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vocoder
from vocoder.audio import MelSpec
from vocoder.models import Noise, WaveNet
from vocoder.models.past import Past
from vocoder.nn.mixture import STEP

# The hop is no multiple of the block of samples in which the compiled WaveNet works.
SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=20, win_length=64, n_mels=6, fmin=0, fmax=4000
)
# Enough bands to show harmonics, so that a pitch can be read off them.
FINE = MelSpec(
    sample_rate=8000, n_fft=512, hop_length=20, win_length=512, n_mels=40, fmin=0, fmax=4000
)
SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"
LEVELS = torch.arange(-32768, 32768, dtype=torch.float32)

# Dilations up to 32 and from 1 again; sizes that no vector register divides.
VARIANTS: dict[str, tuple[type[WaveNet], dict[str, object]]] = {
    "wavenet": (WaveNet, {"channels": 10, "n_layers": 8, "cycle": 6, "condition_channels": 5}),
    "wavenet gaussian": (
        WaveNet,
        {
            "distribution": "gaussian",
            "n_mixtures": 1,
            "channels": 7,
            "n_layers": 5,
            "kernel_size": 2,
            "condition_channels": 5,
        },
    ),
    "wavenet predictive": (
        WaveNet,
        {
            "channels": 6,
            "n_layers": 3,
            "cycle": 3,
            "condition_channels": 5,
            "linear_prediction": 7,
        },
    ),
    "wavenet with pitch taps": (
        WaveNet,
        {
            "mel_spec": FINE,
            "channels": 8,
            "n_layers": 4,
            "cycle": 4,
            "kernel_size": 2,
            "condition_channels": 5,
            "linear_prediction": 16,
            "pitch_taps": 3,
        },
    ),
}


def build(name: str) -> WaveNet:
    """A small model whose every parameter has moved off its start."""
    torch.manual_seed(1)
    family, sizes = VARIANTS[name]
    model = family(**({"mel_spec": SPEC} | sizes))  # type: ignore[arg-type]
    for parameter in trained(model):
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def trained(model: WaveNet) -> list[torch.nn.Parameter]:
    """The parameters without those of the pitch network."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> WaveNet:
    return build(request.param)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def random_mel(model: WaveNet, frames: int, batch: int | None = None) -> Tensor:
    shape = (model.mel_spec.n_mels, frames)
    if batch is not None:
        shape = (batch, *shape)
    return -4 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


def random_audio(frames: int, batch: int) -> Tensor:
    rng = torch.Generator().manual_seed(frames)
    return (0.1 * torch.randn(batch, frames * SPEC.hop_length, generator=rng)).clamp(-1, 1)


def assert_same(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a != b).float().mean() < 0.02
    assert (a - b).abs().max() < 4 * STEP


def test_all_engines_make_the_same_samples(model: WaveNet) -> None:
    """Over 700 samples of two items, more than the receptive field and one chunk."""
    mel, made = random_mel(model, 35, 2), {}
    for engine in model.engines:
        model.engine = engine
        made[engine] = model.generate(mel, Noise(3), 0.8)
    reference = made.pop(model.engines[-1])
    assert reference.std() > 100 * STEP
    assert len(made) >= 1
    for audio in made.values():
        assert_same(audio, reference)


def test_every_sample_is_drawn_from_the_teacher_forced_distribution(
    model: WaveNet,
) -> None:
    """Given all the audio that an engine made, the parallel pass gives each sample again."""
    frames, hop = 35, SPEC.hop_length
    mel, noise, temperature = random_mel(model, frames, 2), Noise(3), 0.8
    choice, uniform = noise.uniform(0, frames, 2 * hop).split(hop, dim=1)
    value = model.output.standard(noise.normal(0, frames, hop), uniform).flatten()
    choice = choice.flatten()
    for engine in model.engines:
        model.engine = engine
        audio = model.generate(mel, noise, temperature)
        parameters = model(audio, mel)
        again = torch.stack(
            [
                model.output.sample(parameters[..., t], choice[t], value[t], temperature)
                for t in range(len(value))
            ],
            dim=1,
        )
        assert (again != audio).float().mean() < 0.02
        assert (again - audio).abs().max() < 1.5 * STEP


def test_steps_and_the_parallel_pass_agree_in_float64(
    model: WaveNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where nothing but a mistake can make a difference."""
    model = model.double()
    mel = random_mel(model, 9, 2).double()
    for engine in model.engines:
        if engine == "compiled":  # in float32, always
            continue
        model.engine = engine
        seen: list[Tensor] = []
        sample = model.output.sample

        def record(p: Tensor, *noise: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(p)
            return sample(p, *noise)  # type: ignore[arg-type]  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(model.output, "sample", record)
            audio = model.generate(mel, Noise(0), 1.0)
        assert audio.dtype == torch.float64
        assert (torch.stack(seen, dim=-1) - model(audio, mel)).abs().max() < 1e-10


def test_the_future_of_the_audio_never_changes_the_past(model: WaveNet) -> None:
    mel, audio = random_mel(model, 20, 1), random_audio(20, 1)
    before = model(audio, mel)
    for t in (0, 1, 57, 398):
        changed = audio.clone()
        changed[:, t] += 0.1
        moved = (model(changed, mel) - before).abs().amax(dim=(0, 1))
        assert moved[: t + 1].max() == 0
        assert moved[t + 1] > 0


def test_the_mel_is_heard_no_earlier_than_the_look_ahead(model: WaveNet) -> None:
    past, ahead = model.context_frames
    assert past is None
    frame, hop = 12, SPEC.hop_length
    mel, audio = random_mel(model, 20, 1), random_audio(20, 1)
    changed = mel.clone()
    changed[:, :, frame] += 1
    first = (frame - ahead) * hop
    # In float64, since the pitch network hears little of its last frames.
    made, other = (
        copy.deepcopy(model).double()(audio.double(), m.double()) for m in (mel, changed)
    )
    moved = (made - other).abs().amax(dim=(0, 1))
    assert moved[:first].max() < 1e-13
    assert moved[first : first + hop].max() > 1e-9  # the look-ahead is not overstated
    made, other = model.synthesize(mel[0]), model.synthesize(changed[0])
    assert_same(made[:first], other[:first])
    assert not torch.equal(made, other)


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [30, 3, 7]])
def test_streaming_equals_one_pass(model: WaveNet, sizes: list[int]) -> None:
    mel = random_mel(model, sum(sizes))
    ahead = model.context_frames[1]
    for engine in model.engines:
        if engine == "naive" and len(sizes) != 3:
            continue  # slow
        model.engine = engine
        chunks = list(model.stream(iter(mel.split(sizes, dim=1)), seed=3))
        assert_same(torch.cat(chunks), model.synthesize(mel, seed=3))
        if len(sizes) == 40:
            assert [len(chunk) for chunk in chunks] == [SPEC.hop_length] * (40 - ahead) + [
                ahead * SPEC.hop_length
            ]


def test_the_state_of_a_stream_does_not_grow(model: WaveNet) -> None:
    def numbers(state: object) -> int:
        found = 0
        for value in vars(state).values():
            values = value if isinstance(value, list | tuple) else [value]
            found += sum(np.asarray(v).size for v in values if isinstance(v, Tensor | np.ndarray))
            found += numbers(value) if isinstance(value, Past) else 0
        return found

    hop = SPEC.hop_length
    conditions = model.conditions(random_mel(model, 10, 1))
    for engine in model.engines:
        session = model._begin(engine, 1, 1.0)
        sizes = []
        for _ in range(4):
            audio = session(conditions, torch.rand(1, 10 * hop), torch.randn(1, 10 * hop))
            assert audio.shape == (1, 10 * hop)
            sizes.append(numbers(session))
        assert sizes[2] == sizes[3]


def test_same_seed_same_audio_whatever_the_neighbours_and_the_padding(
    model: WaveNet,
) -> None:
    mels = [random_mel(model, frames) for frames in (9, 30, 21, 30, 30, 30)]
    lengths = [mel.shape[1] for mel in mels]
    padded = torch.full((len(mels), model.mel_spec.n_mels, 30), -6.0)
    for row, mel in enumerate(mels):
        padded[row, :, : mel.shape[1]] = mel + 0.1 * row
    batch = model.synthesize(padded, seed=5, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = model.synthesize(padded[row, :, :length], seed=5)
        valid = alone.shape[0]
        assert_same(batch[row, :valid], alone)
        assert torch.equal(batch[row, valid:], torch.zeros(30 * SPEC.hop_length - valid))
    assert torch.equal(model.synthesize(mels[0], seed=5), model.synthesize(mels[0], seed=5))
    assert not torch.equal(model.synthesize(mels[0], seed=5), model.synthesize(mels[0], seed=6))


def test_items_of_a_batch_may_have_seeds_of_their_own(model: WaveNet) -> None:
    for engine in model.engines:
        model.engine = engine
        mel = random_mel(model, 12).expand(3, -1, -1)
        batch = model.synthesize(mel, seed=[5, 6, 5], lengths=[12, 12, 7])
        for item, seed, length in zip(batch, [5, 6, 5], [12, 12, 7], strict=True):
            alone = model.synthesize(mel[0, :, :length], seed=seed)
            assert_same(item[: len(alone)], alone)
        assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("frames", [1, 2, 7, 33])
def test_samples_are_frames_times_hop_on_the_16_bit_grid(model: WaveNet, frames: int) -> None:
    audio = model.synthesize(random_mel(model, frames).numpy(), temperature=20.0)
    assert isinstance(audio, np.ndarray)
    assert audio.dtype == np.float32
    assert audio.shape == (frames * SPEC.hop_length,)
    assert np.array_equal(audio * 32768, np.rint(audio * 32768))
    assert audio.min() >= -1
    assert audio.max() <= 32767 / 32768


def test_temperature_zero_is_deterministic(model: WaveNet) -> None:
    mel = random_mel(model, 12)
    for engine in model.engines:
        model.engine = engine
        cold = model.synthesize(mel, temperature=0, seed=1)
        assert torch.equal(cold, model.synthesize(mel, temperature=0.0, seed=2))
    assert not torch.equal(cold, model.synthesize(mel, temperature=0.5, seed=2))


def test_densities_of_the_last_sample_integrate_to_one(model: WaveNet) -> None:
    """The likelihood itself, over all 65,536 values of the last of 20 samples."""
    mel, audio = random_mel(model, 1, 1), random_audio(1, 1)
    joint = []
    for levels in LEVELS.split(8192):
        each = audio.repeat(len(levels), 1)
        each[:, -1] = levels * STEP
        joint.append(model.log_likelihood(each, mel.expand(len(levels), -1, -1)).double())
    levels = model.output.levels(audio)
    each = model.output.log_prob(model(audio, mel), levels).double()
    past = each[0, :-1].sum() + (audio.shape[1] - 1) * math.log(32768)
    # A density over intervals of 1/32768.
    assert abs(torch.logsumexp(torch.cat(joint), 0) - math.log(32768) - past) < 1e-3


def test_recorded_and_dequantised_audio_have_the_same_density(
    model: WaveNet,
) -> None:
    audio, mel = model.output.levels(random_audio(6, 2)) * STEP, random_mel(model, 6, 2)
    dequantised = audio + STEP * (torch.rand(audio.shape) * 0.998 - 0.499)
    log_prob = model.log_prob(audio, mel)
    assert log_prob.shape == (2,)
    assert torch.equal(log_prob, model.log_prob(dequantised, mel))
    assert not torch.equal(log_prob, model.log_prob(audio + STEP, mel))
    assert torch.allclose(log_prob[0], model.log_prob(audio[0], mel[0]), rtol=1e-5)


@torch.enable_grad()
def test_gradient_reaches_every_parameter(model: WaveNet) -> None:
    loss = model.training_loss({"audio": random_audio(10, 2), "mel": random_mel(model, 10, 2)})
    loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith("pitch.")
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@torch.enable_grad()
@pytest.mark.parametrize("name", ["wavenet", "wavenet gaussian", "wavenet with pitch taps"])
def test_training_on_speech_learns_to_remember(name: str) -> None:
    """A few steps on a vowel, to beyond what a Gaussian of its level without memory reaches."""
    audio, _ = vocoder.read_audio(SAMPLE)
    torch.manual_seed(0)
    family, sizes = VARIANTS[name]
    model = family(**(sizes | {"mel_spec": "speech-16k"}))  # type: ignore[arg-type]
    crop = audio[None, 16000 : 16000 + 4 * 256]
    batch = {"audio": crop, "mel": model.mel(crop)}
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = model.training_loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    without_memory = 0.5 * math.log(2 * math.pi * math.e * crop.square().mean())
    assert min(losses) < without_memory - 0.3
    assert losses[-1] < losses[0] - 0.3


@torch.enable_grad()
def test_bfloat16_autocast_keeps_the_likelihood(model: WaveNet) -> None:
    batch = {"audio": random_audio(20, 2), "mel": random_mel(model, 20, 2)}
    exact = model.training_loss(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.training_loss(batch)
    rough.backward()
    assert rough.dtype == torch.float32
    assert abs(exact - rough) < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained(model))


def test_saving_and_loading_gives_the_same_audio(model: WaveNet, tmp_path: Path) -> None:
    mel = random_mel(model, 8)
    loaded = vocoder.load(model.save(tmp_path / "model"))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert torch.equal(loaded.synthesize(mel), model.synthesize(mel))


def test_the_default_engine_is_the_compiled_one(model: WaveNet) -> None:
    assert model.engine == "compiled"
    with pytest.raises(ValueError, match="has compiled, naive"):
        model.engine = "steam"
    model.engine = "naive"
    assert model.engine == "naive"
    model.engine = None
    assert model.engine == "compiled"


@pytest.mark.parametrize(
    ("family", "arguments", "words"),
    [
        (WaveNet, {"n_layers": 0}, "n_layers"),
        (WaveNet, {"cycle": 0}, "cycle"),
        (WaveNet, {"kernel_size": 1}, "two taps"),
        (WaveNet, {"condition_kernel_size": 4}, "odd"),
        (WaveNet, {"distribution": "uniform"}, "choose"),
        (WaveNet, {"n_mixtures": 0}, "n_mixtures"),
        (WaveNet, {"linear_prediction": -1}, "linear_prediction"),
        (WaveNet, {"linear_prediction": 32}, "from 1 to 31"),
        (WaveNet, {"pitch_taps": 2}, "odd"),
        (WaveNet, {"pitch_taps": 1}, "mel bands"),
        (WaveNet, {"mel_spec": "nope"}, "presets"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    family: type[WaveNet], arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        family(**({"mel_spec": SPEC} | arguments))  # type: ignore[arg-type]
