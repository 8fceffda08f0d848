"""Audio files: every format in, 16-bit out, nothing wrapped and nothing half-written."""

import io
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vocoder.audio import AudioReader, AudioStream, read_audio, write_audio

RECORDING = sorted((Path(__file__).parents[1] / "recipes/ljspeech/sample/wavs").glob("*.flac"))[0]


def tone(frequency, rate, seconds=1.0):
    time = torch.arange(int(rate * seconds), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * math.pi * frequency * time)).float()


def level(audio):
    """Level of the middle of the audio, away from the edges, in dB of full scale."""
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    return 10 * math.log10(middle.square().mean().item() + 1e-20)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_audio_comes_back_bit_for_bit(tmp_path, suffix):
    audio, rate = read_audio(RECORDING)
    audio[:3] = torch.tensor([-1.0, 32767 / 32768, -1 / 32768])
    assert (audio.dtype, audio.ndim, rate) == (torch.float32, 1, 16000)
    write_audio(tmp_path / f"copy{suffix}", audio, rate)
    again, again_rate = read_audio(tmp_path / f"copy{suffix}")
    assert torch.equal(again, audio)
    assert again_rate == rate
    assert soundfile.info(tmp_path / f"copy{suffix}").subtype == "PCM_16"
    assert [path.name for path in tmp_path.iterdir()] == [f"copy{suffix}"]


def test_samples_are_rounded_and_full_scale_is_the_greatest_integer(tmp_path):
    audio = np.array([1.0, -1.0, 0.6 / 32768, -0.6 / 32768, 0.4 / 32768, 2.5 / 32768])
    write_audio(tmp_path / "a.wav", audio, 8000)
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert pcm.tolist() == [32767, -32768, 1, -1, 0, 2]


def test_loud_samples_are_clipped_with_a_warning_and_never_wrapped(tmp_path):
    audio = torch.tensor([0.25, 1.5, -3.0, 1.0, -1.0])
    with pytest.warns(UserWarning, match=r"Clipped 2 of 5 samples of a\.wav.*the peak was 3\."):
        write_audio(tmp_path / "a.wav", audio, 8000)
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert pcm.tolist() == [8192, 32767, -32768, 32767, -32768]


@pytest.mark.parametrize("kind", ["numpy", "float64", "bfloat16", "with gradient", "view"])
def test_any_floating_audio_is_written(tmp_path, kind):
    audio = torch.tensor([0.5, -0.25, 0.0])
    given = {
        "numpy": audio.numpy(),
        "float64": audio.double().numpy(),
        "bfloat16": audio.bfloat16(),
        "with gradient": audio.clone().requires_grad_(),
        "view": torch.stack([audio, audio], dim=1)[:, 0],
    }[kind]
    write_audio(tmp_path / "a.wav", given, np.int64(8000))
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], audio)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_many_formats_are_read_as_the_mean_of_their_channels(tmp_path, container):
    left, right = tone(440, 22050), tone(660, 22050)
    path = tmp_path / "stereo"  # the format is read from the content, not the name
    soundfile.write(path, torch.stack([left, right], dim=1).numpy(), 22050, format=container)
    audio, rate = read_audio(str(path))
    expected = (left + right) / 2
    assert rate == 22050
    assert (audio.dtype, audio.shape) == (torch.float32, expected.shape)
    assert level(audio - expected) < level(expected) - 25


@pytest.mark.parametrize(("old", "new"), [(44100, 22050), (48000, 22050), (16000, 44100)])
def test_resampling_keeps_time_pitch_and_level(tmp_path, old, new):
    write_audio(tmp_path / "a.wav", tone(1000, old), old)
    audio, rate = read_audio(tmp_path / "a.wav", sample_rate=new)
    assert (rate, audio.dtype, len(audio)) == (new, torch.float32, new)
    assert level(audio - tone(1000, new)) < -80
    if old > new:  # no alias
        write_audio(tmp_path / "a.wav", tone(15000, old), old)
        assert level(read_audio(tmp_path / "a.wav", new)[0]) < -90


def test_unreadable_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio\n" * 100)
    soundfile.write(tmp_path / "header.wav", np.zeros(0), 16000)
    float_wav(tmp_path / "nan.wav", [0.0, np.nan, np.inf])
    for name, error, words in (
        ("none.wav", FileNotFoundError, r"There is no file .*none\.wav\.$"),
        ("", IsADirectoryError, "is a directory, not an audio file"),
        ("empty.wav", ValueError, r"empty\.wav is empty"),
        ("text.wav", ValueError, r"text\.wav is not audio that can be read"),
        ("header.wav", ValueError, r"header\.wav holds no samples"),
        ("nan.wav", ValueError, "NaN or infinity in 2 of 3 samples"),
    ):
        with pytest.raises(error, match=words):
            read_audio(tmp_path / name)
    for rate in (0, -1, 22050.0, True):
        with pytest.raises(ValueError, match="positive whole number of Hz"):
            read_audio(RECORDING, rate)


BAD_AUDIO = {
    "NaN": (torch.tensor([0.0, math.nan]), "NaN or infinite samples: 1 of 2"),
    "infinite": (np.array([np.inf, -np.inf]), "NaN or infinite samples: 2 of 2"),
    "empty": (torch.zeros(0), "no samples"),
    "batch": (torch.zeros(1, 100), r"must be mono, \(samples,\), got shape \(1, 100\)"),
    "int16": (np.zeros(100, dtype=np.int16), "floating point.*got torch.int16; divide .* by 32768"),
    "int tensor": (torch.zeros(100, dtype=torch.int16), "floating point.*got torch.int16"),
}


@pytest.mark.parametrize("kind", BAD_AUDIO)
def test_bad_audio_leaves_the_previous_file(tmp_path, kind):
    audio, message = BAD_AUDIO[kind]
    path = tmp_path / "a.wav"
    path.write_bytes(b"previous")
    with pytest.raises(ValueError, match=message):
        write_audio(path, audio, 16000)
    assert path.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_paths_are_refused_in_one_sentence(tmp_path):
    for name, rate, error, words in (
        ("missing/a.wav", 16000, FileNotFoundError, r"no folder .*missing to write a\.wav to"),
        ("", 16000, IsADirectoryError, "is a directory"),
        ("a.aac", 16000, ValueError, r"by its suffix: use \.wav, \.flac, \.ogg"),
        ("a", 16000, ValueError, r"by its suffix: use \.wav, \.flac, \.ogg"),
        ("a.wav", 0, ValueError, "positive whole number of Hz"),
        ("a.mp3", 50_000, ValueError, r"Cannot write .*a\.mp3 as MP3 at 50000 Hz by libsndfile"),
        ("a.flac", 10_000_000, ValueError, r"Cannot write .*a\.flac as FLAC at 10000000 Hz"),
    ):
        with pytest.raises(error, match=words):
            write_audio(tmp_path / name, torch.zeros(100), rate)
    assert list(tmp_path.iterdir()) == []


def test_clipped_audio_is_written_even_if_warnings_are_errors(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Clipped"):
            write_audio(tmp_path / "a.wav", torch.tensor([2.0]), 8000)
    assert read_audio(tmp_path / "a.wav")[0].tolist() == [32767 / 32768]


def float_wav(path, audio, rate=16000):
    soundfile.write(path, np.asarray(audio), rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (32768, r"loud\.wav is not audio in \[-1, 1\].*16-bit integers.*divide it by 32768"),
        (2.0**23, "24-bit integers.*8388608"),
        (4, "lower level"),
    ],
)
def test_audio_that_is_far_too_loud_is_refused(tmp_path, scale, words):
    path = float_wav(tmp_path / "loud.wav", scale * tone(440, 16000).numpy())
    with pytest.raises(ValueError, match=words):
        read_audio(path)


def test_audio_of_a_doubtful_level_is_kept_with_a_warning(tmp_path):
    audio = [0.0, 1.25, -1.125, 0.5]
    with pytest.warns(UserWarning, match=r"a\.wav has 2 of 4 samples beyond \[-1, 1\].*1\.25"):
        again, _ = read_audio(float_wav(tmp_path / "a.wav", audio))
    assert torch.equal(again, torch.as_tensor(audio))


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "AIFF"])
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_files_that_end_early_are_refused(tmp_path, container, kept):
    path = tmp_path / "a.audio"
    soundfile.write(path, tone(440, 16000, 3).numpy(), 16000, format=container)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"a\.audio (is cut off|is damaged|is not audio)"):
        read_audio(path)


def test_headers_of_streams_are_read_to_the_end():
    file = io.BytesIO()
    with AudioStream(file, 16000) as stream:
        for piece in tone(440, 16000).split(999):
            stream.write(piece)
    assert file.getvalue()[40:44] == b"\xff\xff\xff\xff"
    file.seek(0)
    audio, rate = read_audio(file)
    assert rate == 16000
    assert (audio - tone(440, 16000)).abs().max() <= 0.5 / 32768


def test_file_objects_are_read_and_written(tmp_path):
    audio = tone(440, 16000)
    file = io.BytesIO()
    write_audio(file, audio, 16000)
    again, rate = read_audio(io.BytesIO(file.getvalue()))
    assert rate == 16000
    with (tmp_path / "a.flac").open("wb") as named:
        write_audio(named, audio, 16000)
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    assert torch.equal(read_audio(tmp_path / "a.flac")[0], again)
    with pytest.raises(ValueError, match="opened as text"):
        write_audio(io.StringIO(), audio, 16000)
    with pytest.raises(ValueError, match="opened as text"):
        read_audio(io.StringIO("text"))


def test_blocks_are_the_whole_file(tmp_path):
    write_audio(tmp_path / "a.wav", tone(1000, 48000, 5), 48000)
    reader = AudioReader(tmp_path / "a.wav", 22050)
    blocks, again = list(reader), list(reader)
    assert len(blocks) > 1
    assert max(map(len, blocks)) <= 1 << 16
    assert torch.equal(torch.cat(blocks), torch.cat(again))
    assert torch.equal(torch.cat(blocks), read_audio(tmp_path / "a.wav", 22050)[0])


@pytest.mark.skipif(os.name == "nt", reason="no such devices")
def test_devices_are_no_audio_files(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        read_audio("/dev/zero")
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match="is a device or a pipe"):
        write_audio(tmp_path / "pipe.wav", torch.zeros(9), 8000)


def test_minutes_of_ogg_are_written_whole(tmp_path):
    """Written in one call, libsndfile's encoder would overflow the stack."""
    audio = tone(440, 8000, seconds=240)
    write_audio(tmp_path / "a.ogg", audio, 8000)
    again, rate = read_audio(tmp_path / "a.ogg")
    assert (len(again), rate) == (len(audio), 8000)
    assert level(again - audio) < level(audio) - 20


@pytest.mark.parametrize("form", ["mp3", "opus", "flac", "pcm"])
def test_compressed_files_and_streams_have_the_length_and_sound_of_the_audio(tmp_path, form):
    audio = tone(440, 22050, seconds=3) * torch.hann_window(3 * 22050)
    as_pcm = tone(440, 24000, seconds=3) * torch.hann_window(3 * 24000)
    stream = io.BytesIO()
    with AudioStream(stream, 22050, form) as file:
        for piece in audio.split(5000):
            file.write(piece)
        assert stream.tell() > 2000 or form != "pcm"  # before the end
    if form == "pcm":
        streamed = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.int16) / 32768
        assert level(streamed - as_pcm) < -70
        return
    write_audio(tmp_path / f"a.{form}", audio, 22050)
    assert (soundfile.info(tmp_path / f"a.{form}").samplerate == 24000) == (form == "opus")
    written, _ = read_audio(tmp_path / f"a.{form}", 22050)
    streamed, _ = read_audio(io.BytesIO(stream.getvalue()), 22050)
    assert len(written) == len(audio)
    assert torch.equal(streamed, written)
    assert level(written - audio) < level(audio) - 20
