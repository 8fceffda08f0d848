"""The claims about VAEs and speech, small: their figures are figures, and bounds are bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import vocoder
from vocoder.audio import read_audio

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "recipes/families"
SPEECH = (
    "autoencoder_plain",
    "autoencoder_denoising",
    "autoencoder_disentangling",
    "mixture",
    "multi_scale",
)


@pytest.fixture(autouse=True)
def families(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(FOLDER)
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def excerpts() -> list[Tensor]:
    """Six stretches of speech of two seconds, at 16 kHz."""
    wavs = ROOT / "recipes/ljspeech/sample/wavs"
    names = ("ru_0209", "ru_0502", "ru_0813")
    sounds = [read_audio(wavs / f"{name}.flac", 16000)[0] for name in names]
    return [sound[start : start + 32000] for sound in sounds for start in (8000, 40000)]


def finite(values: Any) -> bool:
    if isinstance(values, dict):
        return all(map(finite, values.values()))
    if isinstance(values, list):
        return all(map(finite, values))
    return math.isfinite(values)


def assert_shown(name: str, figures: dict[str, Any]) -> None:
    """The text of a claim takes all of its figures."""
    study: Any = import_module("study")
    (text,) = (part for part in study.sections() if f"families/{name}.png" in part)
    assert "{{" not in study.section(text, figures)


def claim(name: str, steps: int, seed: int = 0) -> tuple[dict[str, Any], ModuleType]:
    """The figures of a claim; the picture must be one and the text complete."""
    module: Any = import_module(name)
    figures, picture = module.measure(seed, steps)
    assert finite(figures)
    assert picture.axes
    assert_shown(name, figures)
    return figures, module


def test_the_bound_meets_the_exact_likelihood_of_a_linear_model() -> None:
    figures, _ = claim("vae_bound", 1000)
    assert figures["elbo_start"] < figures["elbo"]
    # The bound is estimated by 20 draws for each of 2,000 points.
    assert figures["elbo"] < figures["exact"] + 0.02
    assert figures["exact"] < figures["most_likely"] + 1e-4
    assert figures["most_likely"] - figures["elbo"] < 0.2
    weighted = figures["importance_weighted"]
    assert all(low < high for low, high in itertools.pairwise(weighted))
    assert weighted[-1] < figures["exact_of_spoilt"] < weighted[-1] + 0.3


def test_the_ring_is_covered_and_blurred() -> None:
    figures, module = claim("vae_blur", 20)
    again, _ = claim("vae_blur", 20)
    assert figures == again
    assert figures["share_near_modes_of_data"] == pytest.approx(0.989, abs=0.01)
    found = module.toys.near(module.toys.ring_centres())
    assert torch.equal(found, torch.eye(8, dtype=torch.bool))


@pytest.mark.parametrize("name", SPEECH)
def test_claims_about_speech_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = excerpts()
    monkeypatch.setattr("speech.recordings", lambda: (sounds[:4], sounds[4:]))
    claim(name, 2)


def test_the_flow_of_several_scales_is_one() -> None:
    module: Any = import_module("multi_scale")
    torch.manual_seed(0)
    flow = module.multi_scale(side=8, levels=2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    x = torch.randn(1, 1, 64)
    z, log_det = flow(x)
    torch.testing.assert_close(flow.inverse(z), x, atol=1e-5, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x)[0].flatten(), x)
    expected = torch.linalg.slogdet(jacobian.reshape(64, 64))[1]
    torch.testing.assert_close(log_det[0], expected, atol=1e-3, rtol=0)
    levels = module.levels_of(side=8, levels=2).flatten()
    assert levels.int().bincount().tolist() == [32, 32]
    # What is finished first no longer changes: later steps see none of it.
    first = z.flatten()[levels == 0]
    with torch.no_grad():
        for parameter in flow.inner.pieces[-1].parameters():
            parameter.add_(0.1)
    again = flow(x)[0].flatten()
    assert torch.equal(again[levels == 0], first)
    assert (again[levels == 1] != z.flatten()[levels == 1]).all()


def test_latents_of_speech_go_back_and_get_louder() -> None:
    module: Any = import_module("latents")
    figures, picture = module.measure(0)
    assert finite(figures)
    assert picture.axes
    assert figures["round_trip"] < 1e-3
    assert figures["gain"]["found"] == pytest.approx(module.GAIN, rel=0.3)
    assert figures["temperature"][0]["spread"] == 0
    assert_shown("latents", figures)


def test_noise_has_the_ratio_it_says() -> None:
    module: Any = import_module("autoencoder_denoising")
    audio = excerpts()[0]
    added = module.noisy(audio, 5.0, torch.Generator().manual_seed(0)) - audio
    ratio = 10 * (audio.square().mean() / added.square().mean()).log10()
    assert float(ratio) == pytest.approx(5, abs=0.1)


def test_all_voices_of_a_sentence_share_their_frames() -> None:
    module: Any = import_module("autoencoder_disentangling")
    audio = excerpts()[0]
    made = module.voices(audio)
    assert len({mel.shape for mel in made}) == 1
    log_mel = import_module("speech").log_mel()
    torch.testing.assert_close(made[module.SPEEDS.index(1.0)], log_mel(audio))


def test_latents_of_another_voice_are_exact() -> None:
    module: Any = import_module("latents")
    latents, mel = (
        module.Latents(vocoder.load_acoustic()),
        vocoder.load().mel(excerpts()[0])[:, :81],
    )
    with torch.no_grad():
        z = latents.encode(mel)
        assert z.shape == (80, 41, 2)
        back = latents.decode(z)
    assert (back[:, :81] - mel).abs().max() < 1e-3
