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
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

Bytes = bytes | mmap.mmap
Pieces = Sequence[bytes | slice]
"""What a file is made of: new bytes, and parts of the old file."""

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
        first = _frame(data, start)
        # libsndfile complains of joined MP3s on standard error, so it is asked as a last resort.
        plain = first is not None and _frame(data, first.end) is not None
        if magic not in known and not plain and not _is_mp3(path):
            return [path], []
        parts, doubts = known.get(magic, _mp3)(data, start)
        if not parts:
            return [path], doubts
        copies = []
        for number, pieces in enumerate(parts):
            copies.append(folder / f"{number}{'' if magic in known else '.mp3'}")
            with copies[-1].open("wb") as copy, memoryview(data) as view:
                for piece in pieces:
                    copy.write(piece if isinstance(piece, bytes) else view[piece])
        return copies, doubts


def duration(path: str | os.PathLike[str]) -> float:
    """Seconds of audio by the headers, put right where they say too little; nothing is decoded.

    Raises:
        OSError, ValueError, soundfile.LibsndfileError: `AudioReader` says what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="vocoder-") as folder:
        parts, _ = split(Path(path), Path(folder))
        return float(sum(soundfile.info(openable(part)).duration for part in parts))


def _is_mp3(path: Path) -> bool:
    try:
        return bool(soundfile.info(openable(path)).format == "MP3")
    except soundfile.LibsndfileError:
        return False


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

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class _Frame(NamedTuple):
    """An MP3 frame: where it ends, what all frames of a stream share, where a tag would be."""

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
    hertz = _RATES[version][rate]
    length = (144 if first else 72) * _KBITS[first][bits] * 1000 // hertz + (head[2] >> 1 & 1)
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(at + length, (version, hertz, mono), side)


class _Mp3Part:
    """The frames from one tag, which counts them, to the next."""

    def __init__(self, data: Bytes, at: int, frame: _Frame, tag: int) -> None:
        self.at, self.frame, self.tag = at, frame, tag
        self.frames = 0
        self.runs: list[list[int]] = []
        known = (
            tag + 12 <= frame.end and tag and data[tag : tag + 4] != b"VBRI" and data[tag + 7] & 1
        )
        self.counted = int.from_bytes(data[tag + 8 : tag + 12], "big") if known else 0

    def add(self, at: int, end: int) -> None:
        self.frames += 1
        if self.runs and self.runs[-1][1] == at:
            self.runs[-1][1] = end
        else:
            self.runs.append([at, end])

    def pieces(self, data: Bytes) -> Pieces:
        audio = [slice(*run) for run in self.runs]
        if self.counted:
            head = bytearray(data[self.at : self.frame.end])
            place = self.tag - self.at
            head[place + 8 : place + 12] = max(self.frames, self.counted).to_bytes(4, "big")
            if head[place + 7] & 2:
                size = len(head) + sum(run.stop - run.start for run in audio)
                head[place + 12 : place + 16] = size.to_bytes(4, "big")
            return [bytes(head), *audio]
        first = bytearray(data[self.at : self.at + 4])
        first[1] |= 1  # no checksum
        first[2] = first[2] & 0x0C | 0x90  # of a bit rate that has room for a tag
        made = _frame(bytes(first), 0)
        assert made is not None
        tag = bytes(first) + bytes(made.side) + b"Xing" + struct.pack(">II", 1, self.frames)
        return [tag.ljust(made.end, b"\0"), *audio]


def _mp3(data: Bytes, at: int) -> tuple[list[Pieces], list[str]]:
    parts: list[_Mp3Part] = []
    doubts: list[str] = []
    skipped = 0
    if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] > b"" and data[at + 1] & 6 != 2:
        return [], []  # another layer
    while at < len(data):
        frame = _frame(data, at)
        current = parts[-1] if parts else None
        if frame and (current is None or frame.kind != current.frame.kind):
            # A single header may be chance.
            following = _frame(data, frame.end)
            if not (following and following.kind == frame.kind):
                frame = None
        if frame is None:
            at, unknown = _next_frame(data, at)
            if not parts and at > _FIRST + _after_id3(data, 0):
                return [], []
            skipped += unknown if at < len(data) and parts else 0
            continue
        if frame.end > len(data):
            doubts.append("ends within a frame, so it may have been cut off")
            break
        tag = _tag(data, at, frame)
        if tag or current is None or frame.kind != current.frame.kind:
            parts.append(_Mp3Part(data, at, frame, tag))
        if not tag:
            parts[-1].add(at, frame.end)
        at = frame.end
    parts = [part for part in parts if part.frames]
    if skipped:
        doubts.append(f"has {skipped:,} bytes between its frames that are no audio; they are left")
    if len(parts) == 1 and parts[0].counted >= parts[0].frames:
        return [], []  # and libsndfile's count tells if it was cut off
    return [part.pieces(data) for part in parts], doubts


def _tag(data: Bytes, at: int, frame: _Frame) -> int:
    """Where in a frame the tag is that makes it no audio, or 0."""
    for place, names in (
        (at + 4 + frame.side, (b"Xing", b"Info")),
        (at + 6 + frame.side, (b"Xing", b"Info")),
        (at + 36, (b"VBRI",)),
    ):
        if data[place : place + 4] in names:
            return place
    return 0


def _next_frame(data: Bytes, at: int) -> tuple[int, int]:
    """Where the next frame may be, and how many bytes before it belong to no tag."""
    if (behind := _after_id3(data, at)) > at:
        return behind, 0
    if data[at : at + 3] == b"TAG":
        return at + 128, 0
    if data[at : at + 8] == b"APETAGEX":
        header = data[at + 23] & 0x20 if at + 32 <= len(data) else 0
        size = int.from_bytes(data[at + 12 : at + 16], "little") if header else 0
        return at + 32 + size, 0
    place = at + 1
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            return len(data), 0
        frame = _frame(data, place)
        if frame:
            following = _frame(data, frame.end)
            if (following and following.kind == frame.kind) or frame.end == len(data):
                return place, _untagged(data, at, place)
        place += 1


def _untagged(data: Bytes, at: int, end: int) -> int:
    """Bytes of a gap that begin no tag: other encoders' tags and zeros are nothing lost."""
    gap = data[at:end]
    return 0 if not gap.strip(b"\0") or b"ID3" in gap or b"TAG" in gap else len(gap)


# ---- Ogg ------------------------------------------------------------------------------------


def _ogg(data: Bytes, at: int) -> tuple[list[Pieces], list[str]]:
    cut = "is cut off: its last page is missing. Copy it again."
    starts: list[int] = []
    open_ends: dict[int, int] = {}  # chain link -> its last page, unless that says so
    streams: set[bytes] = set()
    begun = True
    while at >= 0:
        table = data[at + 27 : at + 27 + data[at + 26]] if at + 27 <= len(data) else b""
        end = at + 27 + len(table) + sum(table)
        if at + 27 > len(data) or len(table) < data[at + 26] or end > len(data):
            raise ContainerError(cut)
        flags, serial = data[at + 5], data[at + 14 : at + 18]
        if flags & 2 and begun:  # a link of a chain; several streams may begin together
            starts.append(at)
            streams.clear()
        begun = not flags & 2
        if flags & 2:
            streams.add(serial)
        elif serial not in streams:
            raise ContainerError("is damaged: the beginning of a stream is missing. Copy it again.")
        open_ends[len(starts)] = at
        if flags & 4:
            del open_ends[len(starts)]
        at = end if data[end : end + 5] == b"OggS\0" else data.find(b"OggS\0", end)
    if not open_ends and len(starts) < 2:
        return [], []
    doubts = ["does not say that it ends: if it was cut off, its last part is missing"]
    parts: list[Pieces] = []
    for number, (begin, end) in enumerate(pairwise([*starts, len(data)]), 1):
        page = open_ends.get(number)
        if page is None:
            parts.append([slice(begin, end)])
            continue
        # Without the end, libsndfile loses the last block.
        table = data[page + 27 : page + 27 + data[page + 26]]
        behind = page + 27 + len(table) + sum(table)
        mended = bytearray(data[page:behind])
        mended[5] |= 4
        mended[22:26] = bytes(4)
        mended[22:26] = _ogg_crc(bytes(mended)).to_bytes(4, "little")
        parts.append([slice(begin, page), bytes(mended), slice(behind, end)])
    return parts, doubts if open_ends else []


@lru_cache(maxsize=1)
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


def _ogg_crc(page: bytes) -> int:
    crc, table = 0, _crc_table()
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc


# ---- FLAC -----------------------------------------------------------------------------------


def _flac(data: Bytes, start: int) -> tuple[list[Pieces], list[str]]:
    starts = [match.start() for match in _FLAC.finditer(data, start)]
    parts: list[Pieces] = []
    doubts: list[str] = []
    mended = len(starts) > 1
    for begin, end in pairwise([*starts, len(data)]):
        field = begin + 18
        about = int.from_bytes(data[field : field + 8], "big")
        declared, found = about & (2**36 - 1), _flac_samples(data, begin, end)
        if not found or declared >= found:
            parts.append([slice(begin, end)])
            continue
        if declared:
            doubts.append(f"holds {found:,} samples, though its header says {declared:,}")
        mended = True
        right = (about - declared + found).to_bytes(8, "big")
        parts.append([slice(begin, field), right, slice(field + 8, end)])
    return (parts if mended else []), doubts


def _flac_samples(data: Bytes, at: int, end: int) -> int:
    """Samples up to the last frame of a FLAC stream by its number, 0 if there is none."""
    at += 4
    while at + 4 < end:  # blocks of metadata
        last = data[at] & 0x80
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
        if last:
            break
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
    size = more or 1
    if more in (1, 8) or len(head) < 4 + size + 4:
        return None
    number = head[4] & (0x7F >> more)
    for byte in head[5 : 4 + size]:
        number = number << 6 | byte & 0x3F
    code, place = head[2] >> 4, 4 + size
    if code == 0:
        return None
    if code in (6, 7):
        length = code - 5
        samples = int.from_bytes(head[place : place + length], "big") + 1
        place += length
    else:
        samples = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    place += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    return number, samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x107 if crc & 0x80 else 0)) & 0xFF
    return crc


# ---- WAV ------------------------------------------------------------------------------------


def _wav(data: Bytes, start: int) -> tuple[list[Pieces], list[str]]:
    starts = [match.start() for match in _WAVE.finditer(data, start)]
    parts: list[Pieces] = []
    doubts: list[str] = []
    for begin, end in pairwise([*starts, len(data)]):
        place = _understated(data, begin, end)
        if place:
            doubts.append("holds more than its header says; what follows is taken for audio")
            order = "big" if data[begin : begin + 4] == b"RIFX" else "little"
            size = min(end - place - 4, 0xFFFFFFFF).to_bytes(4, order)  # type: ignore[arg-type]
            parts.append([slice(begin, place), size, slice(place + 4, end)])
        else:
            parts.append([slice(begin, end)])
    return (parts if len(parts) > 1 or doubts else []), doubts


def _understated(data: Bytes, start: int, end: int) -> int:
    """Where the size of the samples is in a WAV file, if they go on behind it, else 0."""
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    at, rate, place = start + 12, 0, 0
    while at + 8 <= end:
        name, (size,) = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])
        sound = all(32 <= c < 127 for c in name) and at + 8 + size <= end
        if place and not sound:
            left = data[at:end]
            # Zeros alone are padding, unless the size was never filled in.
            lost = len(left) > DOUBTFUL * rate and (at == place + 4 or left.strip(b"\0"))
            return place if lost else 0
        if name == b"fmt " and at + 20 <= end:
            (rate,) = struct.unpack(f"{order}I", data[at + 16 : at + 20])
        if name == b"data":
            if size >= _LARGEST or at + 8 + size >= end:
                return 0
            place = at + 4
        at += 8 + size + size % 2
    return 0
