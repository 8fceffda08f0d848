"""Headers that say too little or a little too much: the audio is read whole, or refused."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocoder.audio import AudioReader, read_audio

RATE = 24000
TIME = np.arange(2 * RATE) / RATE
TONE = (0.3 * np.sin(2 * np.pi * 440 * TIME)).astype("f")  # 2 s
WITH_PAUSE = np.concatenate([TONE, np.zeros(4 * RATE, "f"), TONE])  # 8 s


def encoded(kind: str, audio: np.ndarray = TONE, **options: str) -> bytes:
    container, _, subtype = kind.partition("/")
    file = io.BytesIO()
    soundfile.write(file, audio, RATE, format=container, subtype=subtype or None, **options)
    return file.getvalue()


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def uncounted(mp3: bytes) -> bytes:
    """Without the frame that counts, as streams are."""
    return mp3[mp3.find(b"\xff\xf3", 4) :]


def flac_of(samples: int) -> bytes:
    """With that total in its header: 0 is unknown."""
    flac = encoded("FLAC")
    about = int.from_bytes(flac[18:26], "big")
    return with_bytes(flac, 18, ((about >> 36 << 36) + samples).to_bytes(8, "big"))


def wav_of(change: int | None) -> bytes:
    wav = encoded("WAV")
    size = 0 if change is None else len(wav) - 44 + change
    return with_bytes(wav, 40, size.to_bytes(4, "little"))


def without_end(ogg: bytes) -> bytes:
    place = ogg.rfind(b"OggS\0") + 5
    return with_bytes(ogg, place, bytes([ogg[place] & ~4]))


TAG = b"ID3\4\0\0\0\0\0\x10" + bytes(16)
VARIABLE = encoded("MP3", WITH_PAUSE, bitrate_mode="VARIABLE")
VORBIS = encoded("OGG/VORBIS")

WHOLE = {
    "MP3 with tags": (TAG + encoded("MP3") + b"TAG" + bytes(125), 2),
    "variable MP3": (VARIABLE, 8),
    "constant MP3": (encoded("MP3", bitrate_mode="CONSTANT"), 2),
}
DOUBTFUL = {
    "WAV 4 bytes short": (wav_of(4), "ends 2 samples before its header says"),
    "WAV 44 bytes short": (wav_of(44), "ends 22 samples before its header says"),
}
REFUSED = {
    "variable MP3 without a count": (uncounted(VARIABLE), "does not say how long it is"),
    "WAV of size 0": (wav_of(None), "holds more than its header says"),
    "WAV of half its size": (wav_of(-2 * RATE), "holds more than its header says.*ffmpeg"),
    **{f"two {kind}s": (2 * encoded(kind), "is several files joined: split it")
       for kind in ("MP3", "OGG/VORBIS", "OGG/OPUS", "FLAC", "WAV", "AIFF", "AU", "CAF")},
    "WAV": (wav_of(2 * RATE), r"promises 3\.00 s and it holds 2\.00 s"),
    "MP3": (encoded("MP3")[:4000], r"is cut off: its header promises 2\.00 s"),
    "FLAC": (encoded("FLAC")[:-20000], "is cut off|is damaged"),
    "FLAC of unknown length": (flac_of(0), "does not say how long it is.*convert it"),
    "Vorbis": (VORBIS[:-100], "is cut off: its last page is missing"),
    "Vorbis without an end": (without_end(VORBIS), "is cut off: its last page is missing"),
    "half of a Vorbis": (VORBIS[: len(VORBIS) // 2] + VORBIS, "is several files joined"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
def test_all_of_a_file_is_read(tmp_path: Path, kind: str) -> None:
    content, seconds = WHOLE[kind]
    (tmp_path / "a").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio, rate = read_audio(tmp_path / "a")
    # Without a count, the delay of an MP3 encoder stays: 0.05 s each.
    assert len(audio) / rate == pytest.approx(seconds, abs=0.2)
    last = audio[-rate : -rate // 4]
    assert last.square().mean() == pytest.approx(0.045, rel=0.1)
    assert len(read_audio(io.BytesIO(content))[0]) == len(audio)


def test_an_mp3_of_one_bit_rate_needs_no_count(tmp_path: Path) -> None:
    frames = re.findall(rb"\xff\xf3\x14.{21}(?=\xff\xf3)", VARIABLE, re.DOTALL)  # of the pause
    (tmp_path / "a.mp3").write_bytes(b"".join(frames))
    audio, rate = read_audio(tmp_path / "a.mp3")
    assert len(frames) > 100
    assert len(audio) / rate == pytest.approx(len(frames) * 576 / RATE, abs=0.1)


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_what_is_doubtful_is_read_with_a_warning(tmp_path: Path, kind: str) -> None:
    content, words = DOUBTFUL[kind]
    (tmp_path / "a").write_bytes(content)
    with pytest.warns(UserWarning, match=words):
        audio, rate = read_audio(tmp_path / "a")
    assert len(audio) == 2 * rate


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_whole_is_refused(tmp_path: Path, kind: str) -> None:
    content, words = REFUSED[kind]
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_audio(tmp_path / "a")


def test_a_file_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        (tmp_path / "a").write_bytes(encoded(kind))
        with AudioReader(tmp_path / "a"):
            copies = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert copies == [tmp_path / "a"], kind
