"""WaveNet: causal, repeatable, an exact likelihood, a fast loop that makes what the plain one does.

The fast loop works in float32 in an order of summation of its own, so that a sample within some
1e-7 of the edge of a quantisation step can come out one step apart; later samples see it, and in a
model of random weights it fades. Hence `assert_same`: nearly all samples equal, none far off.
"""

import math

import numpy as np
import pytest
import torch

from vocoder.audio import MelSpec
from vocoder.models import Noise, WaveNet
from vocoder.nn.wavenet import STEP, levels_of

# The hop is no multiple of a vector, nor are the widths below.
SPEC = MelSpec(
    sample_rate=8000, n_fft=64, hop_length=20, win_length=64, n_mels=6, fmin=0, fmax=4000
)
# Enough bands to show harmonics, so that a pitch can be read off them.
FINE = MelSpec(
    sample_rate=8000, n_fft=512, hop_length=20, win_length=512, n_mels=40, fmin=0, fmax=4000
)

# Dilations up to 32 and from 1 again; three taps and two.
VARIANTS = {
    "deep": {"channels": 10, "n_layers": 8, "cycle": 6, "linear_prediction": 7},
    "one component": {"n_mixtures": 1, "channels": 7, "n_layers": 5, "kernel_size": 2},
    "pitch taps": {
        "mel_spec": FINE, "channels": 8, "n_layers": 4, "kernel_size": 2, "pitch_taps": 3,
    },
}  # fmt: skip


def build(name):
    """A small model whose every parameter has moved off its start."""
    torch.manual_seed(1)
    model = WaveNet(**({"mel_spec": SPEC, "condition_channels": 5} | VARIANTS[name]))
    for parameter in trained(model).values():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def trained(model):
    """The parameters without those of the pitch network."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(name in found for name, _ in model.named_parameters() if "pitch." not in name)
    return found


@pytest.fixture(params=VARIANTS)
def model(request):
    return build(request.param)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def random_mel(model, frames, batch=None):
    shape = (() if batch is None else (batch,)) + (model.mel_spec.n_mels, frames)
    return -4 + 2 * torch.rand(shape, generator=torch.Generator().manual_seed(frames))


def random_audio(frames, batch):
    rng = torch.Generator().manual_seed(frames)
    return (0.1 * torch.randn(batch, frames * SPEC.hop_length, generator=rng)).clamp(-1, 1)


def assert_same(a, b):
    assert a.shape == b.shape
    assert (a != b).float().mean() < 0.02
    assert (a - b).abs().max() < 4 * STEP


def plainly(model, mel, noise, temperature):
    """A pass over the whole utterance for every sample."""
    conditions = model.conditions(mel)
    choice, value = model._noise(noise, 0, mel)
    audio = torch.zeros(conditions[-1].shape)
    for t in range(audio.shape[1]):
        audio[:, t] = model(audio, conditions).sample(choice, value, temperature)[:, t]
    return audio


@pytest.mark.parametrize("temperature", [0.8, 0.0])
def test_the_fast_loop_makes_the_samples_of_the_plain_one(model, temperature):
    """Over more samples than the receptive field."""
    mel, noise = random_mel(model, 18, 2), Noise([3, 4], 2)
    reference = plainly(model, mel, noise, temperature)
    assert reference.std() > 10 * STEP
    assert_same(model.generate(mel, noise, temperature), reference)


def test_the_future_of_the_audio_never_changes_the_past(model):
    conditions, audio = model.conditions(random_mel(model, 20, 1)), random_audio(20, 1)
    before = torch.cat(model(audio, conditions), dim=1)
    for t in (0, 1, 57, 398):
        changed = audio.clone()
        changed[:, t] += 0.1
        moved = (torch.cat(model(changed, conditions), dim=1) - before).abs().amax(dim=(0, 1))
        assert moved[: t + 1].max() == 0
        assert moved[t + 1] > 0


def test_the_mel_is_heard_no_earlier_than_the_look_ahead(model):
    past, ahead = model.context_frames
    assert past is None
    frame, hop = 12, SPEC.hop_length
    # In float64, since the pitch network hears little of its last frames.
    model, mel = model.double(), random_mel(model, 20, 1).double()
    changed = mel.clone()
    changed[:, :, frame] += 1
    first, audio = (frame - ahead) * hop, random_audio(20, 1).double()
    made, other = (torch.cat(model(audio, model.conditions(m)), dim=1) for m in (mel, changed))
    moved = (made - other).abs().amax(dim=(0, 1))
    assert moved[:first].max() < 1e-13
    assert moved[first : first + hop].max() > 1e-9  # the look-ahead is not overstated


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [30, 3, 7]])
def test_streaming_equals_one_pass(model, sizes):
    mel, ahead, hop = random_mel(model, 40), model.context_frames[1], SPEC.hop_length
    chunks = list(model.stream(iter(mel.split(sizes, dim=1)), seed=3))
    assert_same(torch.cat(chunks), model.synthesize(mel, seed=3))
    if len(sizes) == 40:
        assert [len(chunk) for chunk in chunks] == [hop] * (40 - ahead) + [ahead * hop]


def test_same_seed_same_audio_whatever_the_neighbours_and_the_padding(model):
    lengths, seeds = [9, 30, 21, 30], [5, 6, 5, 5]
    padded = random_mel(model, 30, 4)
    batch = model.synthesize(padded, seed=seeds, lengths=lengths)
    for audio, mel, seed, length in zip(batch, padded, seeds, lengths, strict=True):
        alone = model.synthesize(mel[:, :length], seed=seed)
        assert_same(audio[: len(alone)], alone)
        assert not audio[len(alone) :].any()
    for temperature in (1, 0):
        a, b = (model.synthesize(padded[0], temperature, seed) for seed in (5, 6))
        assert torch.equal(a, b) == (temperature == 0)


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_samples_are_frames_times_hop_on_the_16_bit_grid(model, frames):
    audio = model.synthesize(random_mel(model, frames).numpy(), temperature=20.0)
    assert isinstance(audio, np.ndarray)
    assert (audio.dtype, audio.shape) == (np.float32, (frames * SPEC.hop_length,))
    assert np.array_equal(audio * 32768, np.rint(audio * 32768).clip(-32768, 32767))


def test_densities_of_the_last_sample_integrate_to_one():
    """The likelihood itself, over all 65,536 values of the last of 20 samples."""
    model = build("one component")
    mel, audio = random_mel(model, 1, 1), random_audio(1, 1)
    every = audio.repeat(65536, 1)
    every[:, -1] = torch.arange(-32768.0, 32768) * STEP
    joint = model.log_likelihood(every, mel.expand(65536, -1, -1)).double()
    each = model(audio, model.conditions(mel)).log_prob(levels_of(audio)).double()
    past = each[0, :-1].sum() + (audio.shape[1] - 1) * math.log(32768)
    # A density over intervals of 1/32768.
    assert abs(torch.logsumexp(joint, 0) - math.log(32768) - past) < 1e-3


def test_recorded_and_dequantised_audio_have_the_same_density(model):
    audio, mel = levels_of(random_audio(6, 2)) * STEP, random_mel(model, 6, 2)
    dequantised = audio + STEP * (torch.rand(audio.shape) * 0.998 - 0.499)
    log_prob = model.log_prob(audio, mel)
    assert log_prob.shape == (2,)
    assert torch.equal(log_prob, model.log_prob(dequantised, mel))
    assert not torch.equal(log_prob, model.log_prob(audio + STEP, mel))
    assert torch.allclose(log_prob[0], model.log_prob(audio[0], mel[0]), rtol=1e-5)


@torch.enable_grad()
@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_reaches_every_parameter(model, autocast):
    batch = {"audio": random_audio(20, 2), "mel": random_mel(model, 20, 2)}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model.training_loss(batch)
    assert loss.dtype == torch.float32
    assert abs(loss - model.training_loss(batch)) < 0.05
    loss.backward()
    for name, parameter in trained(model).items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"linear_prediction": 0}, "from 1 to 31"),
        ({"linear_prediction": 32}, "from 1 to 31"),
        ({"pitch_taps": 2}, "odd"),
        ({"pitch_taps": 1}, "mel bands"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        WaveNet(**({"mel_spec": SPEC} | arguments))
