"""Headers that say too little or a little too much: the audio is read whole, or refused."""

import io
import re
import warnings

import numpy as np
import pytest
import soundfile

from vocoder.audio import AudioReader, read_audio

RATE = 24000
TIME = np.arange(2 * RATE) / RATE
TONE = (0.3 * np.sin(2 * np.pi * 440 * TIME)).astype("f")  # 2 s
WITH_PAUSE = np.concatenate([TONE, np.zeros(4 * RATE, "f"), TONE])  # 8 s


def encoded(kind, audio=TONE, rate=RATE, **options):
    container, _, subtype = kind.partition("/")
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format=container, subtype=subtype or None, **options)
    return file.getvalue()


def with_bytes(content, place, new):
    return content[:place] + new + content[place + len(new) :]


def uncounted(mp3):
    """Without the frame that counts, as streams are."""
    return mp3[mp3.find(b"\xff\xf3", 4) :]


def understated_mp3():
    mp3 = encoded("MP3")
    place = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    count = int.from_bytes(mp3[place : place + 4], "big")
    return with_bytes(mp3, place, (count // 2).to_bytes(4, "big"))


def flac_of(samples):
    """With that total in its header: 0 is unknown."""
    flac = encoded("FLAC")
    about = int.from_bytes(flac[18:26], "big")
    return with_bytes(flac, 18, ((about >> 36 << 36) + samples).to_bytes(8, "big"))


def wav_of(change):
    wav = encoded("WAV")
    size = 0 if change is None else len(wav) - 44 + change
    return with_bytes(wav, 40, size.to_bytes(4, "little"))


def without_end(ogg):
    place = ogg.rfind(b"OggS\0") + 5
    return with_bytes(ogg, place, bytes([ogg[place] & ~4]))


TAG = b"ID3\4\0\0\0\0\0\x10" + bytes(16)
VARIABLE = encoded("MP3", WITH_PAUSE, bitrate_mode="VARIABLE")
VORBIS, OPUS = encoded("OGG/VORBIS"), encoded("OGG/OPUS")

CERTAIN = {
    "two MP3s": (2 * encoded("MP3"), 4),
    "three MP3s with tags": (3 * (TAG + encoded("MP3") + b"TAG" + bytes(125)), 6),
    "MP3 that counts half": (understated_mp3(), 2),
    "variable MP3 without a count": (uncounted(VARIABLE), 8),
    "two of them": (2 * uncounted(VARIABLE), 16),
    "constant MP3 without a count": (uncounted(encoded("MP3", bitrate_mode="CONSTANT")), 2),
    "two Vorbis": (2 * VORBIS, 4),
    "two Opus": (2 * OPUS, 4),
    "two FLACs": (2 * encoded("FLAC"), 4),
    "two WAVs": (2 * encoded("WAV"), 4),
    "FLAC of unknown length": (flac_of(0), 2),
}
DOUBTFUL = {
    "FLAC that counts half": (flac_of(RATE), 2, "48,000 samples, though its header says 24,000"),
    "WAV of size 0": (wav_of(None), 2, "holds more than its header says"),
    "WAV of half its size": (wav_of(-2 * RATE), 2, "holds more than its header says"),
    "WAV 4 bytes short": (wav_of(4), 2, "ends 2 samples before its header says"),
    "WAV 44 bytes short": (wav_of(44), 2, "ends 22 samples before its header says"),
    "Vorbis without an end": (without_end(VORBIS), 2, "does not say that it ends"),
    "Opus without an end": (without_end(OPUS), 2, "does not say that it ends"),
    "two without an end": (2 * without_end(VORBIS), 4, "does not say that it ends"),
}


@pytest.mark.parametrize("kind", CERTAIN)
def test_all_of_a_file_is_read(tmp_path, kind):
    content, seconds = CERTAIN[kind]
    (tmp_path / "a").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio, rate = read_audio(tmp_path / "a")
    # Without a count, the delay of an MP3 encoder stays: 0.05 s each.
    tolerance = 0.12 if "without a count" in kind or kind == "two of them" else 1 / rate
    assert len(audio) / rate == pytest.approx(seconds, abs=tolerance)
    assert audio[-rate:-2000].square().mean() == pytest.approx(0.045, rel=0.1)  # the last tone
    assert len(read_audio(io.BytesIO(content))[0]) == len(audio)


def test_an_mp3_of_one_bit_rate_needs_no_count(tmp_path):
    frames = re.findall(rb"\xff\xf3\x14.{21}(?=\xff\xf3)", VARIABLE, re.DOTALL)  # of the pause
    (tmp_path / "a.mp3").write_bytes(b"".join(frames))
    audio, rate = read_audio(tmp_path / "a.mp3")
    assert len(frames) > 100
    assert len(audio) / rate == pytest.approx(len(frames) * 576 / RATE, abs=0.1)


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_what_is_doubtful_is_read_with_a_warning(tmp_path, kind):
    content, seconds, words = DOUBTFUL[kind]
    (tmp_path / "a").write_bytes(content)
    with pytest.warns(UserWarning, match=words):
        audio, rate = read_audio(tmp_path / "a")
    assert len(audio) / rate == seconds


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (wav_of(2 * RATE), r"promises 3\.00 s and it holds 2\.00 s"),
        (encoded("MP3") + encoded("MP3")[:4000], "is cut off: its header promises 4"),
        (encoded("WAV") + encoded("WAV")[:-RATE], r"promises 4\.00 s and it holds 3\.50 s"),
        (flac_of(0)[:-20000], "is cut off|is damaged"),
        (VORBIS[: len(VORBIS) // 2] + encoded("OGG/VORBIS"), "beginning of a stream is missing"),
        (without_end(VORBIS)[:-100], "last page is missing"),
        (encoded("MP3") + encoded("MP3", rate=16000), "joins audio of 24,000 Hz.* 16,000 Hz"),
        (encoded("FLAC") + encoded("FLAC", np.stack([TONE, TONE], 1)), "2 channels: split"),
        *((2 * encoded(kind), "holds more than its header") for kind in ("AIFF", "AU", "CAF")),
    ],
)
def test_what_cannot_be_read_whole_is_refused(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_audio(tmp_path / "a")


def test_a_joined_file_can_be_read_again_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with AudioReader(io.BytesIO(2 * encoded("MP3")), 16000) as reader:
        first, again = list(reader), list(reader)
    assert sum(map(len, first)) == sum(map(len, again)) == 4 * 16000
    assert not list(tmp_path.iterdir())


def test_a_whole_file_is_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        (tmp_path / "a").write_bytes(encoded(kind))
        with AudioReader(tmp_path / "a"):
            copies = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert copies == [tmp_path / "a"], kind
