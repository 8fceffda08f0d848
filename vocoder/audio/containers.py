"""Files whose headers say less than they hold: streams, sizes left open, files joined to others.

libsndfile stops where a header says, so what lies behind would be lost without a word: such files
are refused.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from pathlib import Path

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

_BEGINS = {  # how files that may be joined begin, by their first bytes
    b"RIFF": rb"RIFF.{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
    b"RIFX": rb"RIFX.{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
    b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",
    b"OggS": rb"OggS\x00[\x02\x06]",
    b".snd": rb"\.snd\x00\x00\x00.{17}",
    b"caff": rb"caff\x00\x01\x00\x00desc",
    b"FORM": rb"FORM.{4}AIF[FC]COMM",
}
# The first frame of an MP3 file (layer III) with its tag, which counts the frames.
_MP3 = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef].{10,36}(?:Xing|Info|VBRI)"
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LARGEST = 0x7FFF0000  # sizes from here on are those of streams


class ContainerError(ValueError):
    """What is wrong with a file, to be put behind its name."""


def openable(path: str | os.PathLike[str]) -> str | bytes:
    """A path for soundfile, which encodes names itself, and not those that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def check_container(path: Path) -> None:
    """Check that an audio file holds what its header says, and nothing more.

    Raises:
        ContainerError: the file is cut off, joined of several, or does not say how long it is.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_tags(data)
        magic = data[start : start + 4]
        mp3 = magic[:1] == b"\xff"
        begins = _MP3 if mp3 else _BEGINS.get(magic)
        if begins is None:
            return
        ends = [start]
        for match in re.compile(begins, re.DOTALL).finditer(data, start):
            if match.start() > ends[-1]:  # several Ogg streams may begin together
                raise ContainerError("is several files joined: split it, or convert each of them.")
            ends.append(_page_end(data, match.start()) if magic == b"OggS" else start)
        flac = magic == b"fLaC" and not int.from_bytes(data[start + 18 : start + 26]) % 2**36
        if flac or (mp3 and len(ends) == 1 and not _is_constant(data, start)):
            raise ContainerError(
                "does not say how long it is, as if written to a pipe: convert it to WAV."
            )
        last = data.rfind(b"OggS\0") if magic == b"OggS" else -1
        if last >= 0 and (_page_end(data, last) > len(data) or not data[last + 5] & 4):
            raise ContainerError("is cut off: its last page is missing. Copy or convert it again.")
        if magic in (b"RIFF", b"RIFX"):
            _check_wav(data, start)


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio by the header; nothing is decoded.

    Raises:
        OSError, soundfile.LibsndfileError: `AudioReader` says what is wrong.
    """
    return float(soundfile.info(openable(path)).duration)


def _after_tags(data: mmap.mmap) -> int:
    """The position behind ID3 tags at the start."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d)
    return at


def _page_end(data: mmap.mmap, at: int) -> int:
    table = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
    return at + 27 + len(table) + sum(table)


def _is_constant(data: mmap.mmap, at: int) -> bool:
    """Whether an MP3 file has one bit rate: libsndfile guesses its length by the first frame's."""
    first = data[at + 2 : at + 3]
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        version, bits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
        if version == 1 or bits in (0, 15) or rate == 3:  # damaged
            return True
        if bits != first[0] >> 4:
            return False
        size = (144 if version == 3 else 72) * _KBITS[version == 3][bits] * 1000
        at += size // _RATES[version][rate] + (data[at + 2] >> 1 & 1)
    return True


def _check_wav(data: mmap.mmap, start: int) -> None:
    """Refuse a WAV file whose samples go on behind the size in its header."""
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    at, rate, place = start + 12, 0, 0
    while at + 8 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])
        chunk = name.isascii() and name.decode("latin-1").isprintable()
        if place and not (chunk and at + 8 + size <= len(data)):
            left = data[at:]
            # Zeros alone are padding, unless the size was never filled in.
            if len(left) > DOUBTFUL * rate and (at == place or left.strip(b"\0")):
                raise ContainerError(
                    "holds more than its header says, as if its recorder was stopped: repair it, "
                    "for instance with `ffmpeg -ignore_length 1`."
                )
            return
        if name == b"fmt ":
            (rate,) = struct.unpack(f"{order}I", data[at + 16 : at + 20].ljust(4, b"\0"))
        if name == b"data":
            if size >= _LARGEST or at + 8 + size >= len(data):
                return
            place = at + 8
        at += 8 + size + size % 2
