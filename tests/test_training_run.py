"""The Lightning module and its callbacks, on real audio and a small flow."""

import json
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import pytest
import safetensors
import torch
from lightning.pytorch.callbacks import Callback, Timer
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from tests.test_training_terms import Discriminator
from vocoder.audio import MelSpec
from vocoder.flows import InvertibleConv1x1
from vocoder.models import MdctFlow, WaveNet, load_checkpoint
from vocoder.training.callbacks import (
    AveragedWeights,
    HeldOutSound,
    History,
    LastCheckpoint,
    Snapshots,
    TrainingBar,
)
from vocoder.training.callbacks import weights as weights_module
from vocoder.training.crops import Crops, SpeechData
from vocoder.training.faults import sentence
from vocoder.training.module import DivergedError, TrainingError, VocoderTraining, training_seconds
from vocoder.training.step import Step
from vocoder.training.terms import Likelihood, Mel, Stft, Term

SAMPLE = Path(__file__).parents[1] / "recipes" / "ljspeech" / "sample"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
]

Run = Callable[..., tuple[VocoderTraining, AveragedWeights, lightning.Trainer]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def model(tiny_flow: Callable[..., MdctFlow]) -> MdctFlow:
    return tiny_flow().train()


@pytest.fixture
def data(cache: Path) -> SpeechData:
    spec = MelSpec.preset("speech-16k")
    return SpeechData(spec, SAMPLE, cache, batch_size=2, crop_frames=16, validation_seconds=0.5)


@pytest.fixture
def run(tiny_flow: Callable[..., MdctFlow], cache: Path) -> Run:
    """Trains a small flow in a folder, or resumes the run in it."""

    def fit(
        folder: Path,
        terms: Sequence[Term] = (),
        max_steps: int = 8,
        callbacks: Sequence[Callback] = (),
        save_every: float = 1e9,
        module: dict[str, Any] | None = None,
        max_time: timedelta | None = None,
        workers: int = 0,
        **trainer: Any,
    ) -> tuple[VocoderTraining, AveragedWeights, lightning.Trainer]:
        spec = MelSpec.preset("speech-16k")
        data = SpeechData(
            spec, SAMPLE, cache, batch_size=2, crop_frames=16, validation_seconds=0.5,
            workers=workers,
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        options: dict[str, Any] = {"warmup_steps": 2, "temperature": 0.5} | (module or {})
        training = VocoderTraining(tiny_flow().train(), terms or [Likelihood()], **options)
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
        fit.fit(training, data, ckpt_path=resume, weights_only=True)
        return training, averaged, fit

    return fit


class CrashAt(Callback):
    """Ends the process, as far as Lightning can tell, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("crash")


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


def discriminator(**arguments: Any) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(**arguments)


@pytest.mark.parametrize("adversarial", [False, True])
def test_a_crashed_run_resumes_to_the_weights_of_an_unbroken_one(
    tmp_path: Path, run: Run, adversarial: bool
) -> None:
    def terms() -> list[Term]:
        if not adversarial:
            return [Likelihood()]
        # The crash comes when the one has been trained for a while, the other not at all.
        return [Likelihood(), Stft(start=0.7), discriminator(start=0.2, learning_rate=0.01)]

    one, one_average, unbroken = run(tmp_path / "one", terms())
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "two", terms(), callbacks=[CrashAt(5)], save_every=0)
    saved = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # the crash came before the save of step 5
    two, two_average, trainer = run(tmp_path / "two", terms())
    assert trainer.global_step == 8
    assert one.items_seen == two.items_seen == 16
    # Of eight batches of two crops, four are of 16 frames and four of 15.
    assert one.samples_seen == two.samples_seen == 4 * 2 * (16 + 15) * 256
    assert_same(one.state_dict(), two.state_dict())
    states = [trainer.optimizers[0].state_dict()["state"] for trainer in (unbroken, trainer)]
    assert len(states[0]) == sum(1 for _ in one.parameters())
    for parameter, state in states[0].items():
        assert_same(state, states[1][parameter])
    one_average.apply_to(one)
    two_average.apply_to(two)
    assert_same(one.state_dict(), two.state_dict())
    steps = [row["step"] for row in recorded(tmp_path / "two")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8


def test_a_term_with_parameters_is_trained_saved_and_left_out_of_the_average(
    tmp_path: Path, run: Run
) -> None:
    rates, norms, states = [], [], []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if not states:
                states.append(state())

        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            groups = [group["params"] for group in optimizer.param_groups]
            gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
            norms.append([float(nn.utils.get_total_norm(group)) for group in gradients])

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
            states.append(state())

    def state() -> dict[str, Tensor]:
        return {name: value.clone() for name, value in term.state_dict().items()}

    term = discriminator(start=0.5, learning_rate=3e-3, gradient_clip=2e-3)
    training, average, trainer = run(
        tmp_path, [Likelihood(), term], 6, [Watch()],
        module={"learning_rate": 1e-3, "gradient_clip": 1e-2}, val_check_interval=6,
    )  # fmt: skip
    assert trainer.global_step == 6
    assert all(theirs == pytest.approx(3 * ours) for ours, theirs in rates)
    # Those of the step before, and none of the term's before it sets in.
    assert [ours for ours, _ in norms] == pytest.approx([0, *[1e-2] * 5], rel=1e-3)
    assert [theirs for _, theirs in norms] == pytest.approx([0, 0, 0, 0, 2e-3, 2e-3], rel=1e-3)
    assert_same(states[0], states[3])
    for before, after in ((3, 4), (4, 5), (5, 6)):
        assert_differ(states[before], states[after])

    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for kind in ("state_dict", "current_model_state"):
        prefix = "terms.1."
        kept = {k.removeprefix(prefix): v for k, v in saved[kind].items() if k.startswith(prefix)}
        assert_same(kept, term.state_dict())
    assert_differ(weights(training), average.averaged.model.state_dict())
    assert_same(term.state_dict(), average.averaged.terms[1].state_dict())
    average.apply_to(training)
    assert_same(term.state_dict(), states[-1])
    training.model.save(tmp_path / "model")
    with safetensors.safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(training.model.state_dict())


def test_terms_that_cannot_be_trained_on_are_refused(
    model: MdctFlow, tmp_path: Path, data: SpeechData
) -> None:
    with pytest.raises(ValueError, match="must have start 0"):
        VocoderTraining(model, [Likelihood(start=0.1), Stft(start=0.2)])
    with pytest.raises(ValueError, match="give each kind once"):
        VocoderTraining(model, [Likelihood(), Stft(), Stft(resolutions=[256])])
    wavenet = WaveNet("speech-16k", channels=4, n_layers=1, cycle=1)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="does not suit the model: WaveNet draws"):
        trainer.fit(VocoderTraining(wavenet, [Likelihood(), Stft()]), data)


def test_a_finished_run_continues_with_a_larger_budget(tmp_path: Path, run: Run) -> None:
    first, average, _ = run(tmp_path, max_steps=4)
    raw = weights(first)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert_same(raw, {k[6:]: v for k, v in saved["current_model_state"].items()})
    average.apply_to(first)
    assert_differ(raw, weights(first))
    rates = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    again, _, trainer = run(tmp_path, max_steps=8, callbacks=[Watch()])
    assert trainer.global_step == 8
    assert rates == [1e-3 * again.schedule_at(step, step / 8) for step in range(4, 8)]


def test_learning_rate_warms_up_and_decays(model: MdctFlow) -> None:
    training = VocoderTraining(model, [Likelihood()], final_learning_rate=0.1, warmup_steps=10)
    assert [training.schedule_at(n, 0.0) for n in (0, 4, 9, 99)] == [0.1, 0.5, 1.0, 1.0]
    assert training.schedule_at(99, 0.5) == pytest.approx(0.55)
    assert training.schedule_at(99, 1.0) == pytest.approx(0.1)


def test_time_ends_training_and_drives_the_decay(tmp_path: Path, run: Run) -> None:
    used: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            used.append(pl_module.budget_used)

    second = timedelta(seconds=1)
    _, _, trainer = run(tmp_path, max_steps=-1, callbacks=[Watch()], max_time=second)
    assert 2 < trainer.global_step < 10_000
    assert used == sorted(used)
    assert used[0] < 0.3
    assert 0.7 < used[-1] <= 1.0
    assert training_seconds(trainer) >= 1.0


class BadAt(Term):
    """Likelihood, but in the steps of `steps` the loss is not finite, in one way or another."""

    name = "nll"

    def __init__(self, steps: dict[int, str]) -> None:
        super().__init__()
        self.steps = steps
        self.calls = 0

    def forward(self, step: Step) -> Tensor:
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


def test_steps_that_are_not_finite_change_nothing_and_are_counted(tmp_path: Path, run: Run) -> None:
    states = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    terms = [BadAt({3: BAD[0], 4: BAD[1], 5: BAD[2]}), discriminator()]
    training, average, trainer = run(tmp_path, terms, callbacks=[Watch()])
    assert trainer.global_step == 8
    assert training.skipped == 3
    assert_same(states[2], states[5])
    for before, after in ((1, 2), (5, 6), (6, 7)):
        assert_differ(states[before], states[after])
    average.apply_to(training)
    assert all(value.isfinite().all() for value in weights(training).values())
    assert [row["skipped"] for row in recorded(tmp_path)] == [1, 3]


def test_training_that_stays_not_finite_ends_with_a_sentence(tmp_path: Path, run: Run) -> None:
    terms = [BadAt(dict.fromkeys(range(2, 100), BAD[0]))]
    with pytest.raises(TrainingError, match="lately 3 more steps were skipped than not"):
        run(tmp_path, terms, module={"max_skipped": 3})


def test_bursts_that_leave_more_good_steps_than_bad_go_on_and_others_end(
    tmp_path: Path, run: Run
) -> None:
    bursts = BadAt(dict.fromkeys((1, 2, 5, 6), BAD[0]))
    training, _, trainer = run(tmp_path / "few", [bursts], module={"max_skipped": 3})
    assert (trainer.global_step, training.skipped) == (8, 4)
    most = BadAt(dict.fromkeys((n for n in range(100) if n % 3), BAD[0]))
    with pytest.raises(DivergedError, match="lately 3 more steps"):
        run(tmp_path / "most", [most], max_steps=100, module={"max_skipped": 3})
    # Nothing of the good steps is lost.
    saved = torch.load(tmp_path / "most" / "last.ckpt", weights_only=True)
    assert saved["vocoder_training"]["skipped"] == 4
    assert saved["vocoder_training"]["items_seen"] == 2 * saved["global_step"]


class DieAt(Crops):
    """Crops whose worker process is killed, as by a system without memory, at one of them."""

    at = -1

    def __getitem__(self, key: Any) -> Any:
        if get_worker_info() is not None and key[0] == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


def test_a_loader_worker_that_dies_costs_a_sentence_and_no_step(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, _, _ = run(tmp_path / "one")
    monkeypatch.setattr(SpeechData, "crops", lambda self: DieAt(self.prepared, self.split.train, 256, 16, self.gain_db, self.seed))  # fmt: skip  # noqa: E501
    with monkeypatch.context() as patch:
        patch.setattr(DieAt, "at", 10)  # of step 5
        with pytest.raises((RuntimeError, OSError, EOFError)) as caught:
            run(tmp_path / "two", workers=1)
    assert "a process that loads crops exited" in str(sentence(caught.value))
    saved = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    steps = saved["global_step"]
    assert saved["vocoder_training"]["items_seen"] == 2 * steps
    assert 3 <= steps <= 5  # all whose crops had been loaded
    resumed, _, _ = run(tmp_path / "two", workers=1)
    assert_same(unbroken.state_dict(), resumed.state_dict())


def test_validation_uses_the_averaged_weights_and_puts_the_others_back(
    tmp_path: Path, run: Run
) -> None:
    seen: dict[str, Any] = {}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen["trained"] = weights(pl_module)

        def on_validation_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, *args: Any
        ) -> None:
            seen["validated"] = weights(pl_module)
            seen["generated"] = outputs["generated"].clone(), outputs["mel"].clone()

    training, average, _ = run(tmp_path, max_steps=4, callbacks=[Watch()])
    assert_differ(seen["trained"], seen["validated"])
    assert_same(seen["trained"], weights(training))
    generated, mel = seen["generated"]
    with torch.no_grad():
        assert (training.model.synthesize(mel, 0.5) - generated).abs().max() > 1e-5
    average.apply_to(training)
    assert_same(seen["validated"], weights(training))
    torch.testing.assert_close(training.model.synthesize(mel, 0.5), generated, atol=1e-5, rtol=0)


def test_snapshots_are_the_averaged_model_of_their_minute(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if each step took a minute.
    monkeypatch.setattr(
        weights_module, "training_seconds", lambda trainer: 60 * trainer.global_step
    )
    folder = tmp_path / "snapshots"
    _, average, _ = run(tmp_path, max_steps=2, callbacks=[Snapshots(folder, [9, 1.5])])
    assert [path.name for path in folder.iterdir()] == ["1.5min"]
    kept = load_checkpoint(folder / "1.5min")
    assert_same(kept.state_dict(), dict(average.averaged.model.state_dict()))
    facts = json.loads((folder / "1.5min" / "training.json").read_text())
    assert facts["steps"] == facts["minutes"] == 2
    assert facts["audio_seconds"] == pytest.approx(2 * (16 + 15) * 256 / 16000, abs=0.05)

    (folder / "1.5min" / "training.json").unlink()  # a resumed run does not take it again
    run(tmp_path, max_steps=3, callbacks=[Snapshots(folder, [1.5, 9])])
    assert [path.name for path in folder.rglob("training.json")] == []
    with pytest.raises(ValueError, match="minutes above 0"):
        Snapshots(folder, [5, 0])


def test_changing_to_the_average_leaves_no_stale_inverse(model: MdctFlow) -> None:
    average = AveragedWeights(0.5)
    training = VocoderTraining(model, [Likelihood()])
    average.setup(lightning.Trainer(accelerator="cpu", logger=False), training, "fit")
    conv1x1 = next(m for m in model.modules() if isinstance(m, InvertibleConv1x1))
    with torch.no_grad():
        conv1x1.weight += 0.01 * torch.randn(conv1x1.weight.shape)
    training.eval()
    trainer: Any = None
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


def test_bfloat16_trains_close_to_float32(tmp_path: Path, run: Run) -> None:
    losses: dict[Any, list[float]] = {"32-true": [], "bf16-mixed": []}

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            losses[trainer.precision].append(float(trainer.callback_metrics["train/nll"]))

    for precision in losses:
        terms = [Likelihood(), Stft(start=0.5), Mel(start=0.5)]
        run(tmp_path / precision, terms, 6, [Watch()], precision=precision)
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], abs=0.1)


def test_progress_is_a_line_in_a_log_and_a_bar_in_a_terminal(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "log", max_steps=4)
    first, last = capsys.readouterr().err.splitlines()
    likelihood = r"log-likelihood -?[\d.]+ in training"
    assert re.match(rf" 25% step 1, {likelihood} \(nats/sample\), ", first)
    assert re.match(rf"100% step 4, {likelihood} and -?[\d.]+ held out \(nats/sample\), ", last)
    assert "s audio/s" in last
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    run(tmp_path / "terminal", max_steps=4, max_time=timedelta(days=1))
    shown = capsys.readouterr()
    assert "100%" in shown.err
    assert "step 4" in shown.err
    assert " held out (nats/sample)" in shown.err
    assert "left" in shown.err
    assert shown.out == ""


def test_tensorboard_gets_sound_and_pictures(
    tmp_path: Path, model: MdctFlow, data: SpeechData
) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = lightning.Trainer(
        accelerator="cpu", logger=TensorBoardLogger(tmp_path, "", "board"), max_epochs=-1,
        callbacks=[HeldOutSound(2), TrainingBar()], enable_checkpointing=False,
    )  # fmt: skip
    trainer.validate(VocoderTraining(model, [Likelihood()]), data, verbose=False)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    ids = data.split.validation[:2]
    kinds = ("generated", "original")
    assert sorted(events.Tags()["audio"]) == [f"{i}/{kind}" for i in ids for kind in kinds]
    assert sorted(events.Tags()["images"]) == [f"{i}/mel" for i in ids]
    picture = events.Images(f"{ids[0]}/mel")[0]
    assert (picture.height, picture.width) == (160, 31)
    assert {"val/log_likelihood", "val/mel_distance"} <= set(events.Tags()["scalars"])


def test_validation_scores_are_what_they_say(model: MdctFlow, data: SpeechData) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, callbacks=[TrainingBar()], enable_checkpointing=False
    )
    module = VocoderTraining(model, [Likelihood()], temperature=0.3)
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
