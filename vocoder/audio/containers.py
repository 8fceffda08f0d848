"""Files whose headers say less than they hold: joined ones, streams, and sizes left open.

libsndfile stops where a header says, so what lies behind would be lost without a word. `split`
finds it, and refuses what is cut off. Where the header is right, which is the rule, nothing is
copied.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

Bytes = bytes | mmap.mmap
Pieces = list[bytes | slice]
"""What a file is made of: new bytes, and parts of the old file."""

_BEGINS = {  # how the files of each format begin, and those that are joined to them
    magic: re.compile(pattern, re.DOTALL)
    for magic, pattern in {
        b"RIFF": rb"RIF[FX].{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
        b"RIFX": rb"RIF[FX].{4}WAVE(?:fmt |JUNK|bext|LIST|fact)",
        b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",
        b"OggS": rb"OggS\x00[\x02\x06]",
        b".snd": rb"\.snd\x00\x00\x00.{17}",
        b"caff": rb"caff\x00\x01\x00\x00desc",
        b"FORM": rb"FORM.{4}AIF[FC]COMM",
        b"riff": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",
        b"RF64": rb"RF64.{4}WAVEds64",
    }.items()
}
_LARGEST = 0x7FFF0000  # sizes from here on are those of streams


class ContainerError(ValueError):
    """What is wrong with a file, to be put behind its name."""


def openable(path: str | os.PathLike[str]) -> str | bytes:
    """A path for soundfile, which encodes names itself, and not those that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def split(path: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """The files to decode one after another instead of a file, and what is doubtful about it.

    Args:
        path: an audio file.
        folder: one for copies with right headers.

    Returns:
        The path alone where its header is right, else paths of copies; and clauses for warnings.

    Raises:
        ContainerError: the file is cut off, or joined of parts that cannot be told apart.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_tags(data, 0)
        magic, doubts, suffix = data[start : start + 4], [], ""
        parts: list[Pieces] = []
        if magic in _BEGINS:
            starts: list[int] = []
            behind = -1
            for match in _BEGINS[magic].finditer(data, start):
                if match.start() != behind:  # several Ogg streams may begin together
                    starts.append(match.start())
                behind = _page_end(data, match.start()) if magic == b"OggS" else -1
            for begin, end in pairwise([*starts, len(data)]):
                if magic == b"OggS":
                    _check_ogg(data, begin, end)
                size = None
                if magic == b"fLaC" and not int.from_bytes(data[begin + 18 : begin + 26]) % 2**36:
                    raise ContainerError(
                        "does not say how long it is, as if written to a pipe: convert it to WAV."
                    )
                if magic in (b"RIFF", b"RIFX") and (size := _wav_size(data, begin, end)):
                    doubts.append(
                        "holds more than its header says; what follows is taken for audio"
                    )
                at, right = size or (end, b"")
                parts.append([slice(begin, at), right, slice(at + len(right), end)])
            if len(parts) == 1 and not parts[0][1]:
                parts = []
        elif (first := _frame(data, start)) and _frame(data, first.end):
            suffix = ".mp3"
            parts, doubts = _mp3(data, start)
        copies = []
        for number, pieces in enumerate(parts):
            copies.append(folder / f"{number}{suffix}")
            with copies[-1].open("wb") as copy, memoryview(data) as view:
                for piece in pieces:
                    copy.write(view[piece] if isinstance(piece, slice) else piece)
        return copies or [path], doubts


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio by the headers, put right where they say too little; nothing is decoded.

    Raises:
        OSError, ValueError, soundfile.LibsndfileError: `AudioReader` says what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="vocoder-") as folder:
        parts, _ = split(Path(path), Path(folder))
        return float(sum(soundfile.info(openable(part)).duration for part in parts))


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


def _page_end(data: Bytes, at: int) -> int:
    table = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
    return at + 27 + len(table) + sum(table)


def _check_ogg(data: Bytes, begin: int, end: int) -> None:
    last = data.rfind(b"OggS\0", begin, end)
    if _page_end(data, last) > end or not data[last + 5] & 4:
        raise ContainerError("is cut off: its last page is missing. Copy or convert it again.")


def _wav_size(data: Bytes, start: int, end: int) -> tuple[int, bytes] | None:
    """Where the size of the samples is in a WAV file, and what it is, if they go on behind it."""
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    at, rate, place = start + 12, 0, 0
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


def _mp3(data: Bytes, at: int) -> tuple[list[Pieces], list[str]]:
    """The frames from each tag, which counts them, to the next; nothing if the only one fits."""
    parts: list[Pieces] = []
    counts: list[int] = []
    kinds: list[tuple[int, int]] = []
    doubts: list[str] = []
    while (at := _after_tags(data, at)) < len(data):
        frame = _frame(data, at)
        if frame is None or not (frame.kind in kinds or _frame(data, frame.end)):
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
            continue
        if frame.end > len(data):
            doubts = ["ends within a frame, so it may have been cut off"]
            break
        if frame.kind not in kinds:
            kinds.append(frame.kind)
        places = frame.body, frame.body + 2
        tag = next((p for p in places if data[p : p + 4] in (b"Xing", b"Info")), 0)
        if tag or data[at + 36 : at + 40] == b"VBRI":
            parts.append([slice(at, frame.end)])
            counted = tag and data[tag + 7] & 1
            counts.append(int.from_bytes(data[tag + 8 : tag + 12], "big") if counted else 0)
        else:
            if not parts:
                parts.append([b""])
                counts.append(0)
            parts[-1].append(slice(at, frame.end))
        at = frame.end
    if len(kinds) > 1:
        (a, b), (c, d) = kinds[:2]
        raise ContainerError(
            f"joins audio of {a:,} Hz, {b} channels, and of {c:,} Hz, {d} channels: split or "
            "convert it."
        )
    for part, count in zip(parts, counts, strict=True):
        frames = len(part) - 1
        if count > frames + 1:  # some encoders count the tag
            raise ContainerError(f"is cut off after {frames:,} of {count:,} frames. Copy it again.")
        if count < frames:
            part[0] = _tag(data[part[1].start : part[1].start + 4], frames)  # type: ignore[union-attr]
    whole = len(parts) == 1 and counts[0] >= len(parts[0]) - 1
    return [] if whole else [part for part in parts if len(part) > 1], doubts


def _tag(head: bytes, frames: int) -> bytes:
    """A frame that counts the frames that follow, like one that begins with these four bytes."""
    made = bytearray(head)
    made[1] |= 1  # no checksum
    made[2] = made[2] & 0x0C | 0x90  # of a bit rate that has room for a tag
    frame = _frame(bytes(made), 0)
    assert frame is not None
    tagged = bytes(made).ljust(frame.body, b"\0") + b"Xing" + struct.pack(">II", 1, frames)
    return tagged.ljust(frame.end, b"\0")
