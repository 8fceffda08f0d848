"""The acoustic model: exact likelihood, padding that changes nothing, synthesis, checkpoints."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vocoder.audio import LogMel, MelSpec, read_audio
from vocoder.checkpoints import CheckpointError
from vocoder.flows import InvertibleConv1x1
from vocoder.models import MdctFlow
from vocoder.pretrained import load, load_acoustic
from vocoder.text.acoustic import AcousticModel, Batch, load_checkpoint
from vocoder.text.alignment import flat_start
from vocoder.text.durations import duration_loss

SAMPLE = Path(__file__).parent.parent / "recipes" / "ljspeech" / "sample"
SYMBOLS = ("a", "b", "c", ".")
SPEC = replace(MelSpec.preset("ljspeech"), n_mels=6)


@pytest.fixture(scope="session")
def model(tiny_acoustic: Callable[..., AcousticModel]) -> AcousticModel:
    """A small model in float64, for every test that leaves it as it is."""
    sizes = {"encoder_channels": 16, "encoder_layers": 2, "n_convolutions": 2, "n_flows": 3}
    model = tiny_acoustic(SPEC, SYMBOLS, 0.1, **sizes, n_layers=2).double()
    size = model.mel_spec.n_mels
    model.normalise_by(torch.linspace(-6, -4, size), torch.linspace(1.5, 2.5, size))
    return model


@pytest.fixture
def model_copy(model: AcousticModel) -> AcousticModel:
    """A copy of it that a test may change."""
    return copy.deepcopy(model)


def mels(*frames: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        2 * torch.randn(SPEC.n_mels, n, generator=generator, dtype=torch.float64) - 5
        for n in frames
    ]


def padded(model: AcousticModel, texts: list[str], own: list[Tensor], filler: float) -> Batch:
    """A batch whose padding holds ``filler``, which must not matter."""
    symbols = [model.indices(list(text)) for text in texts]
    return Batch(
        torch.nn.utils.rnn.pad_sequence(symbols, batch_first=True, padding_value=1),
        torch.tensor([len(s) for s in symbols]),
        torch.nn.utils.rnn.pad_sequence(
            [mel.T for mel in own], batch_first=True, padding_value=filler
        ).transpose(1, 2),
        torch.tensor([mel.shape[1] for mel in own]),
    )


def scored(model: AcousticModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Likelihood, durations and log-durations of a batch."""
    prior = model.prior(batch.symbols, batch.symbol_counts)
    z, log_det = model(batch.mel, batch.frames)
    durations = model.align(z, batch.frames, prior)
    likelihood = model.log_likelihood(z, log_det, batch.frames, prior, durations)
    return likelihood, durations, prior.log_duration


def test_log_det_is_that_of_the_jacobian_and_the_inverse_undoes(model: AcousticModel) -> None:
    (mel,) = mels(4)

    def latents(flat: Tensor) -> Tensor:
        z, _ = model(flat.reshape(1, SPEC.n_mels, 4), torch.tensor([4]))
        return z.flatten()

    jacobian = torch.autograd.functional.jacobian(latents, mel.flatten())
    z, log_det = model(mel.unsqueeze(0), torch.tensor([4]))
    assert log_det.item() == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-9)
    torch.testing.assert_close(model.inverse(z)[0], mel, rtol=0, atol=1e-9)


def test_a_new_flow_only_normalises() -> None:
    model = AcousticModel(SYMBOLS, SPEC, channels=8)
    model.normalise_by(torch.full((6,), -5.0), torch.full((6,), 2.0))
    mel = mels(10)[0].float()
    z, log_det = model(mel.unsqueeze(0), torch.tensor([10]))
    torch.testing.assert_close(z[0], (mel + 5) / 2, rtol=0, atol=1e-5)
    assert log_det.item() == pytest.approx(-60 * math.log(2), rel=1e-5)


def test_neighbours_and_padding_change_nothing(model: AcousticModel) -> None:
    texts, own = ["abca.", "b", "ca"], mels(30, 12, 46)
    together = scored(model, padded(model, texts, own, filler=77.0))
    for item, (text, mel) in enumerate(zip(texts, own, strict=True)):
        alone = scored(model, padded(model, [text], [mel], filler=0.0))
        states = (len(text) + 2) * model.states
        for whole, single in zip(together, alone, strict=True):
            whole = whole[item] if whole.ndim == 1 else whole[item, :states]
            torch.testing.assert_close(whole, single[0], rtol=0, atol=1e-9)
        assert int(together[1][item].sum()) == mel.shape[1]


@torch.no_grad()
def test_log_prob_is_the_density_along_the_best_path(model: AcousticModel) -> None:
    """Written out with torch's normal distribution, frame by frame."""
    (mel,) = mels(20)
    batch = padded(model, ["ab"], [mel], filler=0.0)
    prior = model.prior(batch.symbols, batch.symbol_counts)
    z, log_det = model(batch.mel, batch.frames)
    durations = model.align(z, batch.frames, prior)
    path = torch.repeat_interleave(torch.arange(durations.shape[1]), durations[0])
    expected = log_det.item()
    for frame, state in enumerate(path.tolist()):
        mean, log_scale = (x[0, state, frame % 2] for x in (prior.mean, prior.log_scale))
        density = Normal(mean, log_scale.exp()).log_prob(z[0, :, frame])
        # The search looks at the same numbers, in float32.
        score = model.alignment_scores(z, prior)[0, frame, state]
        assert float(score) == pytest.approx(float(density.sum()), abs=1e-3)
        expected += float(density.sum())
    assert float(model.log_prob(mel, ["a", "b"])) == pytest.approx(expected, abs=1e-9)
    loss = model.training_terms(batch)["nll"]
    assert float(loss) == pytest.approx(-expected / mel.numel(), abs=1e-9)


@torch.no_grad()
def test_alignment_is_searched_in_full_precision_under_autocast(model: AcousticModel) -> None:
    batch = padded(model, ["abc"], mels(20), filler=0.0)
    prior = model.prior(batch.symbols, batch.symbol_counts)
    z, _ = model(batch.mel, batch.frames)
    expected = model.alignment_scores(z, prior)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.alignment_scores(z, prior), expected)


def test_every_parameter_learns_and_durations_leave_the_rest_alone(
    model_copy: AcousticModel,
) -> None:
    batch = padded(model_copy, ["abca.", "cb"], mels(30, 24), filler=0.0)
    terms = model_copy.training_terms(batch)
    shared = [p for n, p in model_copy.named_parameters() if not n.startswith("duration_of")]
    gradients = torch.autograd.grad(terms["duration"], shared, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)
    terms["loss"].backward()
    for name, parameter in model_copy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("predicted, direction", [(3.9, -1), (4.0, 0), (4.1, 1)])
def test_duration_loss_is_least_at_the_mean(predicted: float, direction: int) -> None:
    durations = torch.tensor([1.0, 2.0, 9.0, 77.0])  # the last is padding
    log_duration = torch.full((4,), math.log(predicted), requires_grad=True)
    duration_loss(log_duration, durations, torch.arange(4) < 3).backward()
    assert log_duration.grad is not None
    assert round(float(log_duration.grad.sum()), 6) * direction >= 0
    assert bool(abs(float(log_duration.grad.sum())) < 1e-6) == (direction == 0)


def test_overfits_recorded_sentences() -> None:
    """From text and audio alone: likelihood rises, and the alignment becomes sharp."""
    spec = replace(MelSpec.preset("speech-16k"), n_mels=40)
    rows = (SAMPLE / "metadata.csv").read_text(encoding="utf-8").splitlines()[:2]
    texts, own = [], []
    for row in rows:
        id, _, text = row.split("|")
        audio, _ = read_audio(next((SAMPLE / "wavs").glob(id + ".*")), spec.sample_rate)
        mel = LogMel(spec)(audio[: 3 * spec.sample_rate // 2])
        own.append(mel[:, : mel.shape[1] // 2 * 2])
        texts.append(text[: int(len(text) * own[-1].shape[1] / (len(audio) / spec.hop_length))])
    torch.manual_seed(0)
    model = AcousticModel(
        sorted(set("".join(texts))), spec, encoder_channels=32, encoder_layers=1, n_flows=2,
        channels=32, n_layers=2, dropout=0.0,
    )  # fmt: skip
    frames = torch.cat(own, dim=1)
    model.normalise_by(frames.mean(1), frames.std(1))
    batch = padded(model, texts, own, filler=0.0)
    found = flat_start([(model.indices(list(t)), m) for t, m in zip(texts, own, strict=True)], 2)
    given = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    parameters = list(model.parameters())
    losses = []
    for step in range(40):
        terms = model.training_terms(batch, given if step < 20 else None)
        gradients = torch.autograd.grad(terms["loss"], parameters)
        with torch.no_grad():  # torch.optim takes longer to import than all of this
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 5e-3 * (1 - step / 40) * gradient.sign()
        losses.append(terms["nll"].item())
    assert losses[-1] < losses[0] - 1.0  # nats per mel element
    assert torch.equal(terms["durations"].sum(1), batch.frames)
    # The flow's own search leaves three of four boundaries where they were.
    ends, before = terms["durations"].cumsum(1), given.cumsum(1)
    assert ((ends - before).abs() <= 2).float().mean() > 0.75


def test_durations_add_up_and_follow_the_speaking_rate(model_copy: AcousticModel) -> None:
    text = list("abcabc.")
    frames = {}
    for rate in (0.5, 1.0, 2.0):
        durations = model_copy.durations(text, rate)
        assert durations.shape == ((len(text) + 2) * model_copy.states,)
        assert (durations >= 0).all()
        frames[rate] = int(durations.sum())
        assert frames[rate] % 2 == 0
        assert model_copy.synthesize(text, speaking_rate=rate).shape == (SPEC.n_mels, frames[rate])
    assert frames[0.5] == pytest.approx(2 * frames[1.0], abs=3)
    assert frames[2.0] == pytest.approx(frames[1.0] / 2, abs=3)
    with torch.no_grad():  # a rate and a text of hardly a frame still give a mel
        model_copy.duration_of.out.bias.fill_(-20.0)
    assert model_copy.synthesize(["a"], speaking_rate=4.0).shape == (SPEC.n_mels, 2)


def test_temperature_and_seed(model: AcousticModel) -> None:
    text = list("abc.")
    still = model.synthesize(text, temperature=0.0)
    assert still.dtype == torch.float32
    assert torch.equal(still, model.synthesize(text, temperature=0.0, seed=5))
    first, again, other = (model.synthesize(text, 0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    distances = [
        float((model.synthesize(text, t, seed=1) - still).abs().mean()) for t in (0.1, 0.3, 1.0)
    ]
    assert distances == sorted(distances)


def test_given_durations_are_kept(model: AcousticModel) -> None:
    text = list("ab")
    durations = torch.tensor([2, 1, 0, 3, 4, 4, 1, 1])
    mel = model.synthesize(text, temperature=0.0, durations=durations)
    assert mel.shape == (SPEC.n_mels, 16)
    for wrong in (durations[:-1], durations + torch.eye(8, dtype=torch.long)[0], 0 * durations):
        with pytest.raises(ValueError, match="8 numbers with an even sum"):
            model.synthesize(text, durations=wrong)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"phonemes": []}, "no phonemes"),
        ({"phonemes": "abc"}, "give a list"),
        ({"phonemes": ["a", "ŋ", "!"]}, "knows no phoneme '!', 'ŋ'; it knows a b c ."),
        ({"phonemes": ["a"] * 2001}, "2001 phonemes are too many.*split the text"),
        ({"phonemes": ["a"], "speaking_rate": 0.0}, "speaking_rate is 0.0: .* 0.25"),
        ({"phonemes": ["a"], "speaking_rate": math.nan}, "speaking_rate is nan"),
        ({"phonemes": ["a"], "temperature": -1.0}, "temperature is -1.0"),
        ({"phonemes": ["a"], "seed": -1}, "seed is -1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    model: AcousticModel, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model.synthesize(**arguments)
    assert "\n" not in str(caught.value)


def test_an_odd_number_of_frames_is_refused(model: AcousticModel) -> None:
    with pytest.raises(ValueError, match="cut the mel to an even number"):
        model.log_prob(mels(7)[0], ["a"])


@pytest.mark.parametrize(
    "arguments", [{"symbols": []}, {"symbols": ["a", "a"]}, {"n_flows": 0}, {"states": 0},
                  {"encoder_channels": 18}]
)  # fmt: skip
def test_sizes_that_make_no_model_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|do not split"):
        AcousticModel(**{"symbols": SYMBOLS, **arguments})


def test_a_sentence_is_encoded_once(model_copy: AcousticModel) -> None:
    calls: list[object] = []
    model_copy.encoder.register_forward_hook(lambda *_: calls.append(None))
    model_copy.synthesize(list("abc."))
    assert len(calls) == 1


def test_a_fused_model_is_the_same_function_and_frozen(model: AcousticModel) -> None:
    fused = model.fused()
    text = list("cab.")
    (mel,) = mels(20)
    torch.testing.assert_close(fused.synthesize(text), model.synthesize(text), rtol=0, atol=1e-5)
    likelihoods = [m.log_prob(mel, text) for m in (fused, model)]
    torch.testing.assert_close(*likelihoods, rtol=0, atol=1e-8)
    assert not any(isinstance(piece, InvertibleConv1x1) for piece in fused.modules())
    assert not any("original" in name for name in fused.state_dict())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    with pytest.raises(RuntimeError, match="frozen"):
        fused.train()
    with pytest.raises(RuntimeError, match="frozen"):
        fused.load_state_dict(fused.state_dict())
    for copied in (pickle.loads(pickle.dumps(fused)), copy.deepcopy(fused), fused.fused()):
        assert copied.frozen
        assert torch.equal(copied.synthesize(text), fused.synthesize(text))
    model.train().eval()  # the model itself stays as it was


def test_checkpoint_round_trip(model_copy: AcousticModel, tmp_path: Path) -> None:
    model_copy.float()
    text = list("cab.")
    mel = model_copy.synthesize(text)
    model_copy.save(tmp_path / "whole")
    loaded = load_checkpoint(tmp_path / "whole")
    assert loaded.config == model_copy.config
    assert not loaded.training
    assert torch.equal(loaded.synthesize(text), mel)
    ready = load_acoustic(tmp_path / "whole")
    assert ready.config == {**model_copy.config, "weight_norm": False}
    torch.testing.assert_close(ready.synthesize(text), mel, rtol=0, atol=1e-4)
    ready.save(tmp_path / "fused")
    assert torch.equal(load_acoustic(tmp_path / "fused").synthesize(text), ready.synthesize(text))
    model_copy.save(tmp_path / "half", torch.float16)
    halved = load_acoustic(tmp_path / "half")
    assert next(halved.parameters()).dtype == torch.float32
    durations = model_copy.durations(text)
    pair = [m.synthesize(text, durations=durations) for m in (halved, model_copy)]
    torch.testing.assert_close(*pair, rtol=0, atol=0.05)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]


def test_vocoders_and_acoustic_models_are_not_taken_for_each_other(
    model: AcousticModel,
    tiny_flow: Callable[..., MdctFlow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
