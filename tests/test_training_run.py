"""The Lightning module and its callbacks, on real audio and a small flow."""

import itertools
import math
import re
from datetime import timedelta

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Timer

from tests.test_recipe_ljspeech import SAMPLE, EveryStep, rows
from vocoder.audio import MelSpec
from vocoder.flows import InvertibleConv1x1
from vocoder.models import WaveNet
from vocoder.training.callbacks import AveragedWeights, LastCheckpoint, Progress, Validations
from vocoder.training.data import SpeechData
from vocoder.training.losses import Likelihood, Loss, Stft
from vocoder.training.module import DivergedError, TrainingError, VocoderTraining

QUIET = {
    "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}  # fmt: skip


@pytest.fixture
def model(tiny_flow):
    return tiny_flow().train()


@pytest.fixture
def data(tmp_path_factory):
    spec, cache = MelSpec.preset("speech-16k"), tmp_path_factory.getbasetemp() / "prepared"
    return SpeechData(spec, SAMPLE, cache, batch_size=2, crop_frames=16, validation_seconds=0.5)


@pytest.fixture
def run(tiny_flow, data):
    """Trains a small flow in a folder, or resumes the run in it."""

    def fit(folder, losses=(), max_steps=8, callbacks=(), save_every=1e9, module=None, **trainer):
        folder.mkdir(exist_ok=True)
        options = {"warmup_steps": 2, "temperature": 0.5} | (module or {})
        training = VocoderTraining(tiny_flow().train(), losses or [Likelihood()], **options)
        averaged = AveragedWeights(0.9)
        validations = Validations(folder, averaged, "val/log_likelihood", 0, False)
        checkpoint, timer = (
            folder / "last.ckpt",
            Timer(trainer.pop("max_time", None), verbose=False),
        )
        fit = lightning.Trainer(
            max_steps=max_steps, max_epochs=-1, logger=False, use_distributed_sampler=False,
            val_check_interval=4, check_val_every_n_epoch=None, **QUIET, **trainer,
            callbacks=[averaged, validations, Progress(), timer, *callbacks,
                       LastCheckpoint(checkpoint, save_every)],
        )  # fmt: skip
        resume = checkpoint if checkpoint.exists() else None
        fit.fit(training, data, ckpt_path=resume, weights_only=True)
        return training, averaged, fit

    return fit


def weights(training):
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_crashed_run_resumes_to_the_weights_of_an_unbroken_one(tmp_path, run):
    def crash(trainer, module):
        if trainer.global_step == 5:
            raise RuntimeError("crash")

    losses = [Likelihood(), Stft(start=0.7)]
    one, one_average, unbroken = run(tmp_path / "one", losses)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "two", losses, callbacks=[EveryStep(crash)], save_every=0)
    saved = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # the crash came before the save of step 5
    two, two_average, trainer = run(tmp_path / "two", losses)
    assert trainer.global_step == 8
    assert one.items_seen == two.items_seen == 16
    # Of eight batches of two crops, four are of 16 frames and four of 15.
    assert one.samples_seen == two.samples_seen == 4 * 2 * (16 + 15) * 256
    assert same(one.state_dict(), two.state_dict())
    states = [trainer.optimizers[0].state_dict()["state"] for trainer in (unbroken, trainer)]
    assert len(states[0]) == sum(1 for _ in one.parameters())
    assert all(same(state, states[1][parameter]) for parameter, state in states[0].items())
    one_average.apply_to(one)
    two_average.apply_to(two)
    assert same(one.state_dict(), two.state_dict())
    assert [row["step"] for row in rows(tmp_path / "two")] == [4, 8]


def test_losses_that_cannot_be_trained_on_are_refused(model, data):
    wavenet = WaveNet("speech-16k", channels=4, n_layers=1, cycle=1)
    trainer = lightning.Trainer(max_steps=1, logger=False, enable_checkpointing=False, **QUIET)
    with pytest.raises(TrainingError, match="does not suit the model: no gradient"):
        trainer.fit(VocoderTraining(wavenet, [Likelihood(), Stft()]), data)


def test_a_finished_run_continues_with_a_larger_budget(tmp_path, run):
    first, average, _ = run(tmp_path, max_steps=4)
    raw = weights(first)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    trained = saved["current_model_state"].items()
    assert same(raw, {k[6:]: v for k, v in trained if k.startswith("model.")})
    average.apply_to(first)
    assert not same(raw, weights(first))
    rates = []
    watch = EveryStep(lambda trainer, _: rates.append(trainer.optimizers[0].param_groups[0]["lr"]))
    again, _, trainer = run(tmp_path, max_steps=8, callbacks=[watch])
    assert trainer.global_step == 8
    assert rates == [1e-3 * again.schedule_at(step, step / 8) for step in range(4, 8)]


def test_learning_rate_warms_up_and_decays(model):
    training = VocoderTraining(model, [Likelihood()], final_learning_rate=0.1, warmup_steps=10)
    assert [training.schedule_at(n, 0.0) for n in (0, 4, 9, 99)] == [0.1, 0.5, 1.0, 1.0]
    assert training.schedule_at(99, 0.5) == pytest.approx(0.55)
    assert training.schedule_at(99, 1.0) == pytest.approx(0.1)


def test_time_ends_training_and_drives_the_decay(tmp_path, run):
    used = []
    watch = EveryStep(lambda _, module: used.append(module.budget_used))
    budget = timedelta(seconds=1)
    training, _, trainer = run(tmp_path, max_steps=-1, callbacks=[watch], max_time=budget)
    assert 2 < trainer.global_step < 10_000
    assert used == sorted(used)
    assert used[0] < 0.3
    assert 0.7 < used[-1] <= 1.0
    assert training.timer.time_elapsed() >= 1.0


class BadAt(Loss):
    """Likelihood, but in the steps of `steps` the loss is not finite, in one way or another."""

    name = "nll"

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.calls = 0

    def forward(self, step):
        nll = step.nll
        how = self.steps.get(self.calls)
        self.calls += 1
        if how == "nan loss":
            nll = nll * math.nan
        elif how == "infinite loss, finite gradient":
            nll = nll + math.inf
        elif how == "finite loss, nan gradient":
            nll = nll + (0 * next(step.model.parameters()).sum()).square().sqrt()
        return nll


BAD = ["nan loss", "infinite loss, finite gradient", "finite loss, nan gradient"]


def test_steps_that_are_not_finite_change_nothing_and_are_counted(tmp_path, run):
    states = []
    watch = EveryStep(lambda _, module: states.append(weights(module)))
    losses = [BadAt(dict(enumerate(BAD, 3)))]
    training, average, trainer = run(tmp_path, losses, callbacks=[watch])
    assert trainer.global_step == 8
    assert training.skipped == 3
    changed = [not same(before, after) for before, after in itertools.pairwise(states)]
    assert changed == [True, True, False, False, False, True, True]
    average.apply_to(training)
    assert all(value.isfinite().all() for value in weights(training).values())
    assert [row["skipped"] for row in rows(tmp_path)] == [1, 3]


def test_bursts_that_leave_more_good_steps_than_bad_go_on_and_others_end(tmp_path, run):
    bursts = BadAt(dict.fromkeys((1, 2, 5, 6), BAD[0]))
    training, _, trainer = run(tmp_path / "few", [bursts], module={"max_skipped": 3})
    assert (trainer.global_step, training.skipped) == (8, 4)
    most = BadAt(dict.fromkeys((n for n in range(100) if n % 3), BAD[0]))
    with pytest.raises(DivergedError, match="lately 3 more steps were skipped than not"):
        run(tmp_path / "most", [most], max_steps=100, module={"max_skipped": 3})


def test_validation_uses_the_averaged_weights_and_puts_the_others_back(tmp_path, run):
    seen = {}

    class Watch(EveryStep):
        def on_validation_batch_end(self, trainer, pl_module, *args):
            seen["validated"] = weights(pl_module)

    watch = Watch(lambda _, module: seen.update(trained=weights(module)))
    training, average, _ = run(tmp_path, max_steps=4, callbacks=[watch])
    assert not same(seen["trained"], seen["validated"])
    assert same(seen["trained"], weights(training))
    average.apply_to(training)
    assert same(seen["validated"], weights(training))


def test_changing_to_the_average_leaves_no_stale_inverse(model):
    average = AveragedWeights(0.5)
    training = VocoderTraining(model, [Likelihood()])
    average.setup(lightning.Trainer(accelerator="cpu", logger=False), training, "fit")
    conv1x1 = next(m for m in model.modules() if isinstance(m, InvertibleConv1x1))
    with torch.no_grad():
        conv1x1.weight += 0.01 * torch.randn(conv1x1.weight.shape)
    training.eval()
    trainer = None
    for change in (
        lambda: average.on_validation_epoch_start(trainer, training),
        lambda: average.on_validation_epoch_end(trainer, training),
        lambda: average.apply_to(training),
    ):
        before = conv1x1.weight.clone()
        with torch.no_grad():
            conv1x1.inverse_matrix()
            change()
            product = conv1x1.inverse_matrix() @ conv1x1.weight
        assert not torch.equal(conv1x1.weight, before)
        torch.testing.assert_close(product, torch.eye(256), atol=1e-5, rtol=0)


def test_average_is_the_exponential_one_with_its_warm_up():
    average = AveragedWeights(0.9)
    model = lightning.LightningModule()
    model.weight = torch.nn.Parameter(torch.zeros(1))
    model.register_buffer("count", torch.zeros((), dtype=torch.long))
    average.setup(lightning.Trainer(accelerator="cpu", logger=False), model, "fit")
    inner, expected = average._average_model, 0.0
    for n in range(200):
        value = float(n % 7)
        model.weight.data.fill_(value)
        model.count.fill_(n)
        inner.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        assert inner.module.weight.item() == pytest.approx(expected, rel=1e-4)
        assert inner.module.count.item() == n


def test_progress_is_a_line_in_a_log_and_is_redrawn_in_a_terminal(
    tmp_path, run, monkeypatch, capsys
):
    clock = itertools.count(0, 31)  # seconds, at each look
    monkeypatch.setattr("vocoder.training.callbacks.time.monotonic", lambda: next(clock))
    run(tmp_path / "log", max_steps=5)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.match(r" 20% step 1, train/loss -?[\d.]+, [\d.]+ s audio/s$", first)
    assert re.match(r"100% step 5, .*val/log_likelihood -?[\d.]+, ", last)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(tmp_path / "terminal", max_steps=4, max_time=timedelta(days=1))
    shown = capsys.readouterr()
    assert re.search(r"\r\x1b\[K100% step 4, .* audio/s, .* left$", shown.err)
    assert shown.out == ""


def test_validation_scores_are_what_they_say(model, data):
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, **QUIET)
    module = VocoderTraining(model, [Likelihood()], temperature=0.3, validation_syntheses=2)
    data.validation_seconds = 2.2  # one of the three is shorter
    (scores,) = trainer.validate(module, data, verbose=False)
    total, samples, distances = 0.0, 0, []
    held_out = data.held_out(data.split.validation, excerpts=True)
    for i in range(len(held_out)):
        audio, clean = (torch.from_numpy(held_out[i][k]) for k in ("audio", "clean"))
        mel = model.mel(clean)
        total += float(model.log_prob(audio, mel).detach())
        samples += audio.numel()
        distances.append(float((model.mel(model.synthesize(mel, 0.3)) - mel).abs().mean()))
    assert scores["val/log_likelihood"] == pytest.approx(total / samples, abs=1e-4)
    assert scores["val/mel_distance"] == pytest.approx(sum(distances[:2]) / 2, abs=1e-4)
