"""The command `vocoder` as a user types it: files, exit codes, one sentence for an error."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

import vocoder
from tests.conftest import ROOT, command
from vocoder.audio import LogMel, MelSpec, mel_distance

SAMPLE = ROOT / "recipes/ljspeech/sample/wavs/ru_0024.flac"


@pytest.fixture(scope="module")
def checkpoint(tiny_flow, tmp_path_factory):
    return tiny_flow().save(tmp_path_factory.mktemp("run") / "model")


def test_help_and_early_errors_need_no_torch(tmp_path):
    heavy = {"torch", "numpy", "librosa", "lightning", "gradio", "matplotlib"}
    program = [sys.executable, "-X", "importtime"]
    outcomes = {
        ("-c", "import vocoder"): 0,
        ("-m", "vocoder", "--version"): 0,
        ("-m", "vocoder", "--help"): 0,
        ("-m", "vocoder", "evaluate", "--help"): 0,
        ("-m", "vocoder", "export", "--onnx", str(tmp_path / "none" / "model.onnx")): 2,
    }
    for arguments, code in outcomes.items():
        result = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == code, result.stderr
        imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
        assert "vocoder" in imported
        assert not imported & heavy
        if "--version" in arguments:
            assert result.stdout.strip() == f"flow-vocoder {vocoder.__version__}"
        if code:
            assert "vocoder: there is no directory" in result.stderr
            assert "Traceback" not in result.stderr


def test_resynthesize_from_and_to_a_file_or_a_pipe(checkpoint, tmp_path):
    out = tmp_path / "out.wav"
    result = command("resynthesize", SAMPLE, "-o", out, "--checkpoint", checkpoint)
    assert result.exit_code == 0, result.stderr
    assert "times real time" in result.stdout
    (original, rate), (audio, out_rate) = soundfile.read(SAMPLE), soundfile.read(out)
    assert (out_rate, audio.shape) == (rate, original.shape)
    # Even untrained the scale follows the mel, so loud stretches are loud.
    blocks = len(audio) // 1600 * 1600
    loudness = [np.log(x[:blocks].reshape(-1, 1600).std(axis=1) + 1e-4) for x in (original, audio)]
    assert np.corrcoef(loudness)[0, 1] > 0.9
    piping = ("resynthesize", "-", "-o", "-", "-c", checkpoint)
    piped = command(*piping, stdin=SAMPLE.read_bytes())
    assert piped.exit_code == 0
    assert "standard output" in piped.stderr
    streamed, rate = vocoder.read_audio(io.BytesIO(piped.stdout_bytes))
    assert rate == 16000
    assert torch.equal(streamed, vocoder.read_audio(out)[0])
    empty = command(*piping)
    assert empty.exit_code == 2
    assert "is empty" in empty.stderr


def test_synthesize_reads_a_mel_and_is_repeatable(checkpoint, tmp_path):
    model = vocoder.load(checkpoint)
    samples, _ = vocoder.read_audio(SAMPLE, model.sample_rate)
    mel = model.mel(samples).numpy()
    np.save(tmp_path / "mel.npy", mel)
    np.save(tmp_path / "batch.npy", mel[None])

    def audio(mel, *arguments):
        out = tmp_path / "out.wav"
        result = command("synthesize", tmp_path / mel, "-fo", out, "-c", checkpoint, *arguments)
        assert result.exit_code == 0, result.stderr
        return out.read_bytes()

    first = audio("mel.npy", "--seed", 3, "--temperature", 0.5)
    assert audio("batch.npy", "--seed", 3, "--temperature", 0.5) == first
    # Without the option the temperature is the model's own.
    default = audio("mel.npy")
    assert audio("mel.npy", "--temperature", model.default_temperature) == default
    assert audio("mel.npy", "--temperature", model.default_temperature / 2) != default


def test_info_as_text_and_json(checkpoint):
    facts = json.loads(command("info", checkpoint, "--json").stdout)
    assert facts["architecture"] == "mdct-flow"
    assert facts["sample_rate"] == 16000
    assert facts["config"]["kernel_size"] == 3
    hop = 1000 * facts["mel_spec"]["hop_length"] / facts["sample_rate"]
    assert facts["look_ahead_ms"] == round(facts["look_ahead_frames"] * hop, 1)
    assert facts["short_look_ahead_ms"] == round(facts["short_look_ahead"] * hop, 1)
    assert "sample_rate" in command("info", checkpoint).stdout
    facts = json.loads(command("info", "acoustic", "--json").stdout)
    assert facts["architecture"] == "acoustic model"
    assert facts["config"]["voices"][0] == "heart"
    assert "no model 'nothing'" in command("info", "nothing").stderr


def test_errors_are_one_sentence_and_write_nothing(checkpoint, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out.wav"
    np.save(tmp_path / "db.npy", np.full((80, 50), -60.0, dtype=np.float32))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.zeros((80, 50), dtype=np.int64))
    np.savez(tmp_path / "several.npz", mel=np.zeros((80, 50), dtype=np.float32))
    (tmp_path / "torn.npy").write_bytes(b"PK\x03\x04 torn")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (80, 1000000000000), }\n"
    forged = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)
    (tmp_path / "forged.npy").write_bytes(forged)
    (tmp_path / "torn.onnx").write_bytes(b"torn")
    (tmp_path / "taken.wav").write_bytes(b"precious")
    with_model = ("-c", checkpoint)
    mels = {
        "none": "there is no file",
        "object": "not a readable .npy",
        "forged": "not a readable .npy",
        "db": "decibels",
        "whole": "int64 numbers",
        "torn": "not a readable .npy array",
    }
    cases = [
        *(
            (("synthesize", tmp_path / f"{name}.npy", "-o", out, *with_model), words)
            for name, words in mels.items()
        ),
        (("synthesize", tmp_path / "several.npz", "-o", out, *with_model), "not a readable .npy"),
        (("resynthesize", tmp_path / "none.wav", "-o", out, *with_model), "none.wav"),
        (("resynthesize", SAMPLE, "-o", out, "-c", tmp_path / "no/model"), "no checkpoint"),
        (("resynthesize", SAMPLE, "-o", tmp_path / "no/out.wav", *with_model), "no directory"),
        (("resynthesize", SAMPLE, "-o", tmp_path / "taken.wav", *with_model), "--force"),
        (("resynthesize", SAMPLE, "-o", out, "-t", "-1", *with_model), "temperature"),
        (("resynthesize", SAMPLE, "-o", tmp_path, "--force", *with_model), "is a directory"),
        (("export", "--onnx", out, "-c", "autoregressive"), "not a flow"),
        (("info", "no/such/model"), "vocoder: there is no checkpoint at"),
        (("info", tmp_path / "torn.onnx"), "not an ONNX graph"),
        (("info", tmp_path / "none.onnx"), "there is no file"),
        (("say", os.fsdecode(b"stra\xdfe"), "-o", out), "the text is not UTF-8"),
        (("benchmark", "--threads", "0"), "--threads"),
    ]
    for arguments, words in cases:
        result = command(*arguments)
        assert result.exit_code == 2, arguments
        assert words in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
        assert not out.exists()
    assert (tmp_path / "taken.wav").read_bytes() == b"precious"
    forced = command("resynthesize", SAMPLE, "-o", tmp_path / "taken.wav", "--force", *with_model)
    assert forced.exit_code == 0
    assert soundfile.info(tmp_path / "taken.wav").frames > 0


def test_benchmark_prints_json_and_writes_it(tmp_path, monkeypatch):
    from vocoder.evaluation import benchmark

    only = [benchmark.System("Griffin-Lim", lambda: benchmark.GriffinLim("speech-16k"))]
    monkeypatch.setattr(benchmark, "standard_systems", lambda *_, **__: only)
    monkeypatch.setattr(benchmark, "QUICK", benchmark.Effort(1, 0.05))
    file = tmp_path / "speed.json"
    result = command("benchmark", "--quick", "--json", "-o", file)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(file.read_text())
    assert command("benchmark", "--quick", "-o", file).exit_code == 2


def test_refine_in_pieces_is_refine_audio(tmp_path):
    spec = MelSpec.preset("speech-16k")
    audio, _ = vocoder.read_audio(SAMPLE, spec.sample_rate)
    mel = LogMel(spec)(audio).numpy()
    np.save(tmp_path / "mel.npy", mel)
    vocoder.write_audio(tmp_path / "in.wav", 0.5 * audio, spec.sample_rate)
    files = (tmp_path / "in.wav", tmp_path / "mel.npy", "-o", tmp_path / "out.wav")
    result = command("refine", *files, "--mel-spec", "speech-16k", "-n", 2)
    assert result.exit_code == 0, result.stderr
    halved, _ = vocoder.read_audio(tmp_path / "in.wav")
    expected = vocoder.refine_audio(halved, torch.from_numpy(mel), spec, 2)
    refined, _ = vocoder.read_audio(tmp_path / "out.wav")
    assert len(refined) == len(audio)
    assert (refined - expected).abs().max() < 1e-3
    before = mel_distance(halved, torch.from_numpy(mel), spec)
    assert f"log-mel distance {before:.3f} nats before" in result.stdout
    np.save(tmp_path / "mel.npy", mel[:, :-1])
    result = command("refine", *files, "-f", "--mel-spec", "speech-16k")
    assert result.exit_code == 2
    assert "cut or pad one of them" in result.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name is Unicode there")
def test_names_that_are_not_utf_8_are_read_and_written(checkpoint, tmp_path):
    folder = tmp_path / os.fsdecode(b"stra\xdfe")
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "a.flac")
    for suffix in (".wav", ".ogg"):
        output = folder / os.fsdecode(b"\xdf" + suffix.encode())
        result = command("resynthesize", folder / "a.flac", "-o", output, "-c", checkpoint)
        assert result.exit_code == 0
        assert soundfile.info(os.fsencode(output)).frames == soundfile.info(SAMPLE).frames
    missing = command("resynthesize", folder / "none.wav", "-o", folder / "b.wav")
    assert missing.exit_code == 2
    assert "There is no file" in missing.output


def test_the_mel_of_a_recording(tmp_path):
    spec, out = MelSpec.preset("speech-16k"), tmp_path / "mel.npy"
    vocoder.write_audio(tmp_path / "long.flac", 0.1 * torch.randn(1 << 20), 16000)
    for source, stdin in ((tmp_path / "long.flac", b""), ("-", SAMPLE.read_bytes())):
        result = command("mel", source, "-fo", out, "--mel-spec", "speech-16k", stdin=stdin)
        assert result.exit_code == 0, result.stderr
        audio, _ = vocoder.read_audio(SAMPLE if stdin else source, 16000)
        written = np.load(out)
        shape = spec.n_mels, spec.frames(len(audio))
        assert (written.shape, written.dtype) == (shape, np.float32)
        np.testing.assert_allclose(written, LogMel(spec)(audio).numpy(), atol=1e-4)
    before = out.read_bytes()
    for arguments, words in (
        (("-o", out), "--force"),
        (("-o", tmp_path / "mel.wav"), "ends in .npy"),
        (("-fo", out, "--mel-spec", "none"), "none"),
    ):
        result = command("mel", SAMPLE, *arguments)
        assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert command("mel", tmp_path / "no.wav", "-fo", out).exit_code == 2
    assert out.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
