"""Learnt sweeps: plain before training, trained through the audio, plain again afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vocoder.audio import LogMel, MelConsistency, MelSpec
from vocoder.models import MdctFlow
from vocoder.nn import LearntConsistency
from vocoder.nn.consistency import AROUND, BOUND, PAST, GainNetwork

SPEC = MelSpec.preset("speech-16k")
SEEN = 5


def learnt(sweeps: int = 2, perturbed: float = 0.0) -> LearntConsistency:
    torch.manual_seed(0)
    module = LearntConsistency(SPEC, sweeps, SEEN, channels=8)
    with torch.no_grad():
        for network in module.networks:
            network.last.weight.normal_(0, perturbed)
    return module


def material(frames: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Audio, the mel of other audio, and what the networks see."""
    generator = torch.Generator().manual_seed(frames)
    shape = (2, frames * SPEC.hop_length)
    audio = 0.1 * torch.randn(shape, generator=generator)
    mel = LogMel(SPEC)(0.05 * torch.randn(shape, generator=generator))
    return audio, mel, torch.randn(2, SEEN, mel.shape[2], generator=generator)


@pytest.mark.parametrize("sweeps", [1, 2, 4])
def test_untrained_sweeps_are_plain(sweeps: int) -> None:
    audio, mel, seen = material()
    with torch.no_grad():
        plain = MelConsistency(SPEC)(audio, mel, sweeps)
        assert torch.equal(learnt()(audio, mel, sweeps, seen), plain)


def test_sweeps_after_the_learnt_ones_are_plain() -> None:
    """With networks that always add a gain, later sweeps still end at the mel."""
    audio, mel, seen = material()
    module, log_mel = learnt(1, perturbed=0.1), LogMel(SPEC)
    with torch.no_grad():
        distances = [
            float(SPEC.distance(log_mel(module(audio, mel, sweeps, seen)), mel))
            for sweeps in (1, 2, 6)
        ]
    assert distances[0] > distances[1] > distances[2]


def test_every_parameter_of_the_networks_learns_from_the_audio() -> None:
    audio, mel, seen = material()
    module = learnt(2, perturbed=0.1)
    module(audio, mel, 2, seen).square().mean().backward()
    for name, parameter in module.named_parameters():
        if name == "momenta":
            assert parameter.grad is not None
            assert parameter.grad[0] == 0  # the first step has no step before it
            assert parameter.grad[1:].abs().min() > 0
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_networks_see_what_they_say() -> None:
    """r of the past and present, s of two frames on either side."""
    network = GainNetwork(SPEC, SEEN, 8)
    torch.nn.init.normal_(network.last.weight)
    ratio, seen = torch.randn(1, 20, SPEC.n_mels), torch.randn(1, SEEN, 40)

    def moved(ratio_at: int | None = None, seen_at: int | None = None, phase: int = 1) -> list[int]:
        other_ratio, other_seen = ratio.clone(), seen.clone()
        if ratio_at is not None:
            other_ratio[:, ratio_at] += 1
        if seen_at is not None:
            other_seen[:, :, seen_at] += 1
        with torch.no_grad():
            difference = network(ratio, seen, phase) - network(other_ratio, other_seen, phase)
        return difference[0].abs().amax(dim=1).nonzero()[:, 0].tolist()

    assert moved(ratio_at=10) == list(range(10, 10 + 2 * PAST + 1))
    # Frame 21 is number 10 of the odd ones; frames 19 and 23 see it as well.
    assert moved(seen_at=21) == list(range(10 - AROUND // 2, 10 + AROUND // 2 + PAST + 1))


def test_gains_are_bounded() -> None:
    network = GainNetwork(SPEC, SEEN, 8)
    torch.nn.init.normal_(network.last.weight, 0, 1e4)
    gains = network(torch.randn(1, 9, SPEC.n_mels), torch.randn(1, SEEN, 18), 0)
    assert gains.abs().max() <= BOUND


@pytest.mark.parametrize("source", [False, True])
def test_a_model_learns_through_its_sweeps(
    tiny_flow: Callable[..., MdctFlow], source: bool
) -> None:
    model = tiny_flow(source=source, learnt_sweeps=1, sweep_channels=8, refine=2)
    mel = -6 + torch.randn(2, SPEC.n_mels, 12)
    noise = torch.randn(2, 12, model.noise_per_frame)
    audio = model.consistent(model.sample(mel, noise, 0.7), mel, 2)
    audio.square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    for name in ("mel_consistency.networks.0.last.weight", "mel_consistency.momenta"):
        assert gradients[name] is not None
        assert gradients[name].abs().max() > 0
    assert any(g is not None and g.abs().max() > 0 for n, g in gradients.items() if "flow" in n)
    # They are no part of the density.
    model.zero_grad()
    model.training_loss({"audio": audio.detach(), "mel": mel}).backward()
    assert model.mel_consistency.get_parameter("momenta").grad is None
