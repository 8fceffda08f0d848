"""Reading a corpus in LJSpeech's layout, splitting it, and getting LJSpeech."""

import functools
import hashlib
import http.server
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vocoder.corpus
from tests.conftest import ROOT
from vocoder.corpus import CorpusError, check_texts, download_ljspeech, find_ljspeech, read_corpus

SAMPLE = ROOT / "recipes" / "ljspeech" / "sample"


def write_corpus(folder, lines, files):
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    noise = np.random.default_rng(0).normal(0, 0.1, 800)
    for name in files:
        soundfile.write(folder / "wavs" / name, noise, 8000)
    return folder


def test_reads_the_sample_corpus():
    corpus = read_corpus(SAMPLE)
    assert corpus.name == "sample"
    assert len(corpus.utterances) == 26
    assert corpus.utterances[0].id == "ru_0024"
    assert corpus.utterances[0].path.suffix == ".flac"
    assert corpus.utterances[0].normalised.startswith("В междузвёздном")


def test_bad_lines_are_left_out_and_reported(tmp_path, caplog):
    lines = ['a|He said "well|He said "well', "b|two columns", "no bars", "|x|x", "a|again|again",
             "gone|x|x", "z" * 300 + "|x", "c|x|x|x|x"]  # fmt: skip
    corpus = read_corpus(write_corpus(tmp_path / "c", lines, ["a.wav", "b.flac", "c.wav"]))
    assert [u.id for u in corpus.utterances] == ["a", "b"]
    # A quotation mark does not swallow the lines after it.
    assert corpus.utterances[0].normalised == 'He said "well'
    assert corpus.utterances[1].normalised == "two columns"
    assert "3 lines left out, malformed (first: line 3: 'no bars')" in caplog.text
    assert "1 lines left out, repeated id (first: line 5: a)" in caplog.text
    assert "2 lines left out, audio file missing (first: line 6: wavs/gone.wav)" in caplog.text


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "line, file, id",
    [
        ("a|t|n", "wavs/a.WAV", "a"),
        ("a.wav|t|n", "wavs/a.wav", "a"),
        ("a.wav|t|n", "wavs/a.wav.wav", "a.wav"),
        ("wavs/a.wav|t|n", "wavs/a.wav", "a"),
        (r"wavs\a.wav|t|n", "wavs/a.wav", "a"),
        ("a.mp3.wav|t|n", "wavs/a.mp3.wav", "a.mp3"),
        ("joe/a|t|n", "wavs/joe/a.wav", "joe/a"),
        ("a.wav|t|n", "a.wav", "a"),
        ("clips/a.wav|t|n", "clips/a.wav", "clips/a"),
        (f"{NFC}|t|n", f"wavs/{NFD}.wav", NFC),
        (f"{NFD}|t|n", f"wavs/{NFC}.wav", NFC),
        ('"a"|"t"|"n"', "wavs/a.wav", "a"),
        ('"a"|"joe"|"t"|"n"', "wavs/a.wav", "a"),
        ("a|t|n\r", "wavs/a.wav", "a"),
    ],
)
def test_files_that_are_there_are_found(tmp_path, line, file, id):
    folder = write_corpus(tmp_path / "c", [line], ["other.wav"])
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "wavs" / "other.wav").rename(path)
    (utterance,) = read_corpus(folder).utterances
    assert (utterance.id, utterance.text, utterance.normalised) == (id, "t", "n")
    assert utterance.path.samefile(path)


@pytest.mark.parametrize(
    "line, text, normalised",
    [
        ('a|"t, ""quoted"""|"n | with a bar"', 't, "quoted"', "n | with a bar"),
        ('a|"Well," he said.|"Well," he said.', '"Well," he said.', '"Well," he said.'),
        ('a|He said "well|He said "well', 'He said "well', 'He said "well'),
        ("a|t|", "t", "t"),
        ("a|t", "t", "t"),
    ],
)
def test_quotation_marks_belong_to_the_text_unless_they_enclose_it(
    tmp_path, line, text, normalised
):
    folder = write_corpus(tmp_path / "c", [line, "b|next|next"], ["a.wav", "b.wav"])
    first, second = read_corpus(folder).utterances
    assert (first.text, first.normalised) == (text, normalised)
    assert second.id == "b"
    # A file spelt like the id comes before one that only resembles it.
    soundfile.write(folder / "wavs" / "a.WAV", np.zeros(8), 8000)
    assert read_corpus(folder).utterances[0].path.name == "a.wav"


@pytest.mark.parametrize(
    "name",
    ["../secret", "wavs/../../secret", "/secret", "x/../../../secret", "C:\\secret", "\\secret"],
)
def test_ids_that_lead_out_of_the_corpus_are_refused(tmp_path, name):
    folder = write_corpus(tmp_path / "c", ["a|t", f"{name}|t"], ["a.wav"])
    with pytest.raises(CorpusError, match=r"metadata\.csv, line 2: the id .*secret.* leads out"):
        read_corpus(folder)


def test_links_that_lead_out_of_the_corpus_are_refused(tmp_path):
    outside = write_corpus(tmp_path / "outside", [], ["b.wav"]) / "wavs"
    folder = write_corpus(tmp_path / "c", ["a|t", "b|t"], ["a.wav"])
    link = folder / "wavs" / "b.wav"
    link.symlink_to(folder / "wavs" / "a.wav")
    assert len(read_corpus(folder).utterances) == 2  # a link within the corpus is none of these
    link.unlink()
    link.symlink_to(outside / "b.wav")
    with pytest.raises(CorpusError, match=r"line 2: .*wavs/b\.wav is a link that leads out"):
        read_corpus(folder)
    link.unlink()
    (folder / "wavs" / "x").symlink_to(outside)
    (folder / "metadata.csv").write_text("a|t\nx/b|t\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"wavs/x/b.wav is a link that leads out"):
        read_corpus(folder)
    # People keep recordings on another disk.
    whole = tmp_path / "linked"
    whole.mkdir()
    (whole / "metadata.csv").write_text("b|t\n", encoding="utf-8")
    (whole / "wavs").symlink_to(outside)
    assert [u.id for u in read_corpus(whole).utterances] == ["b"]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"has no metadata\.csv"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.csv").write_bytes("a|Grüße|Grüße".encode("latin-1"))
    with pytest.raises(CorpusError, match="must be UTF-8"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(CorpusError, match="no usable line: it is empty"):
        read_corpus(tmp_path)
    with pytest.raises(CorpusError, match="no usable line: 1 lines left out, audio file missing"):
        read_corpus(write_corpus(tmp_path / "c", ["gone|x|x"], []))


def test_split_is_disjoint_and_stays_when_files_are_added():
    ids = [f"LJ{i:05}" for i in range(5000)]
    before, after = vocoder.corpus.split(ids[:3000]), vocoder.corpus.split(list(reversed(ids)))
    assert set(before.train) | set(before.validation) | set(before.test) == set(ids[:3000])
    assert len(before.train) + len(before.validation) + len(before.test) == 3000
    assert 30 < len(before.validation) < 90
    assert 30 < len(before.test) < 90
    for name in ("train", "validation", "test"):
        assert set(getattr(before, name)) <= set(getattr(after, name))


@pytest.mark.parametrize("count, held", [(3, 1), (5, 2), (26, 3)])
def test_small_corpora_hold_something_out(count, held):
    parts = vocoder.corpus.split([f"u{i}" for i in range(count)])
    assert (len(parts.validation), len(parts.test)) == (held, held)
    assert len(parts.train) == count - 2 * held
    with pytest.raises(CorpusError, match="at least 3"):
        vocoder.corpus.split(["a", "b"])


def test_the_split_of_the_sample_is_fixed():
    """The make target for first sound and all published scores name these utterances."""
    parts = vocoder.corpus.held_out(SAMPLE)
    assert parts.validation == ("ru_0069", "ru_0151", "ru_0633")
    assert parts.test == ("ru_0209", "ru_0502", "ru_0813")


def test_finds_ljspeech(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LJSPEECH", raising=False)
    assert find_ljspeech() is None
    write_corpus(tmp_path / "data" / "LJSpeech-1.1", ["a|x|x"], ["a.wav"])
    assert find_ljspeech() == Path("data/LJSpeech-1.1")
    elsewhere = write_corpus(tmp_path / "lj", ["a|x|x"], ["a.wav"])
    monkeypatch.setenv("LJSPEECH", str(elsewhere))
    assert find_ljspeech() == elsewhere
    monkeypatch.setenv("LJSPEECH", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match="LJSPEECH names"):
        find_ljspeech()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves a small LJSpeech, and half of its archive below `cut`."""
    folder, served = tmp_path / "source" / "LJSpeech-1.1", tmp_path / "served"
    write_corpus(folder, ["a|x|x", "b|y|y"], ["a.wav", "b.wav"])
    archive = shutil.make_archive(str(served / folder.name), "bztar", folder.parent, folder.name)
    packed = Path(archive).read_bytes()
    (served / "cut").mkdir()
    (served / "cut" / Path(archive).name).write_bytes(packed[: len(packed) // 2])
    monkeypatch.setattr(vocoder.corpus, "LJSPEECH_SHA256", hashlib.sha256(packed).hexdigest())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_broken_download_leaves_no_corpus_and_the_next_one_succeeds(server, tmp_path):
    data = tmp_path / "data"
    with pytest.raises(CorpusError, match="--data sample"):
        download_ljspeech(data, f"{server}/cut/LJSpeech-1.1.tar.bz2")
    assert find_ljspeech(data) is None
    # What a run that was killed left is no obstacle.
    write_corpus(data / ".LJSpeech-1.1.download" / "LJSpeech-1.1", ["a|x|x"], [])
    folder = download_ljspeech(data, f"{server}/LJSpeech-1.1.tar.bz2")
    assert folder == find_ljspeech(data) == data / "LJSpeech-1.1"
    assert [u.id for u in read_corpus(folder).utterances] == ["a", "b"]
    assert [path.name for path in data.iterdir()] == ["LJSpeech-1.1"]


def test_without_a_network_it_says_what_to_do_and_does_not_hang(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts, and never answers
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/LJSpeech-1.1.tar.bz2"
        with pytest.raises(CorpusError, match="timed out"):
            download_ljspeech(tmp_path / "data", url, timeout=0.5)
    with pytest.raises(CorpusError, match="Connection refused") as caught:
        download_ljspeech(tmp_path / "data", url)
    for words in (url, str(tmp_path / "data" / "LJSpeech-1.1"), "--data DIR"):
        assert words in str(caught.value)


@pytest.mark.parametrize("last", [["ann", "bob"], ["wavs/x0.wav"] * 2, ["0.5s", "2s"], ["17", "x"]])
def test_a_last_column_that_is_no_text_is_refused(tmp_path, last):
    lines = [f"u{i}|The cat sat on it, number {i}.|{end}" for i, end in enumerate(last)]
    corpus = read_corpus(write_corpus(tmp_path, lines, ["u0.wav", "u1.wav"]))
    with pytest.raises(CorpusError, match=f"{last[0]}', does not repeat the words"):
        check_texts(corpus)


def test_a_last_column_of_texts_is_taken(tmp_path):
    ids = [f"u{i}" for i in range(6)]
    texts = ["Yes.|Yes.", "No.", "ann|A sentence.", "2 cats|two cats", "42|forty-two", "Dr.|doctor"]
    lines = [f"{id}|{text}" for id, text in zip(ids, texts, strict=True)]
    check_texts(read_corpus(write_corpus(tmp_path, lines, [f"{id}.wav" for id in ids])))
