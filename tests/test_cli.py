"""The command as a user types it: a process, files, exit codes, one sentence on error."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import vocoder
from vocoder import cli
from vocoder.models import WaveGlow, load_checkpoint

SAMPLE = Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs/ru_0024.flac"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = WaveGlow(
        mel_spec="speech-16k",
        squeeze="lapped",
        n_group=256,
        n_flows=1,
        n_early_every=0,
        channels=8,
        n_layers=1,
        conditional_scale=True,
    )
    return model.save(tmp_path_factory.mktemp("run") / "model")


@dataclass
class Result:
    """What a process would leave behind."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Result:
    """The command within this process, since starting torch anew takes seconds each time."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["vocoder", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def test_as_a_process() -> None:
    command = [sys.executable, "-m", "vocoder.cli"]
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"flow-vocoder {vocoder.__version__}"
    bad = [*command, "info", "no/such/model"]
    result = subprocess.run(bad, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("vocoder: there is no checkpoint at")


def test_resynthesize_writes_audio_of_the_same_length(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    result = run("resynthesize", SAMPLE, "-o", out, "--checkpoint", checkpoint)
    assert result.returncode == 0, result.stderr
    assert "times real time" in result.stdout
    original, rate = soundfile.read(SAMPLE)
    audio, out_rate = soundfile.read(out)
    assert out_rate == rate
    assert audio.shape == original.shape
    # Even untrained the scale follows the mel, so loud stretches are loud.
    blocks = len(audio) // 1600 * 1600
    loudness = [np.log(x[:blocks].reshape(-1, 1600).std(axis=1) + 1e-4) for x in (original, audio)]
    assert np.corrcoef(loudness)[0, 1] > 0.9


def test_synthesize_reads_a_mel_and_is_repeatable(checkpoint: Path, tmp_path: Path) -> None:
    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(SAMPLE, model.sample_rate)
    mel = model.mel(samples).numpy()
    for name, array in (("a", mel), ("b", mel[None])):  # a batch of one is taken for what is in it
        np.save(tmp_path / f"{name}.npy", array)
        arguments = ["-c", checkpoint, "--seed", 3, "--temperature", 0.5]
        made = ["-o", tmp_path / f"{name}.wav", *arguments]
        assert run("synthesize", tmp_path / f"{name}.npy", *made).returncode == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_denoise_works_alone_and_in_the_other_commands(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint)
    for name, parameter in model.named_parameters():
        if name.endswith("end.bias"):  # an untrained flow makes nothing of nothing
            parameter.data.add_(0.1)
    hums = ["-c", model.save(tmp_path / "model")]
    plain, clean, both = (tmp_path / f"{name}.wav" for name in ("plain", "clean", "both"))
    assert run("resynthesize", SAMPLE, "-o", plain, *hums).returncode == 0
    assert run("denoise", plain, "-o", clean, *hums, "--strength", 0.3).returncode == 0
    assert run("resynthesize", SAMPLE, "-o", both, *hums, "--denoise", 0.3).returncode == 0
    first, second, third = (vocoder.read_audio(path)[0] for path in (plain, clean, both))
    assert len(first) == len(second) == len(third)
    assert (first - second).abs().max() > 0.01
    assert (second - third).abs().max() < 1e-3  # but for the 16 bits in between
    again = run("denoise", plain, "-o", clean, *hums)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_info_as_text_and_json(checkpoint: Path) -> None:
    facts = json.loads(run("info", checkpoint, "--json").stdout)
    assert facts["family"] == "waveglow"
    assert facts["sample_rate"] == 16000
    assert facts["config"]["squeeze"] == "lapped"
    text = run("info", checkpoint).stdout
    assert "sample_rate" in text
    assert "lapped" in text
    facts = json.loads(run("info", "acoustic", "--json").stdout)
    assert facts["family"] == "acoustic model"
    assert facts["config"]["n_flows"] > 0
    assert "no model 'nothing'" in run("info", "nothing").stderr


def test_export_writes_a_graph(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="extra export is not installed")
    result = run("export", "--onnx", tmp_path / "model.onnx", "-c", checkpoint)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "model.onnx").stat().st_size > 1000
    assert run("export", "--onnx", tmp_path / "model.onnx", "-c", checkpoint).returncode == 2


def test_help() -> None:
    for command in ((), ("synthesize",), ("resynthesize",), ("export",), ("benchmark",), ("info",)):
        assert run(*command, "--help").returncode == 0
    assert "[default: 0.003]" in run("denoise", "--help").stdout


def test_errors_are_one_sentence_and_write_nothing(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    np.save(tmp_path / "db.npy", np.full((80, 50), -60.0, dtype=np.float32))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.zeros((80, 50), dtype=np.int64))
    np.savez(tmp_path / "several.npz", mel=np.zeros((80, 50), dtype=np.float32))
    (tmp_path / "torn.npy").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "taken.wav").write_bytes(b"precious")
    with_model = ("-c", checkpoint)
    cases = [
        (("resynthesize", tmp_path / "none.wav", "-o", out, *with_model), "none.wav"),
        (("resynthesize", tmp_path / "text.wav", "-o", out, *with_model), "text.wav"),
        (("resynthesize", SAMPLE, "-o", out, "-c", tmp_path / "no/model"), "no checkpoint"),
        (("resynthesize", SAMPLE, "-o", tmp_path / "no/out.wav", *with_model), "no directory"),
        (("resynthesize", SAMPLE, "-o", tmp_path / "taken.wav", *with_model), "--force"),
        (("resynthesize", SAMPLE, "-o", out, "-t", "-1", *with_model), "temperature"),
        (("synthesize", tmp_path / "none.npy", "-o", out, *with_model), "there is no file"),
        (("synthesize", tmp_path / "object.npy", "-o", out, *with_model), "not a readable .npy"),
        (("synthesize", tmp_path / "db.npy", "-o", out, *with_model), "decibels"),
        (("synthesize", tmp_path / "whole.npy", "-o", out, *with_model), "int64 numbers"),
        (("synthesize", tmp_path / "several.npz", "-o", out, *with_model), "an archive"),
        (("synthesize", tmp_path / "torn.npy", "-o", out, *with_model), "not a readable .npy"),
        (("resynthesize", SAMPLE, "-o", tmp_path / "out.xyz", *with_model), "xyz"),
        (("resynthesize", SAMPLE, "-o", tmp_path, "--force", *with_model), "is a directory"),
        (("resynthesize", SAMPLE, "-o", out, "--denoise", "-1", *with_model), "--denoise"),
        (("export", "--onnx", out, "-c", "wavenet"), "is no flow"),
        (("benchmark", "--threads", "0"), "--threads"),
    ]
    for arguments, words in cases:
        result = run(*arguments)
        assert result.returncode == 2, arguments
        assert words in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
        assert not out.exists()
    assert (tmp_path / "taken.wav").read_bytes() == b"precious"
    forced = run("resynthesize", SAMPLE, "-o", tmp_path / "taken.wav", "--force", *with_model)
    assert forced.returncode == 0
    assert soundfile.info(tmp_path / "taken.wav").frames > 0


def test_benchmark_prints_json_and_writes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vocoder.evaluation import benchmark, systems

    standard = systems.standard_systems

    def only_griffin_lim(*arguments: object, **options: object) -> list[systems.System]:
        return [c for c in standard(quick=True) if isinstance(c, systems.GriffinLim)]

    monkeypatch.setattr(systems, "standard_systems", only_griffin_lim)
    monkeypatch.setattr(benchmark, "QUICK", benchmark.Effort(1, 0.05, 0.05))
    files = (tmp_path / "speed.json", tmp_path / "speed.png")
    result = run("benchmark", "--quick", "--json", "-o", files[0], "--plot", files[1])
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed == json.loads(files[0].read_text())
    assert [row["batch"] for row in printed["rows"]] == [1, 1, 1, 16]
    assert files[1].stat().st_size > 1000
    assert run("benchmark", "--quick", "-o", files[0]).returncode == 2
