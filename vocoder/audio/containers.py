"""Files whose headers say less than they hold: joined ones, streams, and counts left open.

libsndfile stops where a header says, so what lies behind would be lost without a word. `split`
walks the file itself: the frames of MP3, the pages of Ogg, the last frame of FLAC, the chunks of
WAV. Where the header is right, which is the rule, nothing is copied.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

Bytes = bytes | mmap.mmap
Pieces = Sequence[bytes | slice]
"""What a file is made of: new bytes, and parts of the old file."""
Parts = tuple[list[Pieces], list[str]]
"""The files to decode instead of one, none if its header is right; and what is doubtful."""

_WAVE = re.compile(rb"RIF[FX].{4}WAVE(?:fmt |JUNK|bext|LIST|fact)", re.DOTALL)
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL)
_AGAIN = {  # how files of other formats begin
    b".snd": re.compile(rb"\.snd\x00\x00\x00.{17}", re.DOTALL),
    b"caff": re.compile(rb"caff\x00\x01\x00\x00desc"),
    b"FORM": re.compile(rb"FORM.{4}AIF[FC]COMM", re.DOTALL),
    b"riff": re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"),
    b"RF64": re.compile(rb"RF64.{4}WAVEds64", re.DOTALL),
}
_LARGEST = 0x7FFF0000  # sizes from here on are those of streams
_FIRST = 1 << 16  # bytes in which an MP3 begins


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
        ContainerError: the file is cut off, damaged or joined of parts that cannot be told apart.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_id3(data, 0)
        magic = data[start : start + 4]
        if magic in _AGAIN:
            _check_single(data, start, _AGAIN[magic])
            return [path], []
        known = {b"RIFF": _wav, b"RIFX": _wav, b"fLaC": _flac, b"OggS": _ogg}
        if magic not in known and not _is_mp3(path, data, start):
            return [path], []
        parts, doubts = known.get(magic, _mp3)(data, start)
        copies = [folder / f"{n}{'' if magic in known else '.mp3'}" for n in range(len(parts))]
        for copy, pieces in zip(copies, parts, strict=True):
            with copy.open("wb") as out, memoryview(data) as view:
                for piece in pieces:
                    out.write(piece if isinstance(piece, bytes) else view[piece])
        return copies or [path], doubts


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio by the headers, put right where they say too little; nothing is decoded.

    Raises:
        OSError, ValueError, soundfile.LibsndfileError: `AudioReader` says what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="vocoder-") as folder:
        parts, _ = split(Path(path), Path(folder))
        return float(sum(soundfile.info(openable(part)).duration for part in parts))


def _check_single(data: Bytes, start: int, begins: re.Pattern[bytes]) -> None:
    joined = any(match.start() > start for match in begins.finditer(data))
    offset, size = struct.unpack(">II", data[start + 4 : start + 12].ljust(8, b"\0"))
    short = data[start : start + 4] == b".snd" and start + offset + size + 1024 < len(data)
    if joined or (short and size < _LARGEST):
        raise ContainerError("holds more than its header says: split it, or convert it to WAV.")


def _after_id3(data: Bytes, at: int) -> int:
    """The position behind the ID3v2 tags at a position."""
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d)
    return at


# ---- MP3 ------------------------------------------------------------------------------------

_RATES = (44100, 48000, 32000)
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class _Frame(NamedTuple):
    """An MP3 frame: where it ends, what all frames of a stream share, and its side information."""

    end: int
    kind: tuple[int, int, bool]
    side: int


def _frame(data: Bytes, at: int) -> _Frame | None:
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # layer III
        return None
    version, bits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, head[3] >> 6 == 3
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    length = (144 if first else 72) * _KBITS[first][bits] * 1000 // hertz + (head[2] >> 1 & 1)
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(at + length, (version, hertz, mono), side)


def _goes_on(data: Bytes, frame: _Frame) -> bool:
    """Whether a frame of the same kind follows: a single header may be chance."""
    following = _frame(data, frame.end)
    return following is not None and following.kind == frame.kind


def _is_mp3(path: Path, data: Bytes, at: int) -> bool:
    first = _frame(data, at)
    if first is not None and _frame(data, first.end) is not None:
        return True
    # libsndfile complains of joined MP3s on standard error, so it is asked as a last resort.
    with suppress(soundfile.LibsndfileError):
        return bool(soundfile.info(openable(path)).format == "MP3")
    return False


def _mp3_frames(data: Bytes, at: int) -> Iterator[tuple[int, int, _Frame]]:
    """(end of the frame before, beginning, frame) of each frame."""
    last, kind, farthest = at, None, _FIRST + at
    while 0 <= at < len(data) and (kind or at <= farthest):
        frame = _frame(data, at)
        if frame and (
            (at == last and frame.kind == kind)
            or _goes_on(data, frame)
            or (at > last and kind and frame.end == len(data))
        ):
            yield last, at, frame
            last, at, kind = frame.end, frame.end, frame.kind
        elif (behind := _after_id3(data, at)) > at:
            at = behind
        else:
            at = data.find(b"\xff", at + 1)


class _Mp3Part:
    """The frames from one tag, which counts them, to the next."""

    def __init__(self, frame: _Frame, first: bytes, place: int) -> None:
        counts = place and first[place : place + 4] != b"VBRI" and first[place + 7] & 1
        self.counted = int.from_bytes(first[place + 8 : place + 12], "big") if counts else 0
        self.kind, self.head, self.place = frame.kind, bytearray(first), place
        self.frames = 0
        self.runs: list[slice] = []

    def add(self, at: int, end: int) -> None:
        self.frames += 1
        if self.runs and self.runs[-1].stop == at:
            at = self.runs.pop().start
        self.runs.append(slice(at, end))

    def pieces(self) -> Pieces:
        head, place = self.head, self.place
        if not self.counted:
            head[1] |= 1  # no checksum
            head[2] = head[2] & 0x0C | 0x90  # of a bit rate that has room for a tag
            made = _frame(bytes(head), 0)
            assert made is not None
            place = 4 + made.side
            head = (head[:4] + bytes(made.side) + b"Xing\0\0\0\1").ljust(made.end, b"\0")
        head[place + 8 : place + 12] = max(self.frames, self.counted).to_bytes(4, "big")
        if head[place + 7] & 2:
            size = len(head) + sum(run.stop - run.start for run in self.runs)
            head[place + 12 : place + 16] = size.to_bytes(4, "big")
        return [bytes(head), *self.runs]


def _mp3(data: Bytes, at: int) -> Parts:
    if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] and data[at + 1] & 6 != 2:
        return [], []  # another layer
    parts: list[_Mp3Part] = []
    doubts: list[str] = []
    skipped = 0
    for last, begin, frame in _mp3_frames(data, at):
        if frame.end > len(data):
            doubts.append("ends within a frame, so it may have been cut off")
            break
        gap = data[last:begin].strip(b"\0")
        if parts and b"ID3" not in gap and b"TAG" not in gap:  # of ID3v1 and APE
            skipped += len(gap)
        place = _tag(data[begin : frame.end], frame)
        if place or not parts or frame.kind != parts[-1].kind:
            parts.append(_Mp3Part(frame, data[begin : frame.end], place))
        if not place:
            parts[-1].add(begin, frame.end)
    parts = [part for part in parts if part.frames]
    if skipped:
        doubts.append(f"has {skipped:,} bytes between its frames that are no audio; they are left")
    if len(parts) == 1 and parts[0].counted >= parts[0].frames:
        return [], []  # and libsndfile's count tells if it was cut off
    return [part.pieces() for part in parts], doubts


def _tag(frame: bytes, about: _Frame) -> int:
    """Where in a frame the tag is that makes it no audio, or 0."""
    for place in (4 + about.side, 6 + about.side, 36):
        names = (b"VBRI",) if place == 36 and frame[36:40] == b"VBRI" else (b"Xing", b"Info")
        if frame[place : place + 4] in names and place + 12 <= len(frame):
            return place
    return 0


# ---- Ogg ------------------------------------------------------------------------------------

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Ogg's checksum: that of zlib from 0 on, with the bits in reverse."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _ogg_pages(data: Bytes, at: int) -> Iterator[slice]:
    while at >= 0:
        table = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
        end = at + 27 + len(table) + sum(table)
        if at + 27 > len(data) or len(table) < data[at + 26] or end > len(data):
            raise ContainerError("is cut off: its last page is missing. Copy it again.")
        yield slice(at, end)
        at = end if data[end : end + 5] == b"OggS\0" else data.find(b"OggS\0", end)


def _ogg(data: Bytes, at: int) -> Parts:
    starts: list[int] = []  # of the links of a chain
    last: list[slice | None] = []  # the last page of each, unless that says so
    streams: set[bytes] = set()
    begun = False
    for page in _ogg_pages(data, at):
        flags, serial = data[page.start + 5], data[page.start + 14 : page.start + 18]
        if flags & 2 and not begun:  # several streams may begin together
            starts.append(page.start)
            last.append(None)
            streams.clear()
        begun = bool(flags & 2)
        if begun:
            streams.add(serial)
        elif serial not in streams:
            raise ContainerError("is damaged: the beginning of a stream is missing. Copy it again.")
        last[-1] = None if flags & 4 else page
    if not any(last) and len(starts) < 2:
        return [], []
    parts: list[Pieces] = []
    for final, (begin, end) in zip(last, pairwise([*starts, len(data)]), strict=True):
        if final is None:
            parts.append([slice(begin, end)])
            continue
        # Without the end, libsndfile loses the last block.
        mended = bytearray(data[final])
        mended[5] |= 4
        mended[22:26] = bytes(4)
        mended[22:26] = _ogg_crc(bytes(mended)).to_bytes(4, "little")
        parts.append([slice(begin, final.start), bytes(mended), slice(final.stop, end)])
    doubt = "does not say that it ends: if it was cut off, its last part is missing"
    return parts, [doubt] if any(last) else []


# ---- FLAC -----------------------------------------------------------------------------------


def _flac(data: Bytes, start: int) -> Parts:
    starts = [match.start() for match in _FLAC.finditer(data, start)]
    parts: list[Pieces] = []
    doubts: list[str] = []
    for begin, end in pairwise([*starts, len(data)]):
        field = begin + 18
        about = int.from_bytes(data[field : field + 8], "big")
        declared, found = about & (2**36 - 1), _flac_samples(data, begin, end)
        if declared >= found:
            parts.append([slice(begin, end)])
            continue
        if declared:
            doubts.append(f"holds {found:,} samples, though its header says {declared:,}")
        right = (about - declared + found).to_bytes(8, "big")
        parts.append([slice(begin, field), right, slice(field + 8, end)])
    mended = len(parts) > 1 or any(len(pieces) > 1 for pieces in parts)
    return (parts if mended else []), doubts


def _flac_samples(data: Bytes, at: int, end: int) -> int:
    """Samples up to the last frame of a FLAC stream by its number, 0 if there is none."""
    at, last = at + 4, 0
    while at + 4 < end and not last:  # blocks of metadata
        last = data[at] & 0x80
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    first = _flac_frame(data, at)
    if first is None:
        return 0
    sync, alike = data[at : at + 2], (data[at + 2] & 0x0F, data[at + 3] & 0x0E)
    place = end
    while (place := data.rfind(sync, at, place)) >= 0:
        frame = _flac_frame(data, place)
        if frame and (data[place + 2] & 0x0F, data[place + 3] & 0x0E) == alike:
            return (frame[0] if sync[1] & 1 else frame[0] * first[1]) + frame[1]
    return 0


def _flac_frame(data: Bytes, at: int) -> tuple[int, int] | None:
    """Number and samples of the FLAC frame at a position, None if there is none."""
    head = data[at : at + 16]
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    more = 8 - (head[4] ^ 0xFF).bit_length()  # ones at the front, as in UTF-8
    code, place = head[2] >> 4, 4 + (more or 1)
    if code == 0 or more in (1, 8):
        return None
    number = head[4] & (0x7F >> more)
    for byte in head[5:place]:
        number = number << 6 | byte & 0x3F
    if code in (6, 7):
        samples = int.from_bytes(head[place : place + code - 5], "big") + 1
        place += code - 5
    else:
        samples = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    crc = 0
    for byte in head[:place]:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x107 if crc & 0x80 else 0)) & 0xFF
    return (number, samples) if head[place : place + 1] == bytes([crc]) else None


# ---- WAV ------------------------------------------------------------------------------------


def _wav(data: Bytes, start: int) -> Parts:
    starts = [match.start() for match in _WAVE.finditer(data, start)]
    parts: list[Pieces] = []
    doubts: list[str] = []
    for begin, end in pairwise([*starts, len(data)]):
        order = ">" if data[begin : begin + 4] == b"RIFX" else "<"
        place = _understated(data, begin, end, order)
        if place:
            doubts.append("holds more than its header says; what follows is taken for audio")
            size = struct.pack(order + "I", min(end - place - 4, 0xFFFFFFFF))
            parts.append([slice(begin, place), size, slice(place + 4, end)])
        else:
            parts.append([slice(begin, end)])
    return (parts if len(parts) > 1 or doubts else []), doubts


def _understated(data: Bytes, start: int, end: int, order: str) -> int:
    """Where the size of the samples is in a WAV file, if they go on behind it, else 0."""
    at, rate, place = start + 12, 0, 0
    while at + 8 <= end:
        name, (size,) = data[at : at + 4], struct.unpack(order + "I", data[at + 4 : at + 8])
        sound = all(32 <= c < 127 for c in name) and at + 8 + size <= end
        if place and not sound:
            left = data[at:end]
            # Zeros alone are padding, unless the size was never filled in.
            lost = len(left) > DOUBTFUL * rate and (at == place + 4 or left.strip(b"\0"))
            return place if lost else 0
        if name == b"fmt " and at + 20 <= end:
            (rate,) = struct.unpack(order + "I", data[at + 16 : at + 20])
        if name == b"data":
            if size >= _LARGEST or at + 8 + size >= end:
                return 0
            place = at + 4
        at += 8 + size + size % 2
    return 0
