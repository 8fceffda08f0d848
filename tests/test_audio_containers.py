"""Headers that say too little or a little too much: the audio is read whole, or refused."""

from __future__ import annotations

import io
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


def encoded(kind: str, audio: np.ndarray = TONE, rate: int = RATE, **options: str) -> bytes:
    container, _, subtype = kind.partition("/")
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format=container, subtype=subtype or None, **options)
    return file.getvalue()


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def uncounted(mp3: bytes) -> bytes:
    """Without the frame that counts, as streams are."""
    return mp3[mp3.find(b"\xff\xf3", 4) :]


def understated_mp3() -> bytes:
    mp3 = encoded("MP3")
    place = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    count = int.from_bytes(mp3[place : place + 4], "big")
    return with_bytes(mp3, place, (count // 2).to_bytes(4, "big"))


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

JOINED = {
    "two MP3s": (2 * encoded("MP3"), 4),
    "three MP3s with tags": (3 * (TAG + encoded("MP3") + b"TAG" + bytes(125)), 6),
    "MP3 that counts half": (understated_mp3(), 2),
    "variable MP3 without a count": (uncounted(VARIABLE), 8),
    "two of them": (2 * uncounted(VARIABLE), 16),
    "constant MP3 without a count": (uncounted(encoded("MP3", bitrate_mode="CONSTANT")), 2),
    **{f"two {kind}s": (2 * encoded(kind), 4)
       for kind in ("OGG/VORBIS", "OGG/OPUS", "FLAC", "WAV", "AIFF", "AU", "CAF")},
}  # fmt: skip
DOUBTFUL = {
    "WAV of size 0": (wav_of(None), "holds more than its header says"),
    "WAV of half its size": (wav_of(-2 * RATE), "holds more than its header says"),
    "WAV 4 bytes short": (wav_of(4), "ends 2 samples before its header says"),
    "WAV 44 bytes short": (wav_of(44), "ends 22 samples before its header says"),
}
REFUSED = {
    "WAV": (wav_of(2 * RATE), r"promises 3\.00 s and it holds 2\.00 s"),
    "MP3": (encoded("MP3") + encoded("MP3")[:2000], r"is cut off after \d+ of \d+ frames"),
    "FLAC": (encoded("FLAC")[:-20000], "is cut off|is damaged"),
    "FLAC of unknown length": (flac_of(0), "does not say how long it is.*convert it"),
    "Vorbis": (VORBIS[:-100], "is cut off: its last page is missing"),
    "Vorbis without an end": (without_end(VORBIS), "is cut off: its last page is missing"),
    "half of a Vorbis": (VORBIS[: len(VORBIS) // 2] + VORBIS, "is cut off: its last page"),
    "two rates": (encoded("MP3") + encoded("MP3", rate=16000), "joins audio of 24,000 Hz.* 16,000"),
    "mono and stereo": (
        encoded("FLAC") + encoded("FLAC", np.stack([TONE, TONE], 1)),
        "2 channels: split",
    ),
}


@pytest.mark.parametrize("kind", JOINED)
def test_all_of_a_file_is_read(tmp_path: Path, kind: str) -> None:
    content, seconds = JOINED[kind]
    (tmp_path / "a").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio, rate = read_audio(tmp_path / "a")
    # Without a count, the delay of an MP3 encoder stays: 0.05 s each.
    assert len(audio) / rate == pytest.approx(seconds, abs=0.12)
    last = audio[-rate : -rate // 4]
    assert last.square().mean() == pytest.approx(0.045, rel=0.1)
    assert len(read_audio(io.BytesIO(content))[0]) == len(audio)


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


def test_a_joined_file_can_be_read_again_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with AudioReader(io.BytesIO(2 * encoded("MP3")), 16000) as reader:
        first, again = list(reader), list(reader)
    assert sum(map(len, first)) == sum(map(len, again)) == 4 * 16000
    assert not list(tmp_path.iterdir())
