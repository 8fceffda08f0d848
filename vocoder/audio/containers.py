"""Files whose headers say less than they hold: streams, sizes left open, files joined to others.

libsndfile stops where a header says, so what lies behind would be lost without a word. `mended`
puts the header of a WAV or MP3 file right in a copy, and refuses what is cut off or joined. Where
the header is right, which is the rule, nothing is copied.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

Bytes = bytes | mmap.mmap

_BEGINS = {  # how files that may be joined begin, by their first bytes
    b"RIFF": rb"RIFF.{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
    b"RIFX": rb"RIFX.{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
    b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",
    b"OggS": rb"OggS\x00[\x02\x06]",
    b".snd": rb"\.snd\x00\x00\x00.{17}",
    b"caff": rb"caff\x00\x01\x00\x00desc",
    b"FORM": rb"FORM.{4}AIF[FC]COMM",
}
_JOINED = "is several files joined: split it, or convert each of them."
_LARGEST = 0x7FFF0000  # sizes from here on are those of streams


class ContainerError(ValueError):
    """What is wrong with a file, to be put behind its name."""


def openable(path: str | os.PathLike[str]) -> str | bytes:
    """A path for soundfile, which encodes names itself, and not those that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def mended(path: Path, folder: Path) -> tuple[Path, list[str]]:
    """The file to decode instead of a file, and what is doubtful about it.

    Args:
        path: an audio file.
        folder: one for a copy with a right header.

    Returns:
        The path itself where its header is right, else that of a copy; and clauses for warnings.

    Raises:
        ContainerError: the file is cut off, or joined of several.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_tags(data, 0)
        magic, doubts = data[start : start + 4], []
        pieces: list[bytes | slice] = []
        copy = folder / "mended"
        if magic in _BEGINS:
            _check_whole(data, start, magic)
            if magic in (b"RIFF", b"RIFX") and (size := _wav_size(data, start)):
                at, right = size
                pieces = [slice(start, at), right, slice(at + len(right), len(data))]
                doubts = ["holds more than its header says; what follows is taken for audio"]
        elif (first := _frame(data, start)) and _frame(data, first.end):
            copy = copy.with_suffix(".mp3")
            pieces, doubts = _mp3(data, start)
        if not pieces:
            return path, doubts
        with copy.open("wb") as target, memoryview(data) as view:
            for piece in pieces:
                target.write(view[piece] if isinstance(piece, slice) else piece)
        return copy, doubts


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio by the header, put right where it says too little; nothing is decoded.

    Raises:
        OSError, ValueError, soundfile.LibsndfileError: `AudioReader` says what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="vocoder-") as folder:
        return float(soundfile.info(openable(mended(Path(path), Path(folder))[0])).duration)


def _after_tags(data: Bytes, at: int) -> int:
    """The position behind the tags (ID3, APE) at a position."""
    while True:
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            a, b, c, d = data[at + 6 : at + 10]
            at += 10 + (a << 21 | b << 14 | c << 7 | d)
        elif data[at : at + 3] == b"TAG":
            at += 128
        elif data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            at += 32 + (size if data[at + 23] & 0x20 else 0)
        else:
            return at


def _check_whole(data: Bytes, start: int, magic: bytes) -> None:
    """Refuse joined files, an Ogg file without its end, and a FLAC file of unknown length."""
    behind = start
    for match in re.compile(_BEGINS[magic], re.DOTALL).finditer(data, start):
        if match.start() > behind:  # several Ogg streams may begin together
            raise ContainerError(_JOINED)
        behind = _page_end(data, match.start()) if magic == b"OggS" else start
    if magic == b"fLaC" and not int.from_bytes(data[start + 18 : start + 26]) % 2**36:
        raise ContainerError(
            "does not say how long it is, as if written to a pipe: convert it to WAV."
        )
    if magic == b"OggS":
        last = data.rfind(b"OggS\0")
        if _page_end(data, last) > len(data) or not data[last + 5] & 4:
            raise ContainerError("is cut off: its last page is missing. Copy or convert it again.")


def _page_end(data: Bytes, at: int) -> int:
    table = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
    return at + 27 + len(table) + sum(table)


def _wav_size(data: Bytes, start: int) -> tuple[int, bytes] | None:
    """Where the size of the samples is in a WAV file, and what it is, if they go on behind it."""
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    at, end, rate, place = start + 12, len(data), 0, 0
    while at + 8 <= end:
        name, (size,) = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])
        if place and not (name.isascii() and name.decode("latin-1").isprintable()
                          and at + 8 + size <= end):  # fmt: skip
            left = data[at:end]
            # Zeros alone are padding, unless the size was never filled in.
            lost = len(left) > DOUBTFUL * rate and (at == place + 4 or left.strip(b"\0"))
            right = struct.pack(f"{order}I", min(end - place - 4, 0xFFFFFFFF))
            return (place, right) if lost else None
        if name == b"fmt ":
            (rate,) = struct.unpack(f"{order}I", data[at + 16 : at + 20].ljust(4, b"\0"))
        if name == b"data":
            if size >= _LARGEST or at + 8 + size >= end:
                return None
            place = at + 4
        at += 8 + size + size % 2
    return None


_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class _Frame(NamedTuple):
    """An MP3 frame: where it ends, its sample rate and channels, and where its data begins."""

    end: int
    kind: tuple[int, int]
    body: int


def _frame(data: Bytes, at: int) -> _Frame | None:
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # layer III
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    first, mono, hertz = version == 3, head[3] >> 6 == 3, _RATES[version][rate]
    length = (144 if first else 72) * _KBITS[first][bits] * 1000 // hertz + (head[2] >> 1 & 1)
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(at + length, (hertz, 2 - mono), at + 4 + side)


def _mp3(data: Bytes, at: int) -> tuple[list[bytes | slice], list[str]]:
    """All frames behind one that counts them; nothing where the file's own does."""
    frames: list[bytes | slice] = []
    tagged, promised = False, 0
    kind: tuple[int, int] | None = None
    doubts: list[str] = []
    while (at := _after_tags(data, at)) < len(data):
        frame = _frame(data, at)
        if frame is None or not (frame.kind == kind or _frame(data, frame.end)):
            if (at := data.find(b"\xff", at + 1)) < 0:
                break
            continue
        if frame.end > len(data):
            doubts = ["ends within a frame, so it may have been cut off"]
            break
        kind = kind or frame.kind
        if frame.kind != kind:
            (a, b), (c, d) = kind, frame.kind
            raise ContainerError(
                f"joins audio of {a:,} Hz, {b} channels, and of {c:,} Hz, {d} channels: split or "
                "convert it."
            )
        places = frame.body, frame.body + 2
        tag = next((p for p in places if data[p : p + 4] in (b"Xing", b"Info")), 0)
        if tag or data[at + 36 : at + 40] == b"VBRI":
            if tagged:
                raise ContainerError(_JOINED)
            tagged = True
            if tag and data[tag + 7] & 1:
                promised = int.from_bytes(data[tag + 8 : tag + 12], "big")
        else:
            frames.append(slice(at, frame.end))
        at = frame.end
    if promised > len(frames) + 1:  # some encoders count the tag
        raise ContainerError(
            f"is cut off after {len(frames):,} of {promised:,} frames. Copy it again."
        )
    if promised >= len(frames):
        return [], doubts
    assert isinstance(frames[0], slice)
    return [_tag(data[frames[0]][:4], len(frames)), *frames], doubts


def _tag(head: bytes, frames: int) -> bytes:
    """A frame that counts the frames that follow, like one that begins with these four bytes."""
    made = bytearray(head)
    made[1] |= 1  # no checksum
    made[2] = made[2] & 0x0C | 0x90  # of a bit rate that has room for a tag
    frame = _frame(bytes(made), 0)
    assert frame is not None
    tagged = bytes(made).ljust(frame.body, b"\0") + b"Xing" + struct.pack(">II", 1, frames)
    return tagged.ljust(frame.end, b"\0")
