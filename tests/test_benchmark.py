"""The speed benchmark: what it counts, in which order it measures, and what becomes of timings."""

from __future__ import annotations

import importlib.util
import io
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from vocoder.evaluation import benchmark, systems
from vocoder.evaluation.benchmark import Effort, Workload, run_benchmark
from vocoder.evaluation.results import save_result
from vocoder.evaluation.systems import Job, PackageModel, System, standard_systems
from vocoder.models import FAMILIES, WaveGlow
from vocoder.models.autoregressive import AutoregressiveVocoder
from vocoder.models.wavenet import WaveNet

ROOT = Path(__file__).parents[1]
KEYS = {
    "name", "family", "engine", "device", "threads", "dtype", "batch", "audio_seconds",
    "seconds_median", "seconds_spread", "samples_per_second", "times_real_time",
    "first_audio_seconds", "measured_audio_seconds", "parameters", "gmac_per_audio_second",
    "gmac_per_second", "roofline", "peak_memory_bytes", "weights",
}  # fmt: skip
CPU = torch.device("cpu")
SMALL = Effort(2, parallel_seconds=0.02, sequential_seconds=0.02, parallel_audio_seconds=0.01)


class Convolution(System):
    """A convolution of 8 to 8 channels and 5 taps, at 1,000 samples per second."""

    family = "convolution"

    def __init__(self, name: str = "conv", rate: float = 1e6, streams: bool = False) -> None:
        self.name = name
        self.rate = rate  # samples per second, by the clock of FakeTimer
        self.streams = streams
        self.loaded_on: list[torch.device] = []

    @property
    def sample_rate(self) -> int:
        return 1000

    @property
    def module(self) -> nn.Module:
        return self._module

    def load(self, device: torch.device) -> None:
        self._module = nn.Conv1d(8, 8, 5, padding=2)
        self.loaded_on.append(device)

    def job(self, batch: int, samples: int) -> Job:
        samples = -(-samples // 10) * 10  # whole frames
        x = torch.zeros(batch, 8, samples)
        run = Tagged(lambda: self._module(x), f"{self.name} {batch}", batch * samples / self.rate)
        return Job(run, samples, batch)

    def first_audio(self) -> Callable[[], object] | None:
        return Tagged(lambda: None, f"{self.name} first", 0.003) if self.streams else None


class Tagged:
    """A call with a name, and the seconds that it would take."""

    def __init__(self, call: Callable[[], object], name: str, seconds: float) -> None:
        self.call, self.name, self.seconds = call, name, seconds

    def __call__(self) -> object:
        return self.call()


class FakeTimer:
    """Seconds that jobs say they take, times a jitter that is never the same."""

    def __init__(self) -> None:
        self.log: list[tuple[str, float]] = []

    def __call__(self, run: Callable[[], object], device: torch.device) -> float:
        assert isinstance(run, Tagged)
        run()
        seconds = run.seconds * (1 + 0.01 * (len(self.log) * 7 % 11))
        self.log.append((run.name, seconds))
        return seconds


WORKLOADS = (Workload(1, 1), Workload(1, 4), Workload(3, 1))
EFFORT = Effort(5, parallel_seconds=0.5, sequential_seconds=0.5, parallel_audio_seconds=0.03)


def faked(entries: list[System], **kwargs: Any) -> tuple[dict[str, Any], FakeTimer]:
    timer = FakeTimer()
    result = run_benchmark(
        entries, device="cpu", workloads=WORKLOADS, effort=EFFORT, timer=timer, **kwargs
    )
    return result, timer


def shown(result: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(width=300, file=stream).print(benchmark.render_table(result))
    return stream.getvalue()


def test_systems_take_turns() -> None:
    names = ["a", "b", "c"]
    _, timer = faked([Convolution(name, 1e4, streams=name == "b") for name in names])
    turn = ["a 1", "a 1", "a 3", "b 1", "b 1", "b 3", "b first", "c 1", "c 1", "c 3"]
    measured = [name for name, _ in timer.log][-5 * len(turn) :]
    assert measured == 5 * turn


def test_rows_are_the_statistics_of_the_timings() -> None:
    result, timer = faked([Convolution("a", 1e4, streams=True), Convolution("b", 5e3)])
    assert len(result["rows"]) == 6
    by_name = {name: [s for n, s in timer.log if n == name] for name, _ in timer.log}
    row = next(r for r in result["rows"] if r["name"] == "a" and r["batch"] == 3)
    timings = by_name["a 3"][-5:]
    # All of the workload was made: 3 x 1 s at 1,000 samples per second.
    assert row["measured_audio_seconds"] == 3
    assert row["audio_seconds"] == 1
    assert row["seconds_median"] == pytest.approx(statistics.median(timings), rel=1e-12)
    spread = np.percentile(timings, 75) - np.percentile(timings, 25)
    assert spread > 0
    assert row["seconds_spread"] == pytest.approx(spread, rel=1e-12)
    assert row["samples_per_second"] == pytest.approx(3000 / row["seconds_median"], rel=1e-12)
    assert row["times_real_time"] == pytest.approx(3 / row["seconds_median"], rel=1e-12)
    assert row["first_audio_seconds"] == row["seconds_median"]  # batches come whole
    alone = next(r for r in result["rows"] if r["name"] == "a" and r["audio_seconds"] == 4)
    assert alone["first_audio_seconds"] == statistics.median(by_name["a first"][-5:])
    whole = next(r for r in result["rows"] if r["name"] == "b" and r["audio_seconds"] == 4)
    assert whole["first_audio_seconds"] == whole["seconds_median"]


def test_slow_contenders_make_less_audio_and_say_so() -> None:
    # 4 s take 40 s at this rate; a timing may take half a second, which is 50 ms of audio.
    result, timer = faked([Convolution("slow", 100, streams=True)])
    rows = {(r["batch"], r["audio_seconds"]): r for r in result["rows"]}
    assert 0.01 <= rows[1, 4]["measured_audio_seconds"] <= 0.06
    assert max(seconds for _, seconds in timer.log) < 0.6
    for (batch, seconds), row in rows.items():
        # Scaled to the whole workload, up to the jitter.
        assert row["seconds_median"] == pytest.approx(10 * batch * seconds, rel=0.1)
        assert row["samples_per_second"] == pytest.approx(100, rel=0.1)


def test_what_runs_in_parallel_is_never_judged_by_a_few_frames() -> None:
    effort = Effort(2, parallel_seconds=0.5, sequential_seconds=0.5, parallel_audio_seconds=0.3)
    result = run_benchmark(
        [Convolution("slow", 100)],
        device="cpu",
        workloads=WORKLOADS,
        effort=effort,
        timer=FakeTimer(),
    )
    assert [row["measured_audio_seconds"] for row in result["rows"]] == [0.3, 0.3, 0.3]


def test_one_by_one_a_measurement_stands_for_longer_workloads() -> None:
    slow = Convolution("slow", 100)
    slow.sequential = True
    result, timer = faked([slow])
    assert [name for name, _ in timer.log][-10:] == 5 * ["slow 1", "slow 3"]
    short, long, batch = result["rows"]
    assert long["seconds_median"] == pytest.approx(4 * short["seconds_median"])
    assert long["measured_audio_seconds"] == short["measured_audio_seconds"] < 0.1
    assert batch["batch"] == 3
    # One that makes all of the shorter workload makes more of the longer one.
    quicker = Convolution("quicker", 5000)
    quicker.sequential = True
    rows = faked([quicker])[0]["rows"]
    assert rows[0]["measured_audio_seconds"] == 1
    assert 2 < rows[1]["measured_audio_seconds"] < 3


def test_a_slow_first_chunk_is_timed_once() -> None:
    class Slow(Convolution):
        def first_audio(self) -> Callable[[], object]:
            return Tagged(lambda: None, "slow first", 2.0)

    result, timer = faked([Slow("slow", 1e4)])
    first = [seconds for name, seconds in timer.log if name == "slow first"]
    assert len(first) == 1
    assert [r["first_audio_seconds"] for r in result["rows"][:2]] == 2 * first


def test_schema() -> None:
    result, _ = faked([Convolution("a", 1e4)])
    assert set(result) == {"machine", "rows"}
    assert json.loads(json.dumps(result)) == result
    for row in result["rows"]:
        assert set(row) == KEYS
        assert row["device"] == "cpu"
        assert row["dtype"] == "float32"
        assert row["weights"] in ("trained", "random")
        assert row["threads"] == torch.get_num_threads()
        assert row["parameters"] == 8 * 8 * 5 + 8
    machine = result["machine"]
    assert machine["rounds"] == 5
    assert machine["left_out"] == {}
    assert machine["cores"] >= 1
    assert machine["load_before"] >= 0
    assert machine["torch"] == torch.__version__


def test_multiply_accumulates_of_a_convolution() -> None:
    result, _ = faked([Convolution()])
    expected = 8 * 8 * 5 * 1000  # channels x channels x taps x samples per second
    assert {r["gmac_per_audio_second"] for r in result["rows"]} == {expected / 1e9}


def test_the_roofline_is_a_plain_product_of_the_same_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        benchmark._Product, "gmac_per_second", property(lambda self: {"float32": 50.0}[self.dtype])
    )
    result, _ = faked([Convolution("a", 1e4)])
    assert result["machine"]["matmul_gmac_per_second"] == {"cpu": {"float32": 50.0}}
    for row in result["rows"]:
        audio = row["batch"] * row["audio_seconds"]
        achieved = 8 * 8 * 5 * 1000 * audio / row["seconds_median"] / 1e9
        assert row["gmac_per_second"] == pytest.approx(achieved)
        assert row["roofline"] == pytest.approx(achieved / 50)
    assert "plain matrix product, 50 GMAC/s in float32 (cpu)" in benchmark.caption(result)
    # Results of before have no such figures, and are shown without.
    for row in result["rows"]:
        del row["gmac_per_second"], row["roofline"]
    del result["machine"]["matmul_gmac_per_second"]
    assert "plain" not in benchmark.caption(result)
    headings, cells = benchmark.table(result)
    assert cells[0][headings.index("roofline")] == "–"


def test_the_product_is_timed_in_turns_with_the_systems() -> None:
    product = benchmark._Product(CPU, "bfloat16")
    product.measure()
    product.measure()
    assert len(product.timings) == 2
    assert product.gmac_per_second == pytest.approx(
        1024**3 / 1e9 / statistics.median(product.timings)
    )


def test_the_flow_in_bfloat16_is_one() -> None:
    def build() -> WaveGlow:
        return WaveGlow(
            "speech-16k", squeeze="lapped", n_group=256, n_flows=1, n_early_every=0, channels=8,
            n_layers=1, weight_norm=False,
        )  # fmt: skip

    exact, rough = PackageModel("a", build), systems.BFloat16Flow("b", build)
    for system in (exact, rough):
        torch.manual_seed(0)
        system.load(CPU)
        system.job(1, 4096).run()
    assert (exact.dtype, rough.dtype) == ("float32", "bfloat16")
    # What the first pass folds is no part of the count.
    torch.manual_seed(0)
    fresh = PackageModel("c", build)
    fresh.load(CPU)
    assert fresh.multiply_accumulates() == exact.multiply_accumulates()
    assert rough.model._folding.of(rough.model).dtype == torch.bfloat16  # type: ignore[attr-defined]


def test_multiply_accumulates_of_fourier_transforms() -> None:
    x = torch.randn(3, 1024)
    assert systems.count_macs(lambda: torch.fft.rfft(x)) == 3 * 2.5 * 1024 * 10 / 2
    spectrum = torch.fft.rfft(x)
    assert systems.count_macs(lambda: torch.fft.irfft(spectrum)) == 3 * 2.5 * 1024 * 10 / 2
    assert systems.count_macs(lambda: torch.fft.fft(x + 0j)) == 3 * 5 * 1024 * 10 / 2


def test_multiply_accumulates_of_products_in_place() -> None:
    x, y, z = torch.randn(4, 5), torch.randn(5, 6), torch.zeros(4, 6)
    for run in (lambda: z.addmm_(x, y), lambda: torch.addmm(z, x, y, out=z.clone())):
        assert systems.count_macs(run) == 4 * 5 * 6
    stacks = torch.zeros(3, 4, 6), torch.randn(3, 4, 5), torch.randn(3, 5, 6)
    assert systems.count_macs(lambda: stacks[0].baddbmm_(*stacks[1:])) == 3 * 4 * 5 * 6


def test_progress_ends_at_the_total() -> None:
    calls: list[tuple[int, int, str]] = []
    faked([Convolution("a", 1e4), Convolution("b", 1e4)], progress=lambda *a: calls.append(a))
    assert [done for done, _, _ in calls] == list(range(len(calls)))
    assert {total for _, total, _ in calls} == {calls[-1][0]}
    assert calls[-1][2] == "done"
    assert "b: 3 × 1 s, round 5 of 5" in [label for _, _, label in calls]


def test_who_cannot_run_is_left_out_with_the_reason() -> None:
    class Broken(Convolution):
        def job(self, batch: int, samples: int) -> Job:
            if batch > 1:
                raise RuntimeError("no batches here\nand more")
            return super().job(batch, samples)

    calls: list[tuple[int, int, str]] = []
    entries = [Broken("broken", 1e4), Convolution("b", 1e4)]
    result, _ = faked(entries, progress=lambda *a: calls.append(a))
    assert {r["name"] for r in result["rows"]} == {"b"}
    assert result["machine"]["left_out"] == {"broken": "no batches here"}
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _, _ in calls] == list(range(len(calls)))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    result = run_benchmark([systems.Vocos()], device="cpu", effort=SMALL)
    assert result["rows"] == []
    assert 'pip install "flow-vocoder[bench]"' in result["machine"]["left_out"]["Vocos"]
    assert "Left out: Vocos." in shown(result)
    with pytest.raises(ValueError, match="nothing to plot"):
        benchmark.plot(result, "benchmark.png")


@pytest.mark.parametrize("name, message", [("tpu", "auto, cpu or cuda"), ("cuda", "no CUDA")])
def test_devices(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        run_benchmark([Convolution()], device=name)


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    result = run_benchmark([Convolution()], device="cpu", effort=SMALL, threads=before + 1)
    assert {r["threads"] for r in result["rows"]} == {before + 1}
    assert torch.get_num_threads() == before


def test_resident_peak_sees_what_is_allocated_and_freed() -> None:
    peak = benchmark._resident_peak(lambda: torch.ones(16 * 2**20).sum())
    if peak is None:
        pytest.skip("resident memory is read on Linux only")
    assert 60 * 2**20 < peak < 100 * 2**20


def test_without_linux_memory_is_unknown_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(key: str) -> int:
        raise OSError(key)

    monkeypatch.setattr(benchmark, "_status_bytes", refuse)
    result, _ = faked([Convolution("a", 1e4)])
    assert [row["peak_memory_bytes"] for row in result["rows"]] == [None, None, None]
    assert benchmark.table(result)[1][0][-1] == "–"


# -- the real systems, small ----------------------------------------------------------------


def small_flow() -> WaveGlow:
    return WaveGlow(
        "speech-16k", squeeze="lapped", n_group=256, n_flows=2, n_early_every=0, channels=16,
        n_layers=2, mixing=["even-odd", "half-swap"], conditional_scale=True, scale_channels=16,
    )  # fmt: skip


def small_wavenet() -> WaveNet:
    return WaveNet("speech-16k", channels=8, n_layers=4, cycle=2, condition_channels=4)


def test_a_flow_counts_as_its_layers_do() -> None:
    system = PackageModel("flow", small_flow)
    system.load(CPU)
    # Per frame: two steps of a 1x1 convolution of 256 channels and a coupling on 128 of them.
    mixing = 256 * 256
    stack = 128 * 16 + 80 * 2 * 2 * 16 + 2 * 3 * 16 * 32 + (16 * 32 + 16 * 16) + 16 * 256
    scale = 80 * 256 + 80 * 16 * 5 + 16 * 256
    network = 2 * (mixing + stack) + scale
    frames = 62.5  # per second
    macs = system.multiply_accumulates()
    # The lapped transform is in it too: at most a matrix of 512 x 256 for each frame.
    assert network * frames <= macs <= (network + 1.1 * 512 * 256) * frames


def test_the_parallel_count_is_that_of_cached_generation() -> None:
    entry = systems.AutoregressiveModel("cached", small_wavenet, engine="cached")
    entry.load(CPU)
    job = entry.job(1, 4 * 256)
    counted = systems.count_macs(job.run) * entry.sample_rate / job.samples
    assert entry.multiply_accumulates() == pytest.approx(counted, rel=0.02)


def test_naive_wavenet_is_timed_in_the_steady_state() -> None:
    torch.manual_seed(0)
    model = small_wavenet()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    naive = systems.NaiveWaveNet("naive", model)
    naive.load(CPU)
    job = naive.job(2, 3)
    made = job.run()
    assert isinstance(made, torch.Tensor)
    assert made.shape == (1, 3)
    assert (job.items, job.samples) == (1, 3)
    # A sample costs a pass over at least the receptive field, all taps of all layers.
    field = model.stack.receptive_field
    cached = systems.AutoregressiveModel("cached", model, engine="cached")
    cached.load(CPU)
    per_sample = naive.multiply_accumulates() / naive.sample_rate
    assert per_sample > 0.9 * field * cached.multiply_accumulates() / cached.sample_rate


@pytest.mark.parametrize("batch", [1, 2])
def test_every_kind_of_contender_makes_the_audio_it_says(batch: int) -> None:
    entries: list[System] = [
        PackageModel("flow", small_flow),
        systems.AutoregressiveModel("wavenet", small_wavenet, engine="cached"),
        systems.GriffinLim("speech-16k"),
        systems.TorchaudioWaveRNN(),
    ]
    if importlib.util.find_spec("vocos"):
        entries.append(systems.Vocos())
    for entry in entries:
        entry.load(CPU)
        job = entry.job(batch, 1)
        audio = job.run()
        assert isinstance(audio, torch.Tensor)
        assert job.items == batch
        assert audio.numel() == batch * job.samples, entry.name
        assert audio.isfinite().all()


def test_the_graph_of_a_flow_makes_its_audio() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    entry = systems.OnnxFlow("flow", small_flow)
    entry.load(CPU)
    job = entry.job(2, 600)
    assert (job.items, job.samples) == (2, 768)
    made = job.run()
    assert isinstance(made, np.ndarray)
    mel = entry.mel(3).expand(2, -1, -1)
    np.testing.assert_allclose(made, entry.model.synthesize(mel).numpy(), atol=1e-4)


def test_first_audio_is_one_frame_of_a_stream() -> None:
    entry = PackageModel("flow", small_flow)
    entry.load(CPU)
    first = entry.first_audio()
    assert first is not None
    chunk = first()
    assert isinstance(chunk, torch.Tensor)
    assert chunk.shape == (256,)


def test_a_small_run_from_end_to_end(tmp_path: Path) -> None:
    model = small_flow().eval()
    audio = torch.zeros(256 * 5)
    before = model.synthesize(model.mel(audio))
    entries: list[System] = [
        PackageModel("flow", model, "trained"),
        systems.GriffinLim("speech-16k"),
    ]
    result = run_benchmark(entries, device="cpu", effort=SMALL, workloads=WORKLOADS[:1])
    rows = {row["name"]: row for row in result["rows"]}
    assert result["machine"]["left_out"] == {}
    assert rows["flow"]["weights"] == "trained"
    assert rows["flow"]["parameters"] == sum(p.numel() for p in model.fused().parameters())
    assert rows["Griffin-Lim"]["parameters"] == 0
    assert 0 < rows["flow"]["first_audio_seconds"] < 60
    torch.testing.assert_close(model.synthesize(model.mel(audio)), before)

    path = save_result(result, tmp_path / "benchmark.json")
    assert json.loads(path.read_text()) == result
    image = benchmark.plot(result, tmp_path / "benchmark.png")
    assert image.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
    text = shown(result)
    assert "Griffin-Lim" in text
    assert "trained" in text


def test_the_standard_systems_are_every_family_on_every_engine() -> None:
    trained = small_flow()
    entries = standard_systems({"mine": trained})
    names = [entry.name for entry in entries]
    assert names[0] == "mine"
    assert entries[0].weights == "trained"
    assert len(set(names)) == len(names)
    for model in FAMILIES.values():
        title = model.__name__
        if issubclass(model, AutoregressiveVocoder):
            assert {f"{title}, {engine}" for engine in model.engines} <= set(names)
        else:
            assert any(name.startswith(title) for name in names), title
    assert {"Vocos", "Griffin-Lim", "WaveRNN (torchaudio)"} <= set(names)


def test_the_lapped_flow_is_that_of_the_recipe() -> None:
    text = (ROOT / "recipes/ljspeech/config/mdct.yaml").read_text()
    stated = yaml.safe_load(text)["model"]["init_args"]
    assert stated == {"mel_spec": "ljspeech", **systems.LAPPED_FLOW}


# -- the tables in the documents -----------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs/tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))  # scripts beside each other
        spec.loader.exec_module(module)
    return module


def measured() -> dict[str, Any]:
    slow = Convolution("slow", 100)
    return faked([slow, Convolution("quick", 2e5, streams=True)])[0]


def test_the_table_has_every_row_and_marks_what_is_scaled(tables: ModuleType) -> None:
    result = measured()
    text = tables.benchmark_table(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["quick", "slow"]
    speeds = {r["audio_seconds"]: r["times_real_time"] for r in result["rows"] if r["batch"] == 1}
    assert "| 0.095* |" in lines[3]
    assert lines[3].count("*") == 3
    assert lines[2].count("*") == 0
    assert f"| {speeds[4]:.0f} |" in lines[2]


def test_a_document_that_differs_from_its_measurement_is_found(
    tables: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark:begin -->\n<!-- benchmark:end -->\nafter\n")
    result = measured()
    source = save_result(result, tmp_path / "docs/benchmark.json")
    assert tables.update(tmp_path, check=True) == [readme]
    assert tables.update(tmp_path) == [readme]
    assert tables.update(tmp_path, check=True) == []
    written = readme.read_text()
    assert written.startswith("before\n<!-- benchmark:begin -->\n| vocoder |")
    assert written.endswith("<!-- benchmark:end -->\nafter\n")
    # A figure typed over, and a measurement made anew, are both found.
    readme.write_text(written.replace("| 0.095* |", "| 0.99* |", 1))
    assert tables.update(tmp_path, check=True) == [readme]
    readme.write_text(written)
    result["rows"][0]["times_real_time"] *= 2
    save_result(result, source)
    assert tables.update(tmp_path, check=True) == [readme]


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- benchmark:begin -->", "once each"),
        ("<!-- benchmark:end --> <!-- benchmark:begin -->", "behind"),
        (2 * "<!-- benchmark:begin --><!-- benchmark:end -->", "once each"),
        ("<!-- benchmark:begin --><!-- benchmark:end -->", r"no file docs/benchmark\.json"),
    ],
)
def test_broken_markers_are_one_sentence(
    tables: ModuleType, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tables.filled(text, tmp_path)


def test_the_documents_say_what_was_measured(tables: ModuleType) -> None:
    for name, (file, _) in tables.TABLES.items():
        marked = [d for d in tables.documents() if f"<!-- {name}:begin -->" in d.read_text("utf-8")]
        assert marked, f"{name} of {file} is shown by no document"
    rows = json.loads((ROOT / "docs/benchmark.json").read_text("utf-8"))["rows"]
    assert rows
    assert all(set(row) == KEYS for row in rows)
    out_of_date = tables.update(check=True)
    assert not out_of_date, "run `python docs/tables.py`"
