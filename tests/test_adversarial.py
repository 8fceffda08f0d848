"""Discriminators and the adversarial term: equations, gradients, crash and resume, Flow-GAN."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import yaml
from torch import Tensor

from tests.conftest import perturb
from vocoder.audio import read_audio
from vocoder.models import GanVocoder, MdctFlow, Vocoder
from vocoder.nn.discriminators import (
    Discriminators,
    PeriodDiscriminator,
    SpectrogramDiscriminator,
)
from vocoder.training.step import Step
from vocoder.training.terms import (
    Adversarial,
    Likelihood,
    Mel,
    Term,
    feature_distance,
    hinge_loss,
    total_loss,
)

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "recipes" / "ljspeech" / "sample"
SMALL: dict[str, Any] = {"periods": [2, 3], "resolutions": [64], "channels": 4, "crop": 1000}


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Two crops of recorded speech, (2, 16 * 256)."""
    audio, _ = read_audio(SAMPLE / "wavs" / "ru_0813.flac")
    return torch.stack([audio[start : start + 4096] for start in (16000, 24000)])


def adversarial(**arguments: Any) -> Adversarial:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Adversarial(**(SMALL | arguments))


def tiny_gan(mel_spec: str = "speech-16k") -> GanVocoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GanVocoder(mel_spec, channels=8, n_layers=1, noise_channels=4, scale_channels=8)
    perturb(model, 0.01)
    return model


def step_of(model: Vocoder, audio: Tensor, budget_used: float = 0.5) -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(model, audio, model.mel(audio), budget_used, generator, fraction=1.0)


def gradients(loss: Tensor, module: torch.nn.Module) -> dict[str, Tensor | None]:
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


# -- discriminators ----------------------------------------------------------------------------


def test_a_period_discriminator_never_mixes_columns() -> None:
    torch.manual_seed(0)
    network = PeriodDiscriminator(3, channels=4, n_layers=2)
    audio = torch.randn(1, 301, requires_grad=True)  # no whole number of rows
    features = network(audio)
    assert [tuple(layer.shape[1:]) for layer in features] == [
        (4, 34, 3),
        (8, 12, 3),
        (1, 12, 3),
    ]
    (gradient,) = torch.autograd.grad(features[-1][..., 1].sum(), audio)
    reached = gradient[0].nonzero().flatten()
    inner = reached[reached < 297]  # the reflected end mixes them
    assert len(inner) == 99
    assert set((inner % 3).tolist()) == {1}


def test_a_spectrogram_discriminator_sees_magnitudes_alone() -> None:
    torch.manual_seed(0)
    network = SpectrogramDiscriminator(64, channels=4)
    audio = torch.randn(2, 640)
    assert torch.equal(network(-audio)[-1], network(audio)[-1])
    assert not torch.allclose(network(0.5 * audio)[-1], network(audio)[-1])
    silence = torch.zeros(1, 640, requires_grad=True)
    network(silence)[-1].sum().backward()
    assert silence.grad is not None
    assert silence.grad.isfinite().all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"periods": [], "resolutions": []}, "no periods and no resolutions"),
        ({"periods": [0]}, "a period is 0"),
        ({"resolutions": [510]}, "a resolution is 510"),
        ({"crop": 63}, "crop is 63 samples: give at least 64"),
        ({"feature_matching": -1.0}, "feature_matching is -1"),
        ({"sweeps": -1}, "sweeps must be from 0"),
        ({"start": 0.2, "trained_from": 0.3}, "trained_from is 0.3"),
        ({"trained_from": -0.1}, "trained_from is -0.1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adversarial(**arguments)


# -- the losses --------------------------------------------------------------------------------


def test_the_losses_are_their_equations() -> None:
    recorded = [[torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])], [torch.tensor([-1.0])]]
    generated = [[torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.0])], [torch.tensor([0.5])]]
    # (0 + 0.5) / 2 + (0 + 1) / 2, and 2 + 1.5
    assert float(hinge_loss(recorded, generated)) == pytest.approx((0.75 + 3.5) / 2)
    assert float(feature_distance(generated[:1], recorded[:1])) == pytest.approx(1.5)


def test_the_term_is_its_equation(speech: Tensor) -> None:
    model, term = tiny_gan(), adversarial(crop=10_000, feature_matching=3.0)
    step = step_of(model, speech)
    generated = term.discriminators(step.sample.audio)
    recorded = term.discriminators(speech)
    scores = torch.stack([layers[-1].mean() for layers in generated]).mean()
    expected = -scores + 3 * feature_distance(generated, recorded)
    torch.testing.assert_close(term(step), expected)
    torch.testing.assert_close(term.own_loss(step.detached()), hinge_loss(recorded, generated))
    term.feature_matching = 0
    torch.testing.assert_close(term(step), -scores)


@pytest.mark.parametrize("sweeps", [0, 2])
def test_each_side_learns_from_its_own_loss_alone(speech: Tensor, sweeps: int) -> None:
    model, term = tiny_gan(), adversarial(weight=0.5, sweeps=sweeps, crop=10_000)
    total_loss([term], step_of(model, speech))["loss"].backward()
    step = step_of(model, speech)
    for name, expected in gradients(0.5 * term(step), model).items():
        assert expected is not None
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(model.get_parameter(name).grad, expected, msg=name)
    for name, expected in gradients(term.own_loss(step.detached()), term).items():
        assert expected is not None
        # Within the margins an offset of the scores gains on samples what it loses on recordings.
        assert name.endswith("layers.4.bias") or expected.abs().max() > 0, name
        torch.testing.assert_close(term.get_parameter(name).grad, expected, msg=name)


def test_sample_and_recording_are_judged_on_the_same_stretch(speech: Tensor) -> None:
    term, model = adversarial(crop=1000), tiny_gan()
    step = step_of(model, speech)
    firsts = set()
    for _ in range(8):
        generated, recorded = term._pair(step)
        assert generated.shape == recorded.shape == (2, 1000)
        places = [i for i in range(3097) if torch.equal(speech[:, i : i + 1000], recorded)]
        assert torch.equal(step.sample.audio[:, places[0] : places[0] + 1000], generated)
        firsts.add(places[0])
    assert len(firsts) > 4


def test_crops_shorter_than_a_transform_are_refused_with_the_way_out(speech: Tensor) -> None:
    term = adversarial(resolutions=[8192], crop=8192)
    with pytest.raises(NotImplementedError, match=r"larger speech\.crop_frames"):
        term(step_of(tiny_gan(), speech))


def test_discriminators_may_learn_before_the_model_listens(speech: Tensor) -> None:
    model = tiny_gan()
    terms: list[Term] = [Mel(), adversarial(start=0.5, trained_from=0.2)]
    before, alone, both = (
        list(total_loss(terms, step_of(model, speech, used))) for used in (0.1, 0.2, 0.5)
    )
    assert before == ["loss", "mel_distance"]
    assert alone == ["loss", "mel_distance", "adversarial_own"]
    assert both == ["loss", "mel_distance", "adversarial", "adversarial_own"]
    mel_alone = gradients(total_loss([Mel()], step_of(model, speech))["loss"], model)
    loss = total_loss(terms, step_of(model, speech, 0.2))["loss"]
    for name, gradient in gradients(loss, model).items():
        torch.testing.assert_close(gradient, mel_alone[name], msg=name)
    assert all(g is not None for g in gradients(loss, terms[1]).values())


def test_discriminators_learn_to_tell_noise_from_speech(speech: Tensor) -> None:
    torch.manual_seed(0)
    network = Discriminators([2, 3], [64], channels=4)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    noise = speech.std() * torch.randn(speech.shape)
    losses = []
    for _ in range(40):
        loss = hinge_loss(network(speech), network(noise))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(2, abs=0.2)
    assert losses[-1] < 1


def test_a_generator_comes_closer_to_what_discriminators_want(speech: Tensor) -> None:
    """Against fixed discriminators, steps on the term raise the scores of samples."""
    model, term = tiny_gan().train(), adversarial(feature_matching=0.0, crop=10_000)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    values = []
    for _ in range(40):
        loss = term(step_of(model, speech))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 0.01


# -- Flow-GAN ----------------------------------------------------------------------------------


def test_gradients_reach_a_flow_through_the_sweeps(
    tiny_flow: Callable[..., MdctFlow], speech: Tensor
) -> None:
    model = tiny_flow().train()
    plain, swept = adversarial(crop=10_000), adversarial(crop=10_000, sweeps=2)
    found = {}
    for term in (plain, swept):
        loss = term(step_of(model, speech))
        found[term.sweeps] = gradients(loss, model)
        for name, gradient in found[term.sweeps].items():
            assert gradient is not None, name
            assert gradient.isfinite().all(), name
            assert gradient.abs().max() > 0, name
    for name, gradient in found[0].items():
        assert not torch.allclose(gradient, found[2][name], rtol=0.01), name

    # What is judged is what users hear with `refine`.
    step = step_of(model, speech)
    judged, _ = swept._pair(step)
    mel = step.sample.recorded_mel
    expected = model.consistent(step.sample.audio, mel, 2)
    torch.testing.assert_close(judged, expected)
    distance = model.mel_spec.distance
    assert distance(model.mel(judged), mel) < 0.7 * distance(step.sample.mel, mel)


def test_the_gradient_through_the_sweeps_is_that_of_finite_differences(
    tiny_flow: Callable[..., MdctFlow], speech: Tensor
) -> None:
    model = tiny_flow().double()
    term = adversarial(crop=10_000, sweeps=2, feature_matching=0.0).double()
    weight = model.flow.pieces[-1].pieces[0].weight
    step = step_of(model, speech.double())
    mel = model.mel(speech).double()
    noise = torch.randn(2, 16, 256, dtype=torch.float64, generator=step.generator)
    towards = torch.randn(weight.shape, dtype=torch.float64, generator=step.generator)

    def value() -> Tensor:
        audio = model.sample(mel, noise, 0.7)
        audio = model.consistent(audio, mel, 2)
        return torch.stack([layers[-1].mean() for layers in term.discriminators(audio)]).mean()

    (gradient,) = torch.autograd.grad(value(), weight)
    size = 1e-8
    with torch.no_grad():
        weight += size * towards
        above = value()
        weight -= 2 * size * towards
        below = value()
    expected = (above - below) / (2 * size)
    torch.testing.assert_close((gradient * towards).sum(), expected, rtol=1e-5, atol=1e-9)


def test_a_likelihood_stays_in_the_loss_of_a_flow_gan(
    tiny_flow: Callable[..., MdctFlow], speech: Tensor
) -> None:
    model = tiny_flow().train()
    values = total_loss([Likelihood(), adversarial(weight=0.1)], step_of(model, speech))
    total = values["nll"] + 0.1 * values["adversarial"] + values["adversarial_own"]
    torch.testing.assert_close(values["loss"].detach(), total)


# -- the recipe --------------------------------------------------------------------------------

TINY = """
model:
  class_path: vocoder.models.GanVocoder
  init_args:
    {mel_spec: speech-16k, channels: 16, n_layers: 1, noise_channels: 4, scale_channels: 8}
terms:
  - class_path: vocoder.training.terms.Mel
  - class_path: vocoder.training.terms.Adversarial
    init_args: {start: 0.2, trained_from: 0.1, learning_rate: 1.0e-3, periods: [2], channels: 4,
                resolutions: [256], crop: 2048}
data: sample
training: {warmup_steps: 5, validation_syntheses: 1}
speech: {batch_size: 2, crop_frames: 16, validation_seconds: 0.5}
trainer: {val_check_interval: 40, accelerator: cpu}
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "gan.yaml").write_text(TINY)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "recipes/ljspeech/train.py"), "--config", "gan.yaml"]
    return subprocess.Popen(
        [*command, "--max_steps", "40", *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def assert_equal(a: Any, b: Any, name: str = "") -> None:
    """Nested dictionaries and lists of tensors are equal to the last bit."""
    assert type(a) is type(b), name
    if isinstance(a, Tensor):
        assert torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_equal(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), name
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_equal(left, right, f"{name}.{index}")
    else:
        assert a == b, name


def test_a_killed_gan_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    finish(start(tmp_path, "--run", "unbroken"))
    killed = tmp_path / "killed"
    process = start(tmp_path, "--run", "killed", "--save_every", "0")
    steps = 0
    while steps < 12:  # the discriminators have learnt for a while, and the generator listens
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
        if (killed / "last.ckpt").exists():
            steps = torch.load(killed / "last.ckpt", weights_only=True)["global_step"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = torch.load(killed / "last.ckpt", weights_only=True)["global_step"]
    assert 12 <= steps < 40
    finish(start(tmp_path, "--run", "killed"))

    one, two = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        for name in ("unbroken", "killed")
    )
    for kind in ("state_dict", "current_model_state", "optimizer_states", "vocoder_training"):
        assert_equal(one[kind], two[kind], kind)
    assert any("discriminators" in name for name in one["state_dict"])
    moments = one["optimizer_states"][0]["state"]
    assert len(moments) == sum("running" not in name for name in one["current_model_state"])
    with safetensors.safe_open(killed / "model" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(tiny_gan().state_dict())


def test_the_discriminators_of_flow_gan_learn_alone_for_500_steps() -> None:
    path = ROOT / "recipes/ljspeech/config/flow-gan.yaml"
    config = yaml.safe_load(path.read_text())
    terms = {term["class_path"].rsplit(".")[-1]: term.get("init_args") for term in config["terms"]}
    assert "Likelihood" in terms
    own = terms["Adversarial"]
    alone = (own["start"] - own["trained_from"]) * config["max_steps"]
    assert f"{alone:.0f} steps of {config['max_steps']:,}" in path.read_text().replace("\n# ", " ")
    assert f"after {['no', 'one', 'two'][own['sweeps']]} sweeps" in path.read_text()
