"""Objectives, the Lightning module and its callbacks, on real audio and small flows."""

import json
import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor
from vocoder.training.errors import TrainingError
from vocoder.training.objectives import (
    LikelihoodAndSpectral,
    MaximumLikelihood,
    Objective,
    multi_resolution_stft,
    phase_advance,
    phase_repetition,
)

from vocoder.audio import MelSpec, read_audio
from vocoder.flows import InvertibleConv1x1
from vocoder.models import Vocoder, WaveGlow, load_checkpoint
from vocoder.training.callbacks import (
    AveragedWeights,
    HeldOutSound,
    History,
    LastCheckpoint,
    Snapshots,
    TrainingBar,
    training_seconds,
)
from vocoder.training.crops import SpeechData
from vocoder.training.module import VocoderTraining

SAMPLE = Path(__file__).parents[1] / "recipes" / "ljspeech" / "sample"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
]


def small_flow() -> WaveGlow:
    torch.manual_seed(0)
    model = WaveGlow(
        "speech-16k", "lapped", n_group=256, n_flows=2, n_early_every=0, channels=8, n_layers=1,
        mixing=["even-odd", "half-swap"], conditional_scale=True, scale_channels=8,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.005 * torch.randn_like(parameter)
    return model


def speech() -> tuple[Tensor, Tensor]:
    """Two crops of recorded speech, (2, 16 * 256), and their mels."""
    audio, _ = read_audio(SAMPLE / "wavs" / "ru_0813.flac")
    batch = torch.stack([audio[16000 : 16000 + 4096], audio[30000 : 30000 + 4096]])
    return batch, small_flow().mel(batch)


# -- objectives --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", [MaximumLikelihood(), LikelihoodAndSpectral(start=0.0, batch_fraction=0.5)]
)
def test_gradients_reach_every_parameter(objective: Objective) -> None:
    model = small_flow()
    audio, mel = speech()
    terms = objective(model, audio, mel, 0.5, torch.Generator().manual_seed(0))
    terms["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    expected = -model.log_prob(audio, mel).mean() / audio.shape[1]
    torch.testing.assert_close(terms["nll"], expected.detach(), rtol=1e-5, atol=1e-5)


def test_the_spectral_term_alone_has_gradients_and_sets_in_at_its_start() -> None:
    audio, mel = speech()
    objective = LikelihoodAndSpectral(
        weight=2.0, phase_weight=0.5, tone_weight=3.0, start=0.3, tone_start=0.6
    )
    before = objective(small_flow(), audio, mel, 0.29, torch.Generator().manual_seed(0))
    assert set(before) == {"loss", "nll"}
    model = small_flow()
    between = objective(model, audio, mel, 0.3, torch.Generator().manual_seed(0))
    assert "stft" in between
    assert "repetition" not in between
    after = objective(model, audio, mel, 0.6, torch.Generator().manual_seed(0))
    spectral = after["loss"] - after["nll"]
    terms = after["stft"] + after["mel_distance"] + 0.5 * after["phase"] + 3 * after["repetition"]
    torch.testing.assert_close(spectral.detach(), 2 * terms, rtol=1e-4, atol=1e-4)
    # The difference of two losses keeps the gradient of the spectral term and no other.
    (after["loss"] - objective(model, audio, mel, 0.0, torch.Generator())["loss"]).backward()
    weights = model.flow.pieces[-1].pieces[0].weight
    assert weights.grad.abs().max() > 1e-3


@pytest.mark.parametrize("distance", [multi_resolution_stft, phase_advance])
def test_spectral_distances_order_distortions(distance: Callable[..., Tensor]) -> None:
    audio, _ = speech()
    noise = torch.randn(audio.shape, generator=torch.Generator().manual_seed(0))
    same, close, far = (float(distance(audio + s * noise, audio)) for s in (0, 1e-3, 1e-2))
    assert abs(same) < 1e-6
    assert 1e-3 < close < far
    assert distance(torch.zeros_like(audio), audio) > far
    assert distance(audio, torch.zeros_like(audio)).isfinite()


def test_phase_advance_hears_frequency_and_not_phase() -> None:
    time = torch.arange(16000)[None] / 16000

    def hum(frequency: float, phase: float) -> Tensor:
        return 0.1 * torch.sin(2 * torch.pi * (frequency * time + phase))

    same, shifted, higher = (
        float(phase_advance(hum(f, p), hum(200.0, 0.0), (1024,)))
        for f, p in ((200.0, 0.0), (200.0, 0.3), (205.0, 0.0))
    )
    assert same < 1e-6
    assert shifted < 0.02  # the ends are not periodic
    # 5 Hz over a hop of 256 samples is an advance of 0.5 radians.
    assert higher == pytest.approx(1 - math.cos(2 * math.pi * 5 * 256 / 16000), abs=0.05)


def test_energy_distances_reward_draws_for_differing() -> None:
    audio, mel = (x.repeat(2, *[1] * (x.ndim - 1)) for x in speech())
    model = small_flow()

    def stft(energy: bool, temperature: float) -> float:
        objective = LikelihoodAndSpectral(
            start=0.0, energy_distance=energy, temperature=temperature, batch_fraction=1.0
        )
        terms = objective(model, audio, mel, 1.0, torch.Generator().manual_seed(0))
        assert terms["loss"].isfinite()
        return float(terms["stft"])

    # Without noise both draws are the same, and their distance nothing.
    assert stft(True, 0.0) == pytest.approx(stft(False, 0.0), rel=1e-5)
    assert stft(True, 1.0) < stft(False, 1.0) - 0.1


def test_phase_repetition_hears_what_repeats_and_only_that() -> None:
    def pieces(count: int, seed: int) -> torch.Tensor:
        return 0.1 * torch.randn(count, 512, generator=torch.Generator().manual_seed(seed))

    speech_, _ = speech()
    repeated = pieces(1, 0).repeat(128, 1).reshape(4, -1)
    other = pieces(128, 1).reshape(4, -1)
    assert float(phase_repetition(repeated, 512)) > 0.9  # but for the reflected ends
    assert float(phase_repetition(other, 512)) < 0.02
    assert float(phase_repetition(speech_, 512)) < 0.15  # of two sentences
    # What repeats for a while and then something else does, what turns over each time, and what
    # repeats a little later each time.
    changing = pieces(16, 2).repeat_interleave(8, dim=0).reshape(1, -1)
    assert float(phase_repetition(changing, 512)) > 0.15
    turning = repeated * torch.tensor([1.0, -1.0] * 16).repeat_interleave(512)
    assert float(phase_repetition(turning, 512)) > 0.8
    shifted = pieces(1, 3)[:, :500].repeat(1, 128)
    assert float(phase_repetition(shifted, 512)) > 0.3
    # What is loud counts for more than what is quiet.
    loud = torch.cat([10 * repeated[:2], other[2:]])
    quiet = torch.cat([repeated[:2], 10 * other[2:]])
    assert float(phase_repetition(loud, 512)) > 0.7
    assert float(phase_repetition(quiet, 512)) < 0.2
    # A little of it counts.
    faint = [float(phase_repetition(a * repeated + other, 512)) for a in (0.0, 0.3, 0.6)]
    assert faint[0] + 0.02 < faint[1] < faint[2] - 0.02
    # Loudness does not count, and silence has no phase.
    envelope = torch.linspace(0.01, 1, repeated.shape[-1])
    assert float(phase_repetition(envelope * repeated, 512)) > 0.9
    silence = torch.zeros(1, 4096, requires_grad=True)
    for audio in (silence, repeated.clone().requires_grad_()):
        repetition = phase_repetition(audio, 512)
        repetition.backward()
        assert audio.grad is not None
        assert audio.grad.isfinite().all()
    assert float(phase_repetition(silence.detach(), 512)) == pytest.approx(0, abs=1e-9)
    assert 0 <= float(phase_repetition(other[:, :512], 512)) <= 1


# -- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


class CrashAt(Callback):
    """Ends the process, as far as Lightning can tell, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


def run(
    folder: Path,
    cache: Path,
    objective: Objective | None = None,
    max_steps: int = 8,
    callbacks: Iterable[Callback] = (),
    save_every: float = 1e9,
    module: dict[str, Any] | None = None,
    max_time: timedelta | None = None,
    **trainer: Any,
) -> tuple[VocoderTraining, AveragedWeights, lightning.Trainer]:
    spec = MelSpec.preset("speech-16k")
    data = SpeechData(spec, SAMPLE, cache, batch_size=2, crop_frames=16, validation_seconds=0.5)
    folder.mkdir(exist_ok=True)
    options: dict[str, Any] = {"warmup_steps": 2, "temperature": 0.5} | (module or {})
    training = VocoderTraining(small_flow(), objective or MaximumLikelihood(), **options)
    averaged = AveragedWeights(0.9)
    fit = lightning.Trainer(
        accelerator="cpu", max_steps=max_steps, logger=False, enable_model_summary=False,
        num_sanity_val_steps=0, check_val_every_n_epoch=None, use_distributed_sampler=False,
        val_check_interval=trainer.pop("val_check_interval", 4), max_epochs=-1,
        callbacks=[averaged, History(folder / "history.jsonl"), TrainingBar(),
                   Timer(max_time, verbose=False), *callbacks,
                   LastCheckpoint(folder / "last.ckpt", save_every)], **trainer,
    )  # fmt: skip
    checkpoint = folder / "last.ckpt"
    resume = checkpoint if checkpoint.exists() else None
    fit.fit(training, data, ckpt_path=resume, weights_only=False)
    return training, averaged, fit


def recorded(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def weights(training: VocoderTraining) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def assert_differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("objective", [MaximumLikelihood(), LikelihoodAndSpectral(start=0.2)])
def test_a_crashed_run_resumes_to_the_weights_of_an_unbroken_one(
    tmp_path: Path, cache: Path, objective: Objective
) -> None:
    one, one_average, _ = run(tmp_path / "one", cache, objective)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "two", cache, objective, callbacks=[CrashAt(5)], save_every=0)
    saved = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # the crash came before the save of step 5
    two, two_average, trainer = run(tmp_path / "two", cache, objective)
    assert trainer.global_step == 8
    assert one.items_seen == two.items_seen == 16
    # Of eight batches of two crops, four are of 16 frames and four of 15.
    assert one.samples_seen == two.samples_seen == 4 * 2 * (16 + 15) * 256
    assert_same(weights(one), weights(two))
    one_average.apply_to(one)
    two_average.apply_to(two)
    assert_same(weights(one), weights(two))
    steps = [row["step"] for row in recorded(tmp_path / "two")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8


def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path: Path, cache: Path) -> None:
    first, average, _ = run(tmp_path, cache, max_steps=4)
    raw = weights(first)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert_same(raw, {k[6:]: v for k, v in saved["current_model_state"].items()})
    average.apply_to(first)
    assert_differ(raw, weights(first))
    rates = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    again, _, trainer = run(tmp_path, cache, max_steps=8, callbacks=[Watch()])
    assert trainer.global_step == 8
    assert rates == [again.learning_rate_at(step, step / 8) for step in range(4, 8)]


def test_learning_rate_warms_up_and_decays() -> None:
    training = VocoderTraining(
        small_flow(), MaximumLikelihood(), learning_rate=1.0, final_learning_rate=0.1,
        warmup_steps=10,
    )  # fmt: skip
    assert [training.learning_rate_at(n, 0.0) for n in (0, 4, 9, 99)] == [0.1, 0.5, 1.0, 1.0]
    assert training.learning_rate_at(99, 0.5) == pytest.approx(0.55)
    assert training.learning_rate_at(99, 1.0) == pytest.approx(0.1)


def test_time_ends_training_and_drives_the_decay(tmp_path: Path, cache: Path) -> None:
    used: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            used.append(pl_module.budget_used)

    second = timedelta(seconds=1)
    _, _, trainer = run(tmp_path, cache, max_steps=-1, callbacks=[Watch()], max_time=second)
    assert 2 < trainer.global_step < 10_000
    assert used == sorted(used)
    assert used[0] < 0.3
    assert 0.7 < used[-1] <= 1.0
    assert training_seconds(trainer) >= 1.0


class BadAt(Objective):
    """Likelihood, but in the steps of `steps` the loss is not finite, in one way or another."""

    def __init__(self, steps: dict[int, str]) -> None:
        super().__init__()
        self.steps = steps
        self.calls = 0

    def forward(self, model: Vocoder, audio: Tensor, mel: Tensor, *rest: Any) -> dict[str, Tensor]:
        nll = model.training_loss({"audio": audio, "mel": mel})
        how = self.steps.get(self.calls)
        self.calls += 1
        if how == "nan loss":
            nll = nll * math.nan
        elif how == "infinite loss, finite gradient":
            nll = nll + math.inf
        elif how == "finite loss, nan gradient":
            nll = nll + (0 * next(model.parameters()).sum()).clamp(min=0).sqrt()
        return {"loss": nll, "nll": nll.detach()}


BAD = ["nan loss", "infinite loss, finite gradient", "finite loss, nan gradient"]


def test_steps_that_are_not_finite_change_nothing_and_are_counted(
    tmp_path: Path, cache: Path
) -> None:
    states = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            states.append(weights(pl_module))

    objective = BadAt({3: BAD[0], 4: BAD[1], 5: BAD[2]})
    training, average, trainer = run(tmp_path, cache, objective, callbacks=[Watch()])
    assert trainer.global_step == 8
    assert training.skipped == 3
    assert_same(states[2], states[5])
    for before, after in ((1, 2), (5, 6), (6, 7)):
        assert_differ(states[before], states[after])
    average.apply_to(training)
    assert all(value.isfinite().all() for value in weights(training).values())
    assert [row["skipped"] for row in recorded(tmp_path)] == [1, 3]


def test_training_that_stays_not_finite_ends_with_a_sentence(tmp_path: Path, cache: Path) -> None:
    objective = BadAt(dict.fromkeys(range(2, 100), BAD[0]))
    with pytest.raises(TrainingError, match="3 steps in a row"):
        run(tmp_path, cache, objective, module={"max_skipped": 3})


def test_gradients_are_clipped(tmp_path: Path, cache: Path) -> None:
    norms = []

    class Watch(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            # Still those of the step before.
            grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))

    clipping: dict[str, Any] = {"gradient_clip": 0.01}
    run(tmp_path, cache, max_steps=4, callbacks=[Watch()], module=clipping)
    assert norms == pytest.approx([0.0, 0.01, 0.01, 0.01], rel=1e-3)


def test_validation_uses_the_averaged_weights_and_puts_the_others_back(
    tmp_path: Path, cache: Path
) -> None:
    seen: dict[str, Any] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen["trained"] = weights(pl_module)

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, *args: Any
        ) -> None:
            seen["validated"] = weights(pl_module)
            for piece in pl_module.model.modules():
                if isinstance(piece, InvertibleConv1x1):
                    product = piece.inverse_matrix() @ piece.matrix()
                    seen["error"] = float((product - torch.eye(piece.channels)).abs().max())

    training, average, _ = run(tmp_path, cache, max_steps=4, callbacks=[Watch()])
    assert_differ(seen["trained"], seen["validated"])
    assert_same(seen["trained"], weights(training))
    assert seen["error"] < 1e-5  # not the cached inverse of the other weights
    average.apply_to(training)
    assert_same(seen["validated"], weights(training))


def test_snapshots_are_the_averaged_model_of_their_minute(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "snapshots"
    first, later = 1e-6, 1e9  # minutes: the first step is past the one, no step reaches the other
    _, average, _ = run(tmp_path, cache, max_steps=1, callbacks=[Snapshots(folder, [later, first])])
    assert [path.name for path in folder.iterdir()] == ["1e-06min"]
    kept = load_checkpoint(folder / "1e-06min")
    assert_same(kept.state_dict(), dict(average.averaged.model.state_dict()))
    facts = json.loads((folder / "1e-06min" / "training.json").read_text())
    assert facts["steps"] == 1
    assert facts["audio_seconds"] == pytest.approx(2 * 16 * 256 / 16000, abs=0.05)

    (folder / "1e-06min" / "training.json").unlink()  # a resumed run does not take it again
    run(tmp_path, cache, max_steps=2, callbacks=[Snapshots(folder, [first, later])])
    assert [path.name for path in folder.rglob("training.json")] == []
    with pytest.raises(ValueError, match="minutes above 0"):
        Snapshots(folder, [5, 0])


def test_changing_to_the_average_leaves_no_stale_inverse() -> None:
    average = AveragedWeights(0.5)
    training = VocoderTraining(small_flow(), MaximumLikelihood())
    average.setup(lightning.Trainer(accelerator="cpu", logger=False), training, "fit")
    mixing = next(m for m in training.model.modules() if isinstance(m, InvertibleConv1x1))
    with torch.no_grad():
        mixing.weight += 0.01 * torch.randn(mixing.weight.shape)
    training.eval()
    for change in (average._swap_models, average._swap_models, average.apply_to):
        with torch.no_grad():
            mixing.inverse_matrix()  # cached now
            change(training)
            product = mixing.inverse_matrix() @ mixing.matrix()
        torch.testing.assert_close(product, torch.eye(256), atol=1e-5, rtol=0)


def test_average_is_the_exponential_one_with_its_warm_up() -> None:
    average = AveragedWeights(0.9)
    model = lightning.LightningModule()
    model.weight = torch.nn.Parameter(torch.zeros(1))
    model.register_buffer("count", torch.zeros((), dtype=torch.long))
    average.setup(lightning.Trainer(accelerator="cpu", logger=False), model, "fit")
    inner = average._average_model
    assert inner is not None
    expected = 0.0
    for n in range(200):
        value = float(n % 7)
        model.weight.data.fill_(value)
        model.count.fill_(n)
        inner.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        assert inner.module.weight.item() == pytest.approx(expected, rel=1e-4)
        assert inner.module.count.item() == n


@pytest.mark.parametrize("precision", ["bf16-mixed"])
def test_half_precision_trains_close_to_float32(
    tmp_path: Path, cache: Path, precision: Any
) -> None:
    losses: dict[Any, list[float]] = {"32-true": [], precision: []}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            losses[trainer.precision].append(float(trainer.callback_metrics["train/nll"]))

    for kind in losses:
        objective = LikelihoodAndSpectral(start=0.5)
        run(tmp_path / kind, cache, objective, 6, [Watch()], precision=kind)
    assert losses[precision] == pytest.approx(losses["32-true"], abs=0.1)


def test_tensorboard_gets_sound_and_pictures(tmp_path: Path, cache: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = MelSpec.preset("speech-16k")
    data = SpeechData(spec, SAMPLE, cache, validation_seconds=0.5)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=TensorBoardLogger(tmp_path, "", "board"), max_epochs=-1,
        callbacks=[HeldOutSound(2), TrainingBar()], enable_checkpointing=False,
    )  # fmt: skip
    module = VocoderTraining(small_flow(), MaximumLikelihood())
    trainer.validate(module, data, verbose=False)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    ids = data.split.validation[:2]
    assert sorted(events.Tags()["audio"]) == [f"{i}/{k}" for i in ids for k in ("made", "original")]
    assert sorted(events.Tags()["images"]) == [f"{i}/mel" for i in ids]
    picture = events.Images(f"{ids[0]}/mel")[0]
    assert (picture.height, picture.width) == (160, 31)
    assert {"val/log_likelihood", "val/mel_distance"} <= set(events.Tags()["scalars"])


def test_validation_scores_are_what_they_say(tmp_path: Path, cache: Path) -> None:
    spec = MelSpec.preset("speech-16k")
    data = SpeechData(spec, SAMPLE, cache, validation_seconds=0.5)
    model = small_flow()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, callbacks=[TrainingBar()], enable_checkpointing=False
    )
    module = VocoderTraining(model, MaximumLikelihood(), temperature=0.3)
    (scores,) = trainer.validate(module, data, verbose=False)
    total, samples, distances = 0.0, 0, []
    held_out = data.held_out(data.split.validation, 0.5)
    for i in range(len(held_out)):
        audio, clean = (torch.from_numpy(held_out[i][k]) for k in ("audio", "clean"))
        mel = model.mel(clean)
        total += float(model.log_prob(audio, mel).detach())
        samples += audio.numel()
        distances.append(float((model.mel(model.synthesize(mel, 0.3)) - mel).abs().mean()))
    assert scores["val/log_likelihood"] == pytest.approx(total / samples, abs=1e-4)
    assert scores["val/mel_distance"] == pytest.approx(sum(distances) / 3, abs=1e-4)
