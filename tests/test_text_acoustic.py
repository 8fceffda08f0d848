"""The acoustic model: padding that changes nothing, synthesis and its controls, checkpoints."""

from dataclasses import replace

import pytest
import torch

from vocoder.audio import MelSpec
from vocoder.checkpoints import CheckpointError
from vocoder.pretrained import load, load_acoustic
from vocoder.text.acoustic import load_checkpoint, places
from vocoder.training.acoustic import Item, collate, losses

SYMBOLS = ("a", "b", "c", ".")
SPEC = replace(MelSpec.preset("ljspeech"), n_mels=6)
TEXT = list("cab.")


@pytest.fixture
def model(tiny_acoustic):
    model = tiny_acoustic(SPEC, SYMBOLS, 0.1, voices=["ann", "bob"], decoder_blocks=2)
    model.normalise_by(
        torch.full((6,), -5.0), torch.full((6,), 2.0), torch.tensor([[0.3, 0], [-0.4, 0]])
    )
    return model


def item(model, text, frames, voice=0):
    """An utterance of random sound, its frames divided between the states at random."""
    generator = torch.Generator().manual_seed(frames)
    symbols = model.indices(list(text))
    states = len(symbols) * model.states
    durations = torch.ones(states, dtype=torch.long)
    more = torch.randint(states, (frames - states,), generator=generator)
    durations += torch.bincount(more, minlength=states)
    mel = 2 * torch.randn(frames, 6, generator=generator) - 5
    voicing = (torch.rand(frames, generator=generator) > 0.4).float()
    pitch = 0.3 * torch.randn(frames, generator=generator)
    return Item(symbols, voice, durations, places(durations), mel, pitch, voicing)


@torch.no_grad()
def test_neighbours_and_padding_change_nothing(model):
    items = [item(model, "abca.", 40), item(model, "b", 12, 1), item(model, "ca", 46)]
    together = model(collate(items))
    for row, own in enumerate(items):
        alone = model(collate([own]))
        for name in ("log_duration", "pitch", "voicing", "loudness", "mel"):
            single = getattr(alone, name)[0]
            whole = getattr(together, name)[row, : len(single)]
            torch.testing.assert_close(whole, single, rtol=0, atol=1e-4)
    # The loss of a batch weighs frames, so two copies of an utterance cost what one does.
    once, twice = (losses(model, collate([items[0]] * n)) for n in (1, 2))
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value)


def test_every_parameter_learns(model):
    batch = collate([item(model, "abca.", 40), item(model, "cb", 24, 1)])
    sum(losses(model, batch).values(), torch.zeros(())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_rate_pitch_and_voice_change_what_they_name(model):
    seen = []
    decode = model.decode

    def recording(hidden, pitch, *rest):
        seen.append((hidden, pitch))
        return decode(hidden, pitch, *rest)

    model.decode = recording
    plain, higher, bob = (
        model.synthesize(TEXT, **options) for options in ({}, {"pitch": 12.0}, {"voice": "bob"})
    )
    torch.testing.assert_close(seen[1][1], seen[0][1] + torch.tensor(2.0).log())
    assert plain.shape == higher.shape
    assert not torch.allclose(plain, higher)
    assert bob.shape[0] == 6
    frames = [int(model.durations(TEXT, speaking_rate=rate).sum()) for rate in (0.5, 1.0, 2.0)]
    assert frames[1] == plain.shape[1]
    assert frames[0] == pytest.approx(2 * frames[1], abs=1)
    assert frames[2] == pytest.approx(0.5 * frames[1], abs=1)
    given = torch.full((12,), 3)
    assert model.synthesize(TEXT, durations=given).shape == (6, 36)
    assert torch.equal(model.synthesize(TEXT), plain)
    assert torch.equal(model.synthesize(TEXT, voice="ann"), plain)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"phonemes": []}, "no phonemes"),
        ({"phonemes": "ab"}, "one string"),
        ({"phonemes": ["x"]}, "no phoneme 'x'; it knows a b c"),
        ({"phonemes": ["a"] * 2001}, "2001 phonemes are too many"),
        ({"voice": "eve"}, "no voice 'eve': choose ann or bob"),
        ({"speaking_rate": 0.0}, "speaking_rate is 0.0: .* 0.25"),
        ({"speaking_rate": float("nan")}, "speaking_rate is nan"),
        ({"pitch": 13.0}, "pitch is 13.0: .* 12"),
        ({"durations": torch.ones(3)}, "12 whole numbers are needed"),
    ],
)
def test_bad_input_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.synthesize(**{"phonemes": TEXT, **arguments})


def test_other_voices_start_as_the_mean(model):
    other = model.with_voices(["eve", "bob"])
    assert other.voices == ("eve", "bob")
    torch.testing.assert_close(other.voice.weight[0], model.voice.weight.mean(dim=0))
    assert torch.equal(other.synthesize(TEXT, "bob"), model.synthesize(TEXT, "bob"))


def test_checkpoint_round_trip(model, tmp_path):
    mel = model.synthesize(TEXT)
    model.save(tmp_path / "whole")
    loaded = load_checkpoint(tmp_path / "whole")
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded.synthesize(TEXT), mel)
    halved = load_acoustic(model.save(tmp_path / "half", torch.float16))
    durations = model.durations(TEXT)
    pair = [m.synthesize(TEXT, durations=durations) for m in (halved, model)]
    torch.testing.assert_close(*pair, rtol=0, atol=0.05)


def test_vocoders_and_acoustic_models_are_not_taken_for_each_other(
    model, tiny_flow, tmp_path, monkeypatch
):
    model.save(tmp_path / "acoustic")
    tiny_flow().save(tmp_path / "vocoder")
    with pytest.raises(CheckpointError, match=r"holds a vocoder \(mdct-flow\)"):
        load_acoustic(tmp_path / "vocoder")
    with pytest.raises(CheckpointError, match="not a checkpoint of a vocoder"):
        load(tmp_path / "acoustic")
    bundled = {name: tmp_path / name for name in ("acoustic", "vocoder")}
    monkeypatch.setattr("vocoder.pretrained.bundled_models", lambda: bundled)
    assert load_acoustic().symbols == SYMBOLS
    with pytest.raises(CheckpointError, match=r"no model 'acoustic' \(the bundled models are voc"):
        load("acoustic")
