"""Prepared corpora, and what is cropped from them."""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import full_disk
from tests.test_recipe_ljspeech import ROOT, SAMPLE
from vocoder.audio import MelSpec
from vocoder.corpus import CorpusError, read_corpus, split
from vocoder.training.data import Batches, Crops, SpeechData, held_out, manifest, prepare


def write_corpus(folder, audio, rate=8000):
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    for id, samples in audio.items():
        soundfile.write(folder / "wavs" / f"{id}.wav", samples, rate, subtype="PCM_16")
    (folder / "metadata.csv").write_text("".join(f"{id}|x|x\n" for id in audio))
    return folder


def noise(samples, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(3000 * rng.normal(size=samples)), -30000, 30000).astype(np.int16)


def prepared(folder, audio, rate=8000):
    """A corpus of these recordings, prepared at 8 kHz."""
    return prepare(read_corpus(write_corpus(folder / "c", audio, rate)), 8000, folder / "cache")


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    return prepare(read_corpus(SAMPLE), 16000, tmp_path_factory.mktemp("cache"))


def test_prepared_audio_is_that_of_the_files(sample):
    assert len(sample.entries) == 26
    assert sample.original_sample_rate == 16000
    for id in ("ru_0024", "ru_0813"):
        recorded, _ = soundfile.read(SAMPLE / "wavs" / f"{id}.flac", dtype="int16")
        np.testing.assert_array_equal(sample.audio(id), recorded)
        assert sample.entries[id].peak == np.abs(recorded.astype(int)).max()
    assert sample.seconds(tuple(sample.entries)) == pytest.approx(171, abs=1)


def test_useless_files_are_left_out_and_counted(tmp_path, caplog):
    good = noise(8000)
    audio = {"good": good, "zeros": 0 * good, "hiss": good // 3000, "short": good[:500]}
    folder = write_corpus(tmp_path / "c", {**audio, "broken": good, "empty": good[:0]})
    (folder / "wavs" / "broken.wav").write_bytes(b"RIFF no more")
    corpus = prepare(read_corpus(folder), 8000, tmp_path / "cache")
    assert list(corpus.entries) == ["good"]
    assert corpus.missing == "2 silent, 1 too short, 2 unreadable"
    assert "files left out: 2 silent (first: zeros)" in caplog.text
    assert "broken.wav" in caplog.text
    with pytest.raises(CorpusError, match="no usable audio: 1 silent"):
        prepared(tmp_path / "silence", {"zeros": 0 * good})


def test_prepared_once_and_anew_when_the_corpus_or_the_rate_changes(tmp_path):
    first = prepared(tmp_path, {"a": noise(4000), "b": noise(4000, 1)})
    written = (first.folder / "audio.int16").stat().st_mtime_ns
    corpus = read_corpus(tmp_path / "c")
    again = prepare(corpus, 8000, tmp_path / "cache")
    assert again.folder == first.folder
    assert (again.folder / "audio.int16").stat().st_mtime_ns == written
    assert prepare(corpus, 4000, tmp_path / "cache").sample_rate == 4000
    changed = prepared(tmp_path, {"a": noise(4000, 2), "b": noise(4000, 1)})
    assert changed.folder != first.folder
    np.testing.assert_array_equal(changed.audio("a"), noise(4000, 2))


def test_a_killed_preparation_is_never_taken_for_a_whole_one(tmp_path):
    folder = write_corpus(tmp_path / "c", {f"u{i}": noise(40000, i) for i in range(100)})
    cache = tmp_path / "cache"
    code = (
        "import sys; from vocoder.corpus import read_corpus; "
        "from vocoder.training.data import prepare; "
        "prepare(read_corpus(sys.argv[1]), 8000, sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(cache)], cwd=ROOT)
    while not any(path.stat().st_size for path in cache.glob(".*/audio.int16")):
        time.sleep(0.001)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]
    (left,) = cache.glob(".*.part")
    assert len(prepare(read_corpus(folder), 8000, cache).entries) == 100
    assert not left.exists()  # what a kill leaves behind does not stay for ever


def test_the_manifest_is_of_the_recordings_and_not_of_their_place(tmp_path):
    audio = {"a": noise(4000), "b": noise(4000, 1)}
    folder = write_corpus(tmp_path / "c", audio)

    def found(folder, **options):
        corpus = read_corpus(folder)
        return manifest(corpus, prepare(corpus, 8000, tmp_path / "cache"), **options)

    first = found(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    for path in (copy / "wavs").iterdir():
        os.utime(path, (0, 0))
    assert found(copy) == first
    changed = audio | {"a": noise(4000, 2)}  # of the same length
    assert found(write_corpus(tmp_path / "c", changed)) != first
    (copy / "metadata.csv").write_text("a|other|other\nb|text|text\n", encoding="utf-8")
    assert found(copy) == first
    assert found(copy, text=True) != found(folder, text=True)
    (copy / "metadata.csv").write_text("a|text|text\n", encoding="utf-8")
    assert found(copy) != first


def test_a_cache_that_cannot_be_written_leaves_nothing_half_prepared(tmp_path, monkeypatch):
    corpus = read_corpus(write_corpus(tmp_path / "c", {"a": noise(4000)}))
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"cannot be kept in .*file .*--cache"):
        prepare(corpus, 8000, tmp_path / "file")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk)
        with pytest.raises(CorpusError, match=r"\(No space left on device\): make room"):
            prepare(corpus, 8000, tmp_path / "cache")
    assert all(path.suffix == ".lock" for path in (tmp_path / "cache").iterdir())
    assert len(prepare(corpus, 8000, tmp_path / "cache").entries) == 1


def test_a_crop_depends_on_seed_and_index_alone(sample):
    ids = tuple(sample.entries)
    crops, same, other = (Crops(sample, ids, 256, 16, (-9, 3), seed=seed) for seed in (1, 1, 2))
    forwards = [crops[i] for i in range(20)]
    backwards = [same[i] for i in reversed(range(20))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(a["audio"], b["audio"])
    assert not any(np.array_equal(crops[i]["audio"], other[i]["audio"]) for i in range(20))
    for a, b in itertools.combinations(forwards, 2):
        assert not np.array_equal(a["audio"], b["audio"])
    # All crops of a batch are of one length, and odd and even lengths take turns.
    turns = Crops(sample, ids, 256, 16, batch=4)
    assert [len(turns[i]["clean"]) // 256 for i in range(12)] == [16] * 4 + [15] * 4 + [16] * 4


def test_crops_are_the_recording_faded_and_dequantised(tmp_path):
    recorded = noise(4000)
    crops = Crops(prepared(tmp_path, {"a": recorded}), ["a"], 16, 20)
    inner = np.lib.stride_tricks.sliding_window_view(recorded[16:-16], 288)
    seen = set()
    for i in range(200):
        crop = crops[i]
        q = crop["clean"] * 32768
        np.testing.assert_array_equal(q, np.rint(q))
        u = crop["audio"] * 32768 - q
        assert -0.501 < u.min() < -0.4
        assert 0.4 < u.max() < 0.501  # float32 has a hundredth of a step left at this volume
        (start,) = np.flatnonzero((inner == q[16:-16]).all(axis=1))
        ramp = np.sin(np.pi / 2 * (np.arange(16) + 0.5) / 16) ** 2
        np.testing.assert_array_equal(
            q[:16], np.rint(recorded[start : start + 16] * ramp.astype(np.float32))
        )
        seen.add(start)
    # Crops begin anywhere, and reach both ends.
    assert len(seen) > 180
    assert len({start % 16 for start in seen}) == 16
    assert min(seen) < 100
    assert max(seen) > 3580


def test_gain_stays_in_its_range_and_never_clips(tmp_path):
    loud = noise(4000)
    loud[::40] = 30000
    crops = Crops(prepared(tmp_path, {"a": loud}), ["a"], 16, 20, (-6, 12))
    peaks = [np.abs(crops[i]["clean"]).max() for i in range(300)]
    assert max(peaks) <= 32767 / 32768
    assert max(peaks) > 0.99
    assert 30000 / 32768 * 10 ** (-6.1 / 20) < min(peaks) < 30000 / 32768 * 10 ** (-5 / 20)


def test_a_share_of_the_crops_gets_noise_of_many_levels(tmp_path):
    loud = 20000 * np.sin(np.arange(8000) / 3)
    quiet = np.rint(100 * np.sin(np.arange(8000) / 3))
    for name, audio in {"loud": loud, "quiet": quiet}.items():
        corpus = prepared(tmp_path / name, {name: audio.astype(np.int16)})
        clean, noisy, again = (Crops(corpus, [name], 16, 60, noisy=n) for n in (0, 0.5, 0.5))
        ratios = []
        for i in range(200):
            added = noisy[i]["clean"] - clean[i]["clean"]
            np.testing.assert_array_equal(noisy[i]["audio"], again[i]["audio"])
            if np.abs(added).max() > 0:
                ratios.append(20 * np.log10(clean[i]["clean"].std() / added.std() + 1e-9))
        assert 70 < len(ratios) < 130
        assert max(np.abs(noisy[i]["clean"]).max() for i in range(200)) <= 1
        if name == "loud":
            assert min(ratios) < 5
            assert max(ratios) > 30


def test_devices_share_batches_and_resume_where_they_stopped():
    def batches(count, *sampler):
        return list(itertools.islice(Batches(*sampler), count))

    alone = batches(6, 4)
    assert list(itertools.chain(*alone)) == list(range(24))
    shares = [batches(6, 2, 0, rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone
    assert batches(3, 4) + batches(3, 4, 12) == alone


def test_held_out_items_never_change(sample):
    whole = held_out(sample, "ru_0024", 256)
    assert whole["id"] == "ru_0024"
    frames = sample.entries["ru_0024"].samples // 256
    recorded = sample.audio("ru_0024")[: frames * 256]
    np.testing.assert_array_equal(whole["clean"][256:-256] * 32768, recorded[256:-256])
    assert whole["clean"][0] == whole["clean"][-1] == 0  # ends are faded
    np.testing.assert_array_equal(whole["audio"], held_out(sample, "ru_0024", 256)["audio"])
    assert np.abs(whole["audio"] - whole["clean"]).max() <= 0.51 / 32768
    excerpt = held_out(sample, "ru_0024", 256, seconds=1.0)["clean"]
    assert excerpt.shape == (62 * 256,)
    middle = sample.entries["ru_0024"].samples // 2
    assert (excerpt[7000:8000] * 32768).tolist() in [
        sample.audio("ru_0024")[s : s + 1000].tolist() for s in range(middle - 2000, middle)
    ]


def test_speech_data_without_usable_test_utterances_is_refused(tmp_path):
    audio = {f"u{i}": noise(4000, i) for i in range(6)}
    for id in split(list(audio)).test:
        audio[id] = 0 * audio[id]
    data = SpeechData(MelSpec.preset("speech-16k"), write_corpus(tmp_path, audio), tmp_path)
    with pytest.raises(CorpusError, match=r"every utterance for test .*\(2 silent\)"):
        data.setup()
