"""The speed benchmark: what it counts, in which order it measures, how timings become rows."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from tests.conftest import scripts
from vocoder.audio import MelSpec
from vocoder.evaluation import benchmark, plots, systems
from vocoder.evaluation import tables as reports
from vocoder.evaluation.benchmark import Effort, Workload, run_benchmark
from vocoder.evaluation.results import save_result
from vocoder.evaluation.systems import PackageModel, System, count_macs, standard_systems
from vocoder.models import FAMILIES, MdctFlow, WaveNet

ROOT = Path(__file__).parents[1]
KEYS = {
    "name", "family", "engine", "device", "threads", "dtype", "batch", "audio_seconds",
    "seconds_median", "seconds_spread", "samples_per_second", "times_real_time",
    "first_audio_seconds", "measured_audio_seconds", "parameters", "gmac_per_audio_second",
    "gmac_per_second", "roofline", "peak_memory_bytes", "weights",
}  # fmt: skip
CPU = torch.device("cpu")
WORKLOADS = (Workload(1, 1), Workload(1, 4), Workload(3, 1))
EFFORT = Effort(5, seconds=0.5, audio_seconds=0.03)
MACS = 8 * 8 * 5 * 100  # of `Convolution`: channels x channels x taps x frames per second


class Clock:
    """Time that passes only where a test says so, and what was run meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slowness = 1.0
        self.runs: list[str] = []

    def __call__(self) -> float:
        return self.now

    def spend(self, name: str, seconds: float) -> None:
        self.runs.append(name)
        self.now += seconds * self.slowness


class Convolution(System):
    """A convolution of 8 to 8 channels and 5 taps over frames of 10 samples, 1,000 a second.

    Args:
        rate: samples per second, by the clock.
        first: seconds until its first chunk; None if it cannot stream.
    """

    family = "convolution"
    mel_spec = MelSpec(
        sample_rate=1000, n_fft=64, hop_length=10, win_length=64, n_mels=8, fmin=0.0, fmax=500.0
    )

    def __init__(self, name: str = "conv", rate: float = 1e4, first: float | None = None) -> None:
        self.name, self.rate, self.first = name, rate, first
        self.clock = Clock()

    def load(self, device: torch.device) -> None:
        self.module = nn.Conv1d(8, 8, 5, padding=2)

    def mel(self, frames: int) -> Tensor:
        return torch.zeros(1, 8, frames)

    def synthesize(self, mel: Tensor) -> object:
        batch, _, frames = mel.shape
        self.clock.spend(f"{self.name} {batch} x {10 * frames}", batch * frames * 10 / self.rate)
        return self.module(mel)

    def first_audio(self) -> Callable[[], object] | None:
        if self.first is None:
            return None
        seconds = self.first
        return lambda: self.clock.spend(f"{self.name} first", seconds)


def faked(entries: list[Convolution], **kwargs: Any) -> tuple[dict[str, Any], Clock]:
    """Every run by one clock."""
    clock = Clock()
    for entry in entries:
        entry.clock = clock
    options: dict[str, Any] = {"workloads": WORKLOADS, "effort": EFFORT}
    # Stands in for the matrix product, which no fake clock sees.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_matrix_product", lambda *_: Product(clock))
        result = run_benchmark(entries, device="cpu", clock=clock, **(options | kwargs))
    return result, clock


class Product(benchmark._Stopwatch):
    """A product that takes 20 ms, which at 1,024 x 1,024 are 53.7 GMAC/s."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(lambda: clock.spend("product", 0.02), clock)


def shown(result: dict[str, Any], width: int = 400) -> str:
    stream = io.StringIO()
    Console(width=width, file=stream).print(reports.benchmark(result).render())
    return stream.getvalue()


def test_systems_take_turns() -> None:
    names = ["a", "b", "c"]
    _, clock = faked([Convolution(name, first=0.2 if name == "b" else None) for name in names])
    turn = ["product"]
    for name in names:
        turn += [f"{name} 1 x 1000", f"{name} 1 x 4000", f"{name} 3 x 1000"]
        turn += ["b first"] if name == "b" else []
    in_turn = [name for name, _ in itertools.groupby(clock.runs)]
    assert in_turn[-5 * len(turn) :] == 5 * turn


def test_rows_are_the_statistics_of_the_rounds() -> None:
    a, b = Convolution("a", first=0.12), Convolution("b", rate=5e3)
    slowness = {
        f"{n}, round {i + 1} of 5": s for n in "ab" for i, s in enumerate((4, 1, 3, 2.5, 2))
    }

    def progress(done: int, total: int, label: str) -> None:
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
    assert rows["b", 1, 4]["first_audio_seconds"] == rows["b", 1, 4]["seconds_median"]


def test_slow_systems_make_less_audio_and_say_so() -> None:
    # 4 s take 40 s at this rate; a run may take half a second, which is 50 ms of audio.
    result, _ = faked([Convolution("slow", 100)])
    for row in result["rows"]:
        assert row["measured_audio_seconds"] == pytest.approx(0.03, abs=0.02)
        # Scaled to the whole workload.
        assert row["seconds_median"] == pytest.approx(10 * row["batch"] * row["audio_seconds"])
        assert row["samples_per_second"] == pytest.approx(100)
    # One that runs in parallel is never judged by a few frames.
    effort = Effort(2, seconds=0.5, audio_seconds=0.3)
    result, _ = faked([Convolution("slow", 100)], effort=effort)
    assert [row["measured_audio_seconds"] for row in result["rows"]] == [0.3, 0.3, 0.3]


def test_one_by_one_a_measurement_stands_for_longer_workloads() -> None:
    slow, quicker = Convolution("slow", 100), Convolution("quicker", 5000)
    slow.sequential = quicker.sequential = True
    result, clock = faked([slow])
    in_turn = [name for name, _ in itertools.groupby(clock.runs)]
    assert in_turn[-15:] == 5 * ["product", "slow 1 x 50", "slow 3 x 10"]
    short, long, batch = result["rows"]
    assert long["seconds_median"] == pytest.approx(4 * short["seconds_median"])
    assert long["measured_audio_seconds"] == short["measured_audio_seconds"] < 0.1
    assert batch["batch"] == 3
    # One that makes all of the shorter workload makes more of the longer one.
    rows = faked([quicker])[0]["rows"]
    assert rows[0]["measured_audio_seconds"] == 1
    assert 1 < rows[1]["measured_audio_seconds"] <= 4


def test_a_slow_first_chunk_is_timed_in_one_round() -> None:
    result, clock = faked([Convolution("slow", first=2.0)])
    assert clock.runs.count("slow first") == 2  # warm-up, timing
    assert [r["first_audio_seconds"] for r in result["rows"][:2]] == [2.0, 2.0]


def test_schema() -> None:
    result, _ = faked([Convolution("a")])
    assert set(result) == {"machine", "rows"}
    assert json.loads(json.dumps(result)) == result
    for row in result["rows"]:
        assert set(row) == KEYS
        assert (row["device"], row["dtype"]) == ("cpu", "float32")
        assert row["weights"] in ("trained", "random")
        assert row["threads"] == torch.get_num_threads()
        assert row["parameters"] == 8 * 8 * 5 + 8
        assert row["gmac_per_audio_second"] == MACS / 1e9
        assert row["peak_memory_bytes"] is None  # quick: not measured
        achieved = MACS * row["times_real_time"] / 1e9
        assert row["gmac_per_second"] == pytest.approx(achieved)
        assert row["roofline"] == pytest.approx(achieved / (1.024**3 / 0.02))
    machine = result["machine"]
    assert machine["rounds"] == 5
    assert machine["left_out"] == {}
    assert machine["cores"] >= 1
    assert machine["torch"] == torch.__version__
    assert machine["matmul_gmac_per_second"] == {"cpu": {"float32": pytest.approx(53.69, rel=1e-3)}}
    assert "plain matrix product, 54 GMAC/s in float32 (cpu)" in reports.benchmark(result).caption


def test_progress_ends_at_the_total_and_what_cannot_run_is_left_out_with_the_reason() -> None:
    class Broken(Convolution):
        def synthesize(self, mel: Tensor) -> object:
            if len(mel) > 1:
                raise RuntimeError("no batches here\nand more")
            return super().synthesize(mel)

    calls: list[tuple[int, int, str]] = []
    result, _ = faked([Broken("broken"), Convolution("b")], progress=lambda *a: calls.append(a))
    assert [done for done, _, _ in calls] == list(range(len(calls)))
    assert {total for _, total, _ in calls[1:]} == {calls[-1][0]}
    assert calls[-1][2] == "done"
    assert "b, round 5 of 5" in [label for _, _, label in calls]
    assert {r["name"] for r in result["rows"]} == {"b"}
    assert result["machine"]["left_out"] == {"broken": "no batches here"}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vocos", None)
    result = run_benchmark([systems.Vocos()], device="cpu", effort=EFFORT)
    assert result["rows"] == []
    assert 'pip install "flow-vocoder[bench]"' in result["machine"]["left_out"]["Vocos"]
    assert "Left out: Vocos." in shown(result)
    with pytest.raises(ValueError, match="nothing to plot"):
        plots.benchmark(result, "benchmark.png")


@pytest.mark.parametrize(
    "name, message", [("tpu", "auto, cpu or cuda"), ("cuda", "no device cuda")]
)
def test_devices(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        run_benchmark([Convolution()], device=name)


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    result, _ = faked([Convolution()], threads=before + 1)
    assert {r["threads"] for r in result["rows"]} == {before + 1}
    assert torch.get_num_threads() == before


# -- multiply-accumulates ----------------------------------------------------------------------


def test_multiply_accumulates_of_fourier_transforms_and_products_in_place() -> None:
    x = torch.randn(3, 1024)
    assert count_macs(lambda: torch.fft.rfft(x)) == 3 * 2.5 * 1024 * 10 / 2
    spectrum = torch.fft.rfft(x)
    assert count_macs(lambda: torch.fft.irfft(spectrum)) == 3 * 2.5 * 1024 * 10 / 2
    assert count_macs(lambda: torch.fft.fft(x + 0j)) == 3 * 5 * 1024 * 10 / 2
    a, b, c = torch.randn(4, 5), torch.randn(5, 6), torch.zeros(4, 6)
    for run in (lambda: c.addmm_(a, b), lambda: torch.addmm(c, a, b, out=c.clone())):
        assert count_macs(run) == 4 * 5 * 6
    stacks = torch.zeros(3, 4, 6), torch.randn(3, 4, 5), torch.randn(3, 5, 6)
    assert count_macs(lambda: stacks[0].baddbmm_(*stacks[1:])) == 3 * 4 * 5 * 6


def test_a_flow_counts_as_its_layers_do(tiny_flow: Callable[..., MdctFlow]) -> None:
    flow = tiny_flow(n_flows=2, channels=16, n_layers=2, scale_channels=16)
    system = PackageModel("flow", flow)
    system.load(CPU)
    # Per frame: two steps of a 1x1 convolution of 256 channels and a coupling on 128 of them.
    mixing = 256 * 256
    stack = 128 * 16 + 80 * 2 * 2 * 16 + 2 * 3 * 16 * 32 + (16 * 32 + 16 * 16) + 16 * 256
    scale = 80 * 256 + 80 * 16 * 5 + 16 * 256
    network = 2 * (mixing + stack) + scale
    frames = 62.5  # per second
    macs = system.multiply_accumulates()
    # The MDCT is in it too: at most a matrix of 512 x 256 for each frame.
    assert network * frames <= macs <= (network + 1.1 * 512 * 256) * frames
    # The first pass computes nothing that later ones reuse.
    assert system.multiply_accumulates() == macs
    assert system.parameters == sum(p.numel() for p in flow.fused().parameters())


def small_wavenet() -> WaveNet:
    return WaveNet("speech-16k", channels=8, n_layers=4, cycle=2, condition_channels=4)


# -- the real systems, small -------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_every_kind_of_system_makes_the_audio_it_says(
    batch: int, tiny_flow: Callable[..., MdctFlow]
) -> None:
    found: list[System] = [
        PackageModel("flow", tiny_flow),
        PackageModel("flow, bfloat16", tiny_flow, dtype=torch.bfloat16),
        PackageModel("wavenet", small_wavenet, engine="naive"),
        systems.GriffinLim("speech-16k"),
    ]
    if importlib.util.find_spec("vocos"):
        found.append(systems.Vocos())
    for system in found:
        system.load(CPU)
        job = system.job(batch, 1)
        audio = job.run()
        assert isinstance(audio, Tensor)
        assert audio.shape == (batch, job.samples), system.name
        assert job.items == batch
        assert audio.isfinite().all()
    exact, rough = (system.job(1, 4096).run() for system in found[:2])
    assert isinstance(exact, Tensor)
    assert isinstance(rough, Tensor)
    assert 0 < (exact - rough).abs().max() < 0.1 * exact.abs().max()
    assert found[1].dtype == "bfloat16"
    assert found[2].sequential
    assert found[3].parameters == 0


def test_the_graph_of_a_flow_makes_its_audio(tiny_flow: Callable[..., MdctFlow]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    system = systems.OnnxModel("flow", tiny_flow)
    system.load(CPU)
    job = system.job(2, 600)
    assert (job.items, job.samples) == (2, 768)
    audio = job.run()
    assert isinstance(audio, np.ndarray)
    mel = system.mel(3).expand(2, -1, -1)
    np.testing.assert_allclose(audio, system.model.synthesize(mel).numpy(), atol=1e-4)
    assert system.multiply_accumulates() > 0


def test_first_audio_is_one_frame_of_a_stream(tiny_flow: Callable[..., MdctFlow]) -> None:
    system = PackageModel("flow", tiny_flow)
    system.load(CPU)
    first = system.first_audio()
    assert first is not None
    chunk = first()
    assert isinstance(chunk, Tensor)
    assert chunk.shape == (256,)


def test_a_small_run_from_end_to_end(tiny_flow: Callable[..., MdctFlow], tmp_path: Path) -> None:
    model = tiny_flow()
    mel = model.mel(torch.zeros(256 * 5))
    before = model.synthesize(mel)
    effort = Effort(2, seconds=0.02, audio_seconds=0.01, memory=sys.platform != "win32")
    system = PackageModel("mine", model, "trained")
    result = run_benchmark([system], device="cpu", effort=effort, workloads=WORKLOADS[:1])
    (row,) = result["rows"]
    assert result["machine"]["left_out"] == {}
    assert row["weights"] == "trained"
    assert row["family"] == "mdct-flow"
    # Measured in another process, to which the model has to travel.
    assert (row["peak_memory_bytes"] is None) == (not effort.memory)
    torch.testing.assert_close(model.synthesize(mel), before)  # the caller's model stays

    path = save_result(result, tmp_path / "benchmark.json")
    assert json.loads(path.read_text()) == result
    image = plots.benchmark(result, tmp_path / "benchmark.png")
    assert image.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
    text = shown(result)
    assert "mine" in text
    assert "trained" in text
    narrow = shown(result, 80)  # the same cells, in two blocks
    assert {word for word in text.split() if "─" not in word} <= set(narrow.split())
    assert max(map(len, narrow.splitlines())) <= 80


def test_the_standard_systems_are_every_family_on_every_engine_but_the_references(
    tiny_flow: Callable[..., MdctFlow],
) -> None:
    found = standard_systems({"mine": tiny_flow()})
    names = [system.name for system in found]
    assert names[0] == "mine"
    assert found[0].weights == "trained"
    assert len(set(names)) == len(names)
    for model in FAMILIES.values():
        if issubclass(model, WaveNet):
            own = [name for name in names if name.startswith(f"{model.title}, ")]
            assert own == [f"{model.title}, {engine}" for engine in model.engines[:-1]]
        else:
            assert any(name.startswith(model.title) for name in names), model.title
    assert {"Vocos", "Griffin-Lim", "MDCT flow, ONNX", "MDCT flow, bfloat16"} <= set(names)
    assert "MDCT flow, ONNX" not in [system.name for system in standard_systems(quick=True)]


# -- the tables in the documents ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> Iterator[Any]:
    with scripts("docs/scripts") as script:
        yield script("tables")


def measured() -> dict[str, Any]:
    return faked([Convolution("slow", 95), Convolution("quick", 2e5)])[0]


def test_the_table_has_every_row_and_marks_what_is_scaled(tables: Any) -> None:
    text = tables.results.benchmark_table(measured())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["quick", "slow"]
    assert "| 0.095* | 0.095* | 0.095* |" in lines[3]
    assert lines[2].count("*") == 0
    assert "| 200 | 200 | 200 |" in lines[2]


def test_a_document_that_differs_from_its_measurement_is_found(tables: Any, tmp_path: Path) -> None:
    (tmp_path / "docs/results").mkdir(parents=True)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark:begin -->\n<!-- benchmark:end -->\nafter\n")
    result = measured()
    source = save_result(result, tmp_path / "docs/results/benchmark.json")
    assert tables.update(tmp_path, check=True) == [readme]
    assert tables.update(tmp_path) == [readme]
    assert tables.update(tmp_path, check=True) == []
    written = readme.read_text()
    assert written.startswith("before\n<!-- benchmark:begin -->\n| vocoder |")
    assert written.endswith("<!-- benchmark:end -->\nafter\n")
    # A figure typed over, and a new measurement, are both found.
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
        ("<!-- benchmark:begin --><!-- benchmark:end -->", r"no file docs/results/benchmark\.json"),
    ],
)
def test_broken_markers_are_one_sentence(
    tables: Any, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        tables.filled(text, tmp_path)


def test_the_documents_say_what_was_measured(tables: Any) -> None:
    for name, (file, _) in tables.TABLES.items():
        marked = [d for d in tables.documents() if f"<!-- {name}:begin -->" in d.read_text("utf-8")]
        assert marked, f"{name} of {file} is shown by no document"
    rows = json.loads((ROOT / "docs/results/benchmark.json").read_text("utf-8"))["rows"]
    assert rows
    assert all(set(row) == KEYS for row in rows)
    out_of_date = tables.update(check=True)
    assert not out_of_date, "run `python docs/scripts/tables.py`"
