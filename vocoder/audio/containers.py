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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import soundfile

DOUBTFUL = 0.01
"""Seconds that a header may be wrong by: a header counted among the samples, not a lost end."""

Bytes = bytes | mmap.mmap

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


class Patch(NamedTuple):
    """New bytes for those from `start` to `stop`."""

    start: int
    stop: int
    new: bytes = b""


@dataclass
class Part:
    """A stretch of a file to decode by itself, with a right header, and what is doubtful in it."""

    start: int
    stop: int
    patches: list[Patch] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    frames: int = 0
    """Of MP3, with audio in them."""

    def write(self, data: Bytes, copy: Path) -> Path:
        """The part with its patches, as a file of its own."""
        at = self.start
        with copy.open("wb") as out, memoryview(data) as view:
            for patch in self.patches:
                out.write(view[at : patch.start])
                out.write(patch.new)
                at = patch.stop
            out.write(view[at : self.stop])
        return copy


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
        ValueError: the file is cut off, damaged or joined of parts that cannot be told apart; what
            to put behind its name.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_id3(data, 0)
        known = {b"RIFF": _wav, b"RIFX": _wav, b"fLaC": _flac, b"OggS": _ogg}
        magic = data[start : start + 4]
        walk = known.get(magic)
        if magic in _AGAIN:
            _check_single(data, start, _AGAIN[magic])
        elif walk is None and _is_mp3(path, data, start):
            walk = _mp3
        parts = list(walk(data, start)) if walk else []
        doubts = list(dict.fromkeys(doubt for part in parts for doubt in part.doubts))
        if not parts or (len(parts) == 1 and not parts[0].patches):
            return [path], doubts
        # libsndfile takes an MP3 without this suffix for something else now and then.
        return [part.write(data, folder / f"{n}.mp3") for n, part in enumerate(parts)], doubts


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
        raise ValueError("holds more than its header says: split it, or convert it to WAV.")


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
    start: int
    stop: int
    kind: tuple[int, int, bool]
    """What all frames of a stream share."""
    side: int
    """Bytes of side information."""
    tag: int
    """Where in the frame the tag is that makes it no audio, or 0."""

    def counted(self, data: Bytes) -> int:
        """The number of frames that the tag gives, or 0."""
        at = self.start + self.tag
        if not self.tag or data[at : at + 4] == b"VBRI" or not data[at + 7] & 1:
            return 0
        return int.from_bytes(data[at + 8 : at + 12], "big")


def mp3_frame(data: Bytes, at: int) -> _Frame | None:
    """The MP3 frame at a position, if its header is one."""
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
    tags = [(place, (b"Xing", b"Info")) for place in (4 + side, 6 + side)] + [(36, (b"VBRI",))]
    tag = next((p for p, names in tags if data[at + p : at + p + 4] in names), 0)
    return _Frame(at, at + length, (version, hertz, mono), side, tag if tag + 12 <= length else 0)


def _goes_on(data: Bytes, frame: _Frame) -> bool:
    """Whether a frame of the same kind follows: a single header may be chance."""
    following = mp3_frame(data, frame.stop)
    return following is not None and following.kind == frame.kind


def _is_mp3(path: Path, data: Bytes, at: int) -> bool:
    first = mp3_frame(data, at)
    if first is not None and mp3_frame(data, first.stop) is not None:
        return True
    # libsndfile complains of joined MP3s on standard error, so it is asked as a last resort.
    with suppress(soundfile.LibsndfileError):
        return bool(soundfile.info(openable(path)).format == "MP3")
    return False


def _mp3_frames(data: Bytes, at: int) -> Iterator[_Frame]:
    last, kind, farthest = at, None, _FIRST + at
    while 0 <= at < len(data) and (kind or at <= farthest):
        frame = mp3_frame(data, at)
        if frame and (
            (at == last and frame.kind == kind)
            or _goes_on(data, frame)
            or (at > last and kind and frame.stop == len(data))
        ):
            yield frame
            last, at, kind = frame.stop, frame.stop, frame.kind
        elif (behind := _after_id3(data, at)) > at:
            at = behind
        else:
            at = data.find(b"\xff", at + 1)


def _mp3(data: Bytes, at: int) -> Iterator[Part]:
    """A part from each tag, or change of kind, to the next."""
    if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] and data[at + 1] & 6 != 2:
        return  # another layer
    doubts: list[str] = []
    groups: list[tuple[_Frame, Part]] = []
    skipped, last = 0, None
    for frame in _mp3_frames(data, at):
        if frame.stop > len(data):
            doubts.append("ends within a frame, so it may have been cut off")
            break
        gap = data[last.stop : frame.start].strip(b"\0") if last else b""
        if b"ID3" not in gap and b"TAG" not in gap:  # of ID3v1 and APE
            skipped += len(gap)
        if last is None or frame.tag or frame.kind != last.kind:
            groups.append((frame, Part(frame.start, frame.stop, doubts=doubts)))
        elif last.stop < frame.start:
            groups[-1][1].patches.append(Patch(last.stop, frame.start))
        part, last = groups[-1][1], frame
        part.stop, part.frames = frame.stop, part.frames + (not frame.tag)
    groups = [(head, part) for head, part in groups if part.frames]
    if skipped:
        doubts.append(f"has {skipped:,} bytes between its frames that are no audio; they are left")
    for head, part in groups:
        counted, place = head.counted(data), head.start + head.tag + 8
        if len(groups) == 1 and counted >= part.frames:
            return  # and libsndfile's count tells if it was cut off
        count = max(part.frames, counted).to_bytes(4, "big")
        patch = Patch(place, place + 4, count)
        if not counted:
            made = _counting(data[head.start : head.start + 4], count)
            patch = Patch(head.start, head.stop if head.tag else head.start, made)
        part.patches.insert(0, patch)
        yield part


def _counting(header: bytes, count: bytes) -> bytes:
    """A frame that only gives the number of frames in a stream, by the header of one of them."""
    # Without a checksum, of a bit rate that has room for the tag.
    header = bytes([header[0], header[1] | 1, header[2] & 0x0C | 0x90, header[3]])
    made = mp3_frame(header, 0)
    assert made is not None
    return (header + bytes(made.side) + b"Xing\0\0\0\1" + count).ljust(made.stop, b"\0")


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
            raise ValueError("is cut off: its last page is missing. Copy it again.")
        yield slice(at, end)
        at = end if data[end : end + 5] == b"OggS\0" else data.find(b"OggS\0", end)


def _ogg(data: Bytes, at: int) -> Iterator[Part]:
    """A part for each link of a chain."""
    links: dict[int, slice] = {}  # where each begins -> its last page
    streams: set[bytes] = set()
    begun, link = False, at
    for page in _ogg_pages(data, at):
        serial = data[page.start + 14 : page.start + 18]
        begins = bool(data[page.start + 5] & 2)
        if begins and not begun:  # several streams may begin together
            link, streams = page.start, set()
        if begins:
            streams.add(serial)
        elif serial not in streams:
            raise ValueError("is damaged: the beginning of a stream is missing. Copy it again.")
        begun, links[link] = begins, page
    for (start, page), stop in zip(links.items(), [*list(links)[1:], len(data)], strict=True):
        part = Part(start, stop)
        if not data[page.start + 5] & 4:  # without the end, libsndfile loses the last block
            mended = bytearray(data[page])
            mended[5] |= 4
            mended[22:26] = bytes(4)
            mended[22:26] = _ogg_crc(bytes(mended)).to_bytes(4, "little")
            part.patches.append(Patch(page.start, page.stop, bytes(mended)))
            part.doubts.append(
                "does not say that it ends: if it was cut off, its last part is missing"
            )
        yield part


# ---- FLAC -----------------------------------------------------------------------------------


def _flac(data: Bytes, at: int) -> Iterator[Part]:
    for part in _beginning(data, at, _FLAC):
        place, samples = part.start + 18, _flac_samples(data, part.start, part.stop)
        about = int.from_bytes(data[place : place + 8], "big")
        declared = about & (2**36 - 1)
        if declared < samples:
            right = (about - declared + samples).to_bytes(8, "big")
            part.patches.append(Patch(place, place + 8, right))
            if declared:
                part.doubts.append(
                    f"holds {samples:,} samples, though its header says {declared:,}"
                )
        yield part


def _beginning(data: Bytes, at: int, begins: re.Pattern[bytes]) -> Iterator[Part]:
    """A part from each match to the next."""
    starts = [match.start() for match in begins.finditer(data, at)]
    return (Part(start, stop) for start, stop in pairwise([*starts, len(data)]))


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


def _wav(data: Bytes, at: int) -> Iterator[Part]:
    for part in _beginning(data, at, _WAVE):
        order = ">" if data[part.start : part.start + 4] == b"RIFX" else "<"
        if place := _understated(data, part, order):
            size = struct.pack(order + "I", min(part.stop - place - 4, 0xFFFFFFFF))
            part.patches.append(Patch(place, place + 4, size))
            part.doubts.append("holds more than its header says; what follows is taken for audio")
        yield part


def _understated(data: Bytes, part: Part, order: str) -> int:
    """Where the size of the samples is in a WAV file, if they go on behind it, else 0."""
    at, end, rate, place = part.start + 12, part.stop, 0, 0
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
