"""Flow vocoders: likelihood, inverse, checks. What all architectures share: test_contract.py."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import vocoder
from tests.conftest import ROOT
from tests.test_contract import SPEC, VARIANTS, build, random_mel, trained_parameters
from vocoder.flows import log_density
from vocoder.models import FlowVocoder, MdctFlow, WaveGlow

SAMPLE = ROOT / "recipes/ljspeech/sample/wavs/ru_0024.flac"

FLOWS = [name for name, (kind, _) in VARIANTS.items() if issubclass(kind, FlowVocoder)]


@pytest.fixture(params=FLOWS)
def model(request):
    return build(request.param)


def test_log_prob_is_the_change_of_variables(model):
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
    likelihood = log_density(*model.flow(audio[None, None], model.condition(mel[None])))[0]
    assert (likelihood - normal - log_det).abs() < 1e-8
    assert (model.inverse(z, mel) - audio).abs().max() < 1e-10


def test_gradient_of_the_loss_reaches_every_parameter(model):
    audio, mel = 0.1 * torch.randn(2, 10 * SPEC.hop_length), random_mel(10, 2)
    model.training_loss({"audio": audio, "mel": mel}).backward()
    for name, parameter in trained_parameters(model):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_streaming_takes_empty_chunks_and_keeps_no_gradient():
    model, mel = build("mdct"), random_mel(12).requires_grad_()
    assert list(model.stream(iter([]))) == []
    chunks = [mel[:, :0], mel[:, :5], mel[:, 5:5], mel[:, 5:]]
    made = torch.cat(list(model.stream(iter(chunks))))
    assert not made.requires_grad
    torch.testing.assert_close(made, model.synthesize(mel.detach()), atol=1e-5, rtol=0)


def test_bfloat16_autocast_keeps_the_sensitive_parts(model):
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
    ("architecture", "arguments", "words"),
    [
        (WaveGlow, {"n_group": 7}, "does not divide the hop"),
        (WaveGlow, {"n_flows": 12, "n_early_every": 1}, "early outputs"),
        (WaveGlow, {"kernel_size": 2}, "odd"),
        (MdctFlow, {"mel_spec": "nope"}, "no MelSpec preset"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(architecture, arguments, words):
    sizes = {"mel_spec": SPEC, "channels": 4, "n_layers": 1} | arguments
    with pytest.raises(ValueError, match=words):
        architecture(**sizes)


def test_bad_input_is_refused_in_one_sentence():
    model, mel = build("mdct"), random_mel(5)
    for temperature in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            model.synthesize(mel, temperature=temperature)
    for lengths in ([5, 5], [0], [6]):
        with pytest.raises(ValueError, match="lengths"):
            model.synthesize(mel, lengths=lengths)
    with pytest.raises(ValueError, match="non-negative"):
        model.synthesize(mel, seed=-1)
    with pytest.raises(ValueError, match="torch tensor or a numpy array"):
        model.synthesize([[0.0]])
    with pytest.raises(vocoder.MelError):
        model.synthesize(mel.T)
    with pytest.raises(ValueError, match="do not fit the mel"):
        model.inverse(torch.zeros(16, 4), mel)
    with pytest.raises(ValueError, match="chunks"):
        next(model.stream([mel[None]]))


def test_the_bundled_flow_sounds_as_it_did():
    """Audio and likelihood, stored when it was first bundled in this form."""
    stored = load_file(Path(__file__).parent / "data/bundled_flow.safetensors")
    model = vocoder.load("default")
    mel = stored["mel"]
    for temperature in (0.0, 0.667):
        made = model.synthesize(mel, temperature=temperature, seed=3, refine=0, restore=0)
        expected = stored[f"audio-{temperature}"]
        assert np.abs(made - expected).max() < 1e-5
    with torch.no_grad():
        latents, _ = model.forward(expected, mel)
        assert np.abs(model.inverse(latents, mel) - expected).max() < 1e-4
        recording, _ = vocoder.read_audio(SAMPLE.with_name("ru_0051.flac"), model.sample_rate)
        excerpt = recording[model.sample_rate :][: expected.size].numpy()
        likelihood = float(model.log_prob(excerpt, mel))
    assert abs(likelihood / float(stored["log_prob"]) - 1) < 1e-5


def test_the_iterations_are_part_of_a_model(tmp_path):
    model = MdctFlow(SPEC, n_flows=1, channels=4, n_layers=1, refine=2).eval()
    mel = random_mel(20)
    loaded = vocoder.load(model.save(tmp_path / "model"))
    assert loaded.default_refine == 2
    assert (loaded.synthesize(mel) - model.synthesize(mel, refine=2)).abs().max() < 1e-5
    for refine in (-1, 1.5, 10**6, True):
        with pytest.raises(ValueError, match="refine must"):
            model.synthesize(mel, refine=refine)
        with pytest.raises(ValueError, match="refine must"):
            next(model.stream([mel], refine=refine))
        with pytest.raises(ValueError, match="refine must"):
            MdctFlow(SPEC, n_flows=1, channels=4, n_layers=1, refine=refine)


def test_bfloat16_is_close_and_the_rest_stays_exact(tmp_path):
    model, mel = build("source"), random_mel(60)
    rough, exact = model.fused(torch.bfloat16), model.fused().synthesize(mel)
    made = rough.synthesize(mel)
    assert made.dtype == torch.float32
    error = (made - exact).square().sum() / exact.square().sum()
    assert 1e-8 < error < 1e-2
    audio = 0.1 * torch.randn(60 * SPEC.hop_length)
    assert torch.allclose(model.log_prob(audio, mel), rough.log_prob(audio, mel))
    loaded = vocoder.load(model.save(tmp_path / "model"), dtype=torch.bfloat16)
    assert torch.equal(loaded.synthesize(mel), made)
    with pytest.raises(ValueError, match=r"WaveGlow computes in torch.float32"):
        build("published").fused(torch.bfloat16)


def test_threads_and_interleaved_streams_do_not_disturb_each_other():
    model, mel = build("source").fused(), random_mel(80)
    expected = [model.synthesize(mel, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: model.synthesize(mel, seed=seed), range(4)))
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))
    streams = [model.stream(iter(mel.split(9, dim=1)), seed=seed) for seed in (1, 2)]
    chunks = zip(*zip(*streams, strict=True), strict=True)
    for seed, own in enumerate(chunks, 1):
        assert (torch.cat(own) - expected[seed]).abs().max() < 1e-5
