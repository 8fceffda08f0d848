"""Whole corpora to audio: in this process, and by workers of which one is killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import command, one_thread
from vocoder.audio import MelSpec, read_audio
from vocoder.bulk import rendering
from vocoder.bulk.items import find, item_seed
from vocoder.bulk.rendering import Renderer, Settings

SPEC = MelSpec.preset("speech-16k")


@pytest.fixture(scope="module")
def checkpoint(tiny_flow, tmp_path_factory):
    return str(tiny_flow(refine=2).save(tmp_path_factory.mktemp("run") / "model"))


def mel(frames, seed=0):
    noise = np.random.default_rng([frames, seed]).random((SPEC.n_mels, frames))
    return (-7 + 3 * noise).astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    """Seven mels, some of equal length, and two recordings, in folders."""
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    for index, frames in enumerate([30, 30, 45, 30, 45, 7]):
        np.save(folder / "deep" / f"{index}.npy", mel(frames, index))
    np.save(folder / "deep" / "er" / "ü 6.npy", mel(30, 6)[None])
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a.WAV", 0.1 * rng.standard_normal(8001), 16000, format="WAV")
    soundfile.write(folder / "b.flac", 0.1 * rng.standard_normal(11025), 22050)
    (folder / "notes.txt").write_text("not a mel")
    np.save(folder / ".hidden.npy", mel(5))
    return folder


NAMES = {"a", "b", *(f"deep/{i}" for i in range(6)), "deep/er/ü 6"}


def run(*arguments):
    return command("synthesize-corpus", *arguments)


def names(output):
    return {path.relative_to(output).with_suffix("").as_posix() for path in output.rglob("*.wav")}


def levels(path):
    return soundfile.read(path, dtype="int16")[0].astype(int)


def farthest(output, other):
    """The largest difference between the files of two folders, in steps of 16 bits."""
    pairs = ((levels(folder / f"{n}.wav") for folder in (output, other)) for n in names(output))
    return max(int(np.abs(first - second).max()) for first, second in pairs)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        heading, *found = csv.reader(file)
    assert heading[0] == "id"
    return dict(found)


def test_a_folder_is_searched_through_and_its_structure_kept(corpus, checkpoint, tiny_flow):
    model, output = tiny_flow(refine=2), corpus / "out"  # inside of what is searched
    result = run(corpus, "-o", output, "-c", checkpoint, "--seed", 4)
    assert result.exit_code == 0
    assert "9 files" in result.stdout
    assert names(output) == NAMES
    assert {path.name for path in output.iterdir()} == {"a.wav", "b.wav", "corpus.json", "deep"}
    # Each is what the model makes of it alone, by a seed of its own.
    for name, spectrogram in (("deep/0", mel(30, 0)), ("deep/er/ü 6", mel(30, 6))):
        alone = model.synthesize(torch.from_numpy(spectrogram), seed=item_seed(4, name)).numpy()
        assert np.abs(levels(output / f"{name}.wav") - 32768 * alone).max() <= 1
    # Copy synthesis has the length of the recording.
    audio, _ = read_audio(corpus / "b.flac", 16000)
    alone = model.synthesize(model.mel(audio), seed=item_seed(4, "b"))[: len(audio)].numpy()
    written = levels(output / "b.wav")
    assert len(written) == len(audio)
    assert np.abs(written - 32768 * alone).max() <= 1
    assert len(levels(output / "a.wav")) == 8001
    again = run(corpus, "-o", output, "-c", checkpoint, "--seed", 4)
    assert "0 files" in again.stdout
    assert "9 were there already" in again.stdout


def test_a_list_names_files_below_its_folder(corpus, checkpoint, tmp_path):
    (tmp_path / "elsewhere.npy").write_bytes(b"")
    listed = corpus / "list.csv"
    listed.write_text(
        '\ufeffdeep/0.npy\n\ndeep\\1.npy|text|Text.\n"a"|"by its | id"\ndeep/0.npy\n'
        "../elsewhere.npy\n/etc/passwd\nC:\\x.npy\nmissing.npy\n",
        encoding="utf-8",
    )
    output = tmp_path / "out"
    result = run(listed, "-o", output, "-c", checkpoint)
    assert result.exit_code == 1
    assert "4 of 7 failed: see" in result.stderr
    assert names(output) == {"a", "deep/0", "deep/1"}
    failed = rows(output / "failed.csv")
    assert set(failed) == {"../elsewhere.npy", "/etc/passwd", "C:\\x.npy", "missing.npy"}
    assert "leads out of the corpus folder" in failed["../elsewhere.npy"]
    assert "there is no such file" in failed["missing.npy"]
    # The same name and seed, the same audio, wherever it is listed.
    run(corpus, "-o", tmp_path / "all", "-c", checkpoint)
    assert farthest(output, tmp_path / "all") <= 1


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda p: None, "there is no .*: give a folder"),
        (lambda p: p.mkdir(), "no mels and no recordings"),
        (lambda p: p.write_text("\n \n"), "no mels and no recordings"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "must be UTF-8 text"),
    ],
)
def test_nothing_to_do_is_refused(write, message, tmp_path):
    write(tmp_path / "source")
    with pytest.raises(ValueError, match=message):
        find(tmp_path / "source", tmp_path / "out")


def test_the_output_is_not_searched_and_no_two_sources_have_one_name(corpus):
    (corpus / "out").mkdir()
    np.save(corpus / "out" / "made.npy", mel(5))
    np.save(corpus / "b.npy", mel(9))
    np.save(corpus / "B.npy", mel(9))
    items, failed = find(corpus, corpus / "out")
    assert {item.name for item in items} == NAMES - {"b"} | {"B"}
    assert len(failed) == 2
    assert all("would have the name of" in outcome.failure for outcome in failed)


def test_pieces_do_not_change_the_audio_and_equal_mels_differ(
    corpus, checkpoint, tmp_path, monkeypatch
):
    np.save(corpus / "deep" / "1.npy", mel(30, 0))
    items, _ = find(corpus, tmp_path / "none")
    for name in ("whole", "pieces"):
        outcomes = list(map(Renderer(Settings(checkpoint), tmp_path / name).render, items))
        assert {outcome.name for outcome in outcomes} == NAMES
        assert not any(outcome.failure or outcome.warning for outcome in outcomes)
        assert all(outcome.seconds > 0 for outcome in outcomes)
        monkeypatch.setattr(rendering, "LONG", -1)
    assert names(tmp_path / "whole") == names(tmp_path / "pieces") == NAMES
    assert farthest(tmp_path / "whole", tmp_path / "pieces") <= 1
    first, second = (levels(tmp_path / f"whole/deep/{i}.wav") for i in (0, 1))
    assert np.abs(first - second).max() > 100


def test_failures_and_warnings_are_listed_and_do_not_harm_the_others(corpus, checkpoint, tmp_path):
    output = tmp_path / "out"
    (corpus / "text.wav").write_text("not audio")
    np.save(corpus / "linear.npy", 50 * np.random.default_rng(0).random((80, 30)))
    np.save(corpus / "nan.npy", mel(30) * np.nan)
    audio = 0.2 * np.random.default_rng(0).standard_normal(16000)
    audio[5] = 1.2
    soundfile.write(corpus / "beyond.wav", audio, 16000, subtype="FLOAT")
    result = run(corpus, "-o", output, "-c", checkpoint)
    assert result.exit_code == 1
    assert "1 with a warning: see" in result.stderr
    assert "has 1 of 16000 samples beyond" in rows(output / "warnings.csv")["beyond"]
    failed = rows(output / "failed.csv")
    assert set(failed) == {"text", "linear", "nan"}
    assert names(output) == NAMES | {"beyond"}
    assert "NaN" in failed["nan"]
    assert not any("\n" in text for text in failed.values())
    for name in ("text.wav", "linear.npy", "nan.npy"):
        (corpus / name).unlink()
    assert run(corpus, "-o", output, "-c", checkpoint).exit_code == 0
    assert not (output / "failed.csv").exists()


def test_what_is_there_is_left_and_what_changed_is_made_again(corpus, checkpoint, tmp_path):
    output = tmp_path / "out"
    run(corpus, "-o", output, "-c", checkpoint)
    before = {name: (output / f"{name}.wav").stat().st_mtime_ns for name in NAMES}
    (output / "a.wav").unlink()
    np.save(corpus / "deep" / "0.npy", mel(31))
    later = time.time() + 10
    os.utime(corpus / "deep" / "0.npy", (later, later))
    result = run(corpus, "-o", output, "-c", checkpoint)
    assert "2 files" in result.stdout
    assert len(levels(output / "deep/0.wav")) == 31 * SPEC.hop_length
    after = {name: (output / f"{name}.wav").stat().st_mtime_ns for name in NAMES}
    assert {name for name in NAMES if after[name] != before[name]} == {"a", "deep/0"}


def test_other_models_sources_and_folders_are_refused(corpus, checkpoint, tmp_path, tiny_flow):
    output = tmp_path / "out"
    run(corpus, "-o", output, "-c", checkpoint)
    wider = tiny_flow(channels=12).save(tmp_path / "wider")
    for arguments, message in (
        ((corpus, "-o", output, "-c", checkpoint, "--seed", "1"), "with seed 0, not 1"),
        ((corpus, "-o", output, "-c", checkpoint, "--refine", "0"), "with refine None, not 0"),
        ((corpus, "-o", output, "-c", wider), "was begun with model"),
        ((corpus / "deep", "-o", output, "-c", checkpoint), "was begun with source"),
        ((corpus, "-o", corpus, "-c", checkpoint), "is the source itself"),
        ((corpus / "deep", "-o", corpus, "-c", checkpoint), "did not write"),
        ((corpus, "-o", corpus / "a.WAV", "-c", checkpoint), "is a file"),
        ((corpus, "-o", tmp_path / "x", "-c", checkpoint, "--temperature", "-1"), "temperature"),
        ((corpus, "-o", tmp_path / "x", "-c", checkpoint, "--seed", "-1"), "seed is -1"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="another model here"):
        Renderer(Settings(checkpoint), output, "0" * 64)


def test_an_item_s_seed_never_changes():
    assert item_seed(0, "a") == 0x676FFF3B69EA
    assert item_seed(0, "u\u0308") == item_seed(0, "\u00fc")  # as file systems spell it
    assert len({item_seed(seed, name) for seed in range(9) for name in "abc"}) == 27


def test_without_ray_the_command_says_what_to_install(corpus, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run(corpus, "-o", tmp_path / "out", "-c", checkpoint, "--workers", "2")
    assert result.exit_code == 2
    assert 'pip install "flow-vocoder[ray]"' in result.stderr


CLUSTER = """
import sys, time
from ray._private import services
from ray.cluster_utils import Cluster

get_node = services.get_node

def patient(*arguments):  # Ray waits for half a minute, which is too short on a busy machine
    end = time.monotonic() + 300
    while True:
        try:
            return get_node(*arguments)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)

services.get_node = patient
cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes with one processor each; its address."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed (extra ray)")
    settings = {
        "VOCODER_TEST_CLUSTER": str(os.getpid()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_agent_register_timeout_ms": "300000",
    }
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:  # which closes its input in the end
        line = next((line for line in process.stdout or () if line.startswith("address")), "")
        assert line, "Ray did not start"
        yield line.split()[1]


def workers():
    """Processes of the cluster that hold the model."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title, settings = ((path / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has ended
            continue
        if b"Renderer" in title and f"VOCODER_TEST_CLUSTER={os.getpid()}".encode() in settings:
            found.append(int(path.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")
def test_a_worker_that_is_killed_loses_nothing(cluster, checkpoint, tmp_path):
    source, output, here = (tmp_path / name for name in ("in", "two", "one"))
    source.mkdir()
    for index in range(120):
        np.save(source / f"{index}.npy", mel(300 + index // 8, index))
    (source / "broken.npy").write_bytes(b"no array")
    how = ["--checkpoint", checkpoint, "--refine", "16"]
    words = [sys.executable, "-m", "vocoder", "synthesize-corpus", str(source), *how]
    together = subprocess.Popen(
        [*words, "-o", str(output), "--workers", "2", "--address", cluster],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(names(output)) < 20:
        assert together.poll() is None, together.communicate()
        time.sleep(0.01)
    killed = workers()
    assert len(killed) == 2
    os.kill(killed[0], signal.SIGKILL)
    before = len(names(output))
    _, errors = together.communicate()
    assert together.returncode == 1, errors
    assert before < 120
    assert "1 of 121 failed" in errors
    assert len(names(output)) == 120
    assert set(rows(output / "failed.csv")) == {"broken"}
    with one_thread():  # as a worker has
        assert run(source, "-o", here, *how).exit_code == 1
    assert names(output) == names(here)
    assert farthest(output, here) == 0
    assert (output / "corpus.json").read_text() == (here / "corpus.json").read_text()


def test_more_workers_than_the_cluster_has_processors_are_refused(
    cluster, corpus, checkpoint, tmp_path
):
    words = [sys.executable, "-m", "vocoder", "synthesize-corpus", str(corpus)]
    words += ["-o", str(tmp_path / "out"), "-c", checkpoint, "--workers", "9"]
    result = subprocess.run(
        [*words, "--address", cluster], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "the cluster has 2 CPUs, too few for 9 workers" in result.stderr
