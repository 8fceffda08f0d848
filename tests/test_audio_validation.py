"""check_mel: real mels pass silently (warnings are errors here), other conventions are named."""

import dataclasses
import math

import pytest
import torch

from tests.conftest import ROOT
from vocoder.audio import PRESETS, LogMel, MelError, MelSpec, check_mel, read_audio

RECORDINGS = sorted((ROOT / "recipes/ljspeech/sample/wavs").glob("*.flac"))
LJSPEECH = MelSpec.preset("ljspeech")
SPECS = {
    **PRESETS,
    "power": dataclasses.replace(LJSPEECH, power=2.0),
    "base 10": dataclasses.replace(LJSPEECH, log_base="10"),
    "power, base 10": dataclasses.replace(LJSPEECH, power=2.0, log_base="10", floor=1e-10),
    "htk": dataclasses.replace(LJSPEECH, mel_scale="htk", mel_norm=None, center=True),
}
SPEECH = {
    rate: [read_audio(path, rate)[0] for path in RECORDINGS[::5]]
    for rate in {spec.sample_rate for spec in SPECS.values()}
}
BASE_10 = r"looks like a base-10 logarithm, so use mel \* math\.log\(10\)"


def speech_mel(spec, gain=1.0):
    """Of a recording, with enough hiss that no value is at the floor."""
    audio = SPEECH[spec.sample_rate][0]
    hiss = 1e-3 * torch.randn(len(audio), generator=torch.Generator().manual_seed(0))
    return LogMel(spec)(gain * (audio + hiss))


@pytest.mark.parametrize("gain", [1.0, 0.01, "peak"])
@pytest.mark.parametrize("name", SPECS)
def test_speech_loud_and_quiet_passes(name, gain):
    spec = SPECS[name]
    for audio in SPEECH[spec.sample_rate]:
        scale = 1 / audio.abs().max() if gain == "peak" else gain
        check_mel(LogMel(spec)(scale * audio), spec)


@pytest.mark.parametrize("name", SPECS)
def test_silence_noise_and_full_scale_square_waves_pass(name):
    spec = SPECS[name]
    log_mel = LogMel(spec)
    samples = 100 * spec.hop_length
    check_mel(log_mel(torch.zeros(samples)), spec)
    noise = torch.rand(samples, generator=torch.Generator().manual_seed(0)) * 2 - 1
    square = torch.where(torch.arange(samples) * 100 / spec.sample_rate % 1 < 0.5, 1.0, -1.0)
    half_silent = noise * (torch.arange(samples) < samples // 2)
    for audio in (*(level * noise for level in (1.0, 0.1, 1e-3, 1e-5)), square, half_silent):
        check_mel(log_mel(audio), spec)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_dtype_one_frame_and_a_batch_pass(dtype):
    mel = speech_mel(LJSPEECH).to(dtype)
    check_mel(mel, LJSPEECH)
    check_mel(mel[:, :1], LJSPEECH)
    check_mel(torch.stack([mel, mel.flip(-1)]).requires_grad_(), LJSPEECH)


def test_a_little_beyond_the_bounds_passes_and_more_does_not():
    mel = speech_mel(LJSPEECH)
    mel[3, 4], mel[5, 6] = LJSPEECH.log_floor - 1.4, LJSPEECH.log_ceiling + 1.9
    check_mel(mel, LJSPEECH)
    mel[3, 4] = LJSPEECH.log_floor - 1.6
    with pytest.raises(MelError, match=r"from -13\.11 to 5\.125.*allows -13\.01 to 5\.225"):
        check_mel(mel, LJSPEECH)
    mel[3, 4], mel[5, 6] = 0.0, LJSPEECH.log_ceiling + 2.1
    with pytest.raises(MelError, match=r"to 5\.325, where"):
        check_mel(mel, LJSPEECH)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        ([[0.0]], "must be a torch tensor.*got list"),
        (torch.zeros(80), r"got shape \(80,\)"),
        (torch.zeros(1, 1, 80, 9), r"got shape \(1, 1, 80, 9\)"),
        (torch.zeros(9, 80), r"transposed, \(frames, n_mels\).*pass mel\.swapaxes\(-1, -2\)"),
        (torch.zeros(100, 9), r"100 bands \(100 is the number of 'speech-24k'\), the MelSpec 80"),
        (torch.zeros(64, 9), "has 64 bands, the MelSpec 80: .*compute the mel again"),
        (torch.zeros(80, 0), "not empty"),
        (torch.zeros(80, 9, dtype=torch.int64), "floating point.*torch.int64"),
    ],
)
def test_a_wrong_layout_is_named(mel, message):
    with pytest.raises(MelError, match=message):
        check_mel(mel, LJSPEECH)


def test_nan_and_infinity_are_counted_and_located():
    mel = speech_mel(LJSPEECH)
    mel[70, 5] = math.nan
    with pytest.raises(MelError, match=r"infinity in 1 of \d+ values, the first in frame 5\.$"):
        check_mel(mel, LJSPEECH)
    mel[0, 7] = math.inf
    with pytest.raises(MelError, match=r"in 2 of .* frame 5 of item 1"):
        check_mel(torch.stack([torch.zeros_like(mel), mel]), LJSPEECH)
    with pytest.raises(MelError, match=r"in 1600 of .* frame 0; .*clamp to the floor"):
        check_mel(torch.zeros(80, 20).log(), LJSPEECH)


#: Convention: (natural log of the mel, MelSpec) -> the mel in that convention.
CONVENTIONS = {
    "decibels": lambda log, spec: log * (20 / spec.power) / math.log(10),
    "linear": lambda log, spec: log.exp(),
    "int16": lambda log, spec: (log + spec.power * math.log(32768)) / spec.nats,
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", SPECS)
def test_the_conversion_in_the_message_gives_the_mel_back(name, convention):
    """The expression after "use" is evaluated verbatim."""
    spec = SPECS[name]
    mel = speech_mel(spec, gain=8.0 if convention == "linear" else 1.0)  # linear: beyond the bound
    other = CONVENTIONS[convention](mel * spec.nats, spec)
    with pytest.raises(MelError) as caught:
        check_mel(other, spec)
    expression = str(caught.value).rsplit("use ", 1)[1].removesuffix(".")
    names = {"mel": other, "math": math, "log": torch.log, "log10": torch.log10}
    converted = eval(expression, names)  # noqa: S307
    torch.testing.assert_close(converted, mel, rtol=0, atol=1e-3)
    check_mel(converted, spec)


def to_the_floor(spec):
    return torch.cat([speech_mel(spec), LogMel(spec)(torch.zeros(5120))], dim=-1)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("natural", r"natural logarithm, so use mel / math\.log\(10\)"),
        ("relative decibels", r"relative to the peak: compute it with ref=1\.0 and"),
        ("10 log10", r"10 \* log10 of magnitudes, so use mel / 10 \* math"),
        ("lower floor", r"lower floor, so use mel\.clip\(-11\.5129\).*power=1"),
    ],
)
def test_more_conventions_are_recognised(kind, words):
    mel, spec = speech_mel(LJSPEECH), SPECS["base 10"] if kind == "natural" else LJSPEECH
    decibels = 10 / math.log(10)
    other = {
        "natural": mel,
        "relative decibels": (2 * decibels * (mel - mel.max())).clamp(min=-80),
        "10 log10": decibels * to_the_floor(LJSPEECH),
        "lower floor": to_the_floor(dataclasses.replace(LJSPEECH, floor=1e-10)),
    }[kind]
    with pytest.raises(MelError, match=words):
        check_mel(other, spec)
    if kind == "natural":
        check_mel(other / math.log(10), spec)
    if kind == "lower floor":
        check_mel(other.clip(-11.5129), spec)


@pytest.mark.parametrize("name", [name for name, spec in PRESETS.items() if spec.log_base == "e"])
def test_base_10_that_reaches_its_floor_is_refused(name):
    spec = PRESETS[name]
    mel = LogMel(spec)(torch.cat([SPEECH[spec.sample_rate][0], torch.zeros(10000)]))
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(MelError, match=f"-5, is log10 of the floor 1e-05.*{BASE_10}"):
            check_mel((mel / math.log(10)).to(dtype), spec)


def test_base_10_that_does_not_reach_its_floor_gives_a_warning():
    mel = LogMel(LJSPEECH)(SPEECH[22050][0]).clamp(min=-11.4) / math.log(10)
    with pytest.warns(UserWarning, match=BASE_10) as caught:
        check_mel(mel, LJSPEECH)
    assert caught[0].filename == __file__
    check_mel(mel[:, :19], LJSPEECH)  # too short to tell


def test_magnitudes_inside_the_range_of_logarithms_give_a_warning():
    mel = speech_mel(LJSPEECH, gain=0.1).exp()
    assert mel.max() < LJSPEECH.log_ceiling
    with pytest.warns(UserWarning, match=r"no value below 0: .*use log\(mel\.clip\(1e-05\)\)"):
        check_mel(mel, LJSPEECH)
