"""Whatever is given to the public functions is used rightly, or refused in words."""

import contextlib
import json
import math
import random
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import vocoder
from vocoder.audio import LogMel, MelSpec
from vocoder.models import load_checkpoint
from vocoder.text.frontend import PUNCTUATION, SYMBOLS, phonemes

SPEC = MelSpec.preset("speech-16k")
few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=32)
SHAPES = st.one_of(
    st.tuples(st.just(80), st.integers(0, 12)),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
TYPES = st.sampled_from(["f2", "f4", "f8", ">f4", ">f8", "i2", "i8", "?", "c8"])


@pytest.fixture(scope="module")
def model(tiny_flow):
    return tiny_flow(SPEC)


@few
@given(data=st.data())
def test_mels_of_any_kind_give_audio_or_a_sentence(model, data):
    dtype = np.dtype(data.draw(TYPES))
    mel = data.draw(arrays.arrays(dtype, data.draw(SHAPES)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audio = model.synthesize(mel)
    except ValueError:
        return
    assert audio.dtype == np.float32
    assert audio.shape[-1] == mel.shape[-1] * SPEC.hop_length
    assert np.abs(audio).max() <= 1


@few
@given(data=st.data())
def test_audio_of_any_kind_has_a_mel_or_is_refused(model, data):
    dtype = np.dtype(data.draw(st.sampled_from(["f2", "f4", "f8", "i2", "?"])))
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=700))
    audio = np.resize(data.draw(arrays.arrays(dtype, 20)), shape)
    try:
        mel = model.mel(audio)
    except ValueError:
        return
    assert mel.shape[-2:] == (80, SPEC.frames(audio.shape[-1]))
    assert np.isfinite(mel).all()


FIELDS = {
    "sample_rate": st.integers(-1, 10**7),
    "n_fft": st.integers(-1, 10**12),
    "hop_length": st.integers(-1, 10**6),
    "win_length": st.integers(-1, 10**6),
    "n_mels": st.integers(-1, 10**12),
    "fmin": FLOATS,
    "fmax": FLOATS,
    "power": st.sampled_from([1.0, 2.0, 3.0, "1"]),
    "floor": FLOATS,
    "center": st.sampled_from([True, False, "no"]),
}


@few
@given(changed=st.fixed_dictionaries({}, optional=FIELDS))
def test_a_mel_spec_works_or_names_its_field(changed):
    try:
        spec = MelSpec.from_dict({**SPEC.to_dict(), **changed})
    except ValueError:
        return
    assert spec.filters().shape == (spec.n_mels, spec.n_fft // 2 + 1)
    assert spec == MelSpec.from_dict(spec.to_dict())


@few
@given(text=st.text(max_size=60))
def test_any_text_gives_symbols_or_a_sentence(text):
    try:
        symbols = phonemes(text)
    except vocoder.TextError:
        return
    assert set(symbols) <= set(SYMBOLS)
    assert symbols[-1] in PUNCTUATION


@few
@given(lengths=st.lists(st.integers(0, 30_000), min_size=1, max_size=12))
def test_the_mel_of_pieces_is_that_of_the_whole(lengths):
    if not sum(lengths):
        return
    spec = MelSpec(
        sample_rate=8000, n_fft=64, hop_length=16, win_length=64, n_mels=6, fmin=0, fmax=4000
    )
    log_mel = LogMel(spec)
    audio = torch.sin(torch.arange(sum(lengths)).square() * 1e-5)
    mel = torch.cat(list(log_mel.stream(audio.split(lengths))), dim=1)
    assert torch.equal(mel, log_mel(audio))


def mutated(data, rng):
    """Bytes with some changed, cut out or repeated, or replaced by extreme numbers."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        head = min(len(content), 200) if rng.random() < 0.7 else len(content)
        at = rng.randrange(max(head, 1))
        number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
        change = rng.choice(
            [
                (at + 1, rng.randbytes(1)),
                (at + 4, struct.pack(rng.choice("<>") + "I", number)),
                (len(content), b""),
                (at + rng.randint(1, 50), b""),
                (at, rng.randbytes(rng.randint(1, 50))),
                (at, content[at : at + rng.randint(1, 500)]),
            ]
        )
        content[at : change[0]] = change[1]
    return bytes(content)


SOUNDS = ("WAV/PCM_16", "WAV/FLOAT", "FLAC/PCM_16", "OGG/VORBIS", "MP3/MPEG_LAYER_III")


@pytest.mark.parametrize("kind", SOUNDS)
def test_mutated_audio_is_refused_in_words_or_read(tmp_path, kind):
    container, subtype = kind.split("/")
    tone = 0.3 * np.sin(np.arange(8000) / 12)
    path, rng = tmp_path / "a", random.Random(kind)
    soundfile.write(path, np.stack([tone, tone], 1), 16000, subtype, format=container)
    whole = path.read_bytes()
    for _ in range(15):
        path.write_bytes(mutated(whole, rng))
        with contextlib.suppress(ValueError, OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audio, _ = vocoder.read_audio(path, rng.choice([None, 22050]))
            assert audio.ndim == 1
            assert audio.isfinite().all()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "a value"])
def test_mutated_checkpoints_are_refused_in_words_or_read(model, tmp_path, file):
    folder, rng = model.save(tmp_path / "model"), random.Random(file)
    path = folder / ("config.json" if file == "a value" else file)
    whole = path.read_bytes()
    for _ in range(15):
        path.write_bytes(mutated(whole, rng))
        if file == "a value":
            config = json.loads(whole)
            target = rng.choice([config["config"], config["config"]["mel_spec"]])
            extremes = [0, -1, 10**9, 10**18, 1e308, math.nan, None, "x", [], {}, True]
            target[rng.choice(list(target))] = rng.choice(extremes)
            path.write_text(json.dumps(config))
        with contextlib.suppress(vocoder.CheckpointError):
            load_checkpoint(folder)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from vocoder.audio import AudioWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = 0.3 * torch.randn(22050 * 3, generator=torch.Generator().manual_seed(0))

def write(path, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with AudioWriter(path, 22050) as writer:
        for piece in noise.split(4096):
            writer.write(piece)

for path in map(Path, sys.argv[1:]):
    write(path, 1 << 30)
    whole = path.stat().st_size
    path.write_bytes(b"the old file")
    for room in (0.3, 0.97, 1):
        try:
            write(path, int(room * whole) - 1)
        except OSError as error:
            print(path.suffix, room, error)
"""


def test_a_full_disk_keeps_the_old_file(tmp_path):
    paths = [tmp_path / f"a.{suffix}" for suffix in ("ogg", "flac", "wav", "mp3", "opus")]
    command = [sys.executable, "-c", FULL_DISK, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [path.suffix, room] for path in paths for room in ("0.3", "0.97", "1")
    ]
    assert all("is the disk full" in line for line in lines)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        path.name: b"the old file" for path in paths
    }
