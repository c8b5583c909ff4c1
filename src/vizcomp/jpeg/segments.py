"""Markers and metadata segments of a JPEG, and the orientation in its EXIF block."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from vizcomp.errors import FormatError, SettingsError, TruncatedError
from vizcomp.jpeg.exif import essential_exif
from vizcomp.jpeg.image import Segment
from vizcomp.jpeg.xmp import EXTENDED, MAIN, without_pointer, xmp_segments

# Low bytes of markers (T.81, table B.1).
SOI, EOI, SOS, DQT, DHT, DRI, DNL, DAC, COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC, 0xCC, 0xFE
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
MAX_PAYLOAD = 65533

# How the payloads of APPn segments begin.
JFIF, EXIF, ICC = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0"
_JFXX, _MPF, _ADOBE = b"JFXX\0", b"MPF\0", b"Adobe"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496"

BROKEN_HINT = "the file is damaged; get it again from its source"

_ORIENTATION = 0x0112
# By type of a TIFF field: size and how a value is stored; of RATIONAL and SRATIONAL two numbers.
_WHOLE_NUMBERS = {
    1: (1, "B"),
    3: (2, "H"),
    4: (4, "I"),
    6: (1, "b"),
    8: (2, "h"),
    9: (4, "i"),
    5: (8, "II"),
    10: (8, "ii"),
}
_GAIN_MAP = re.compile(rb"hdr-?gain-?map|hdrgm:|GainMap", re.IGNORECASE)
_VIDEO = re.compile(rb"""(?:MotionPhoto|MicroVideo)\s*(?:=\s*["']|>)\s*1|video/(?:mp4|quicktime)""")
_TRAILING_VIDEO = re.compile(rb"ftyp(?:mp4|iso|qt  |3gp|avc1|heic|mif1)")
# Neither a stuffed byte, nor a restart, nor fill.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


# --- markers --------------------------------------------------------------------------------------


class Marker(NamedTuple):
    """A marker segment.

    Attributes:
        code: the marker's low byte.
        payload: what follows its length.
        end: index of the byte after it; of SOS, where the entropy-coded data begin.
    """

    code: int
    payload: bytes
    end: int


def markers(data: bytes) -> Iterator[Marker]:
    """Marker segments up to EOI, which has an empty payload. Entropy-coded data are skipped.

    Other bytes between segments are skipped too, as are fill bytes and markers without a segment.

    Args:
        data: begin with SOI.

    Raises:
        FormatError: a length is impossible, or a second SOI comes before EOI.
        TruncatedError: the data end inside a segment. That they end before EOI is no error.
    """
    place = 2
    while True:
        at = data.find(b"\xff", place)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if at < 0 or at >= len(data):
            return
        code, place = data[at], at + 1
        if code == EOI:
            yield Marker(code, b"", place)
            return
        if code in (0, 1) or 0xD0 <= code <= 0xD7:
            continue
        if code == SOI:
            raise FormatError("a second picture starts inside the first", BROKEN_HINT)
        if at + 3 > len(data):
            raise TruncatedError("the file ends inside a marker segment", BROKEN_HINT)
        length = data[at + 1] << 8 | data[at + 2]
        if length < 2:
            raise FormatError(
                f"marker FF{code:02X} has the impossible length {length}", BROKEN_HINT
            )
        place = at + 1 + length
        if place > len(data):
            raise TruncatedError("the file ends inside a marker segment", BROKEN_HINT)
        yield Marker(code, data[at + 3 : place], place)
        if code == SOS:
            place = scan_end(data, place)


def chroma_sampling(data: bytes) -> str:
    """How a JPEG's chroma is sampled: "4:2:0", "4:2:2", "4:4:0" or "4:4:4"; "" where it has none,
    or in another way."""
    with contextlib.suppress(FormatError):
        for code, payload, _ in markers(data):
            if 0xC0 <= code <= 0xCF and code not in (DHT, 0xC8, DAC):
                factors = (
                    [payload[7 + 3 * i] for i in range(payload[5])]
                    if len(payload) == 6 + 3 * payload[5]
                    else []
                )
                if (
                    len(factors) != 3
                    or factors[1] != factors[2]
                    or not all(f & 15 and f >> 4 for f in factors)
                ):
                    return ""
                for times, name in (
                    (0x22, "4:2:0"),
                    (0x21, "4:2:2"),
                    (0x12, "4:4:0"),
                    (0x11, "4:4:4"),
                ):
                    across, down = (
                        (times >> 4) * (factors[1] >> 4),
                        (times & 15) * (factors[1] & 15),
                    )
                    if factors[0] == across << 4 | down:
                        return name
                return ""
    return ""


def scan_end(data: bytes, start: int) -> int:
    """Index of the marker that ends the scan data from `start` on; else the data's length."""
    match = _SCAN_END.search(data, start)
    return match.start() if match else len(data)


# --- metadata -------------------------------------------------------------------------------------


def is_jfif(segment: Segment) -> bool:
    return segment[0] == APP0 and segment[1].startswith(JFIF)


def is_adobe(segment: Segment) -> bool:
    """Whether it is Adobe's segment, long enough to hold its colour transform: payload[11]."""
    return segment[0] == APP14 and segment[1].startswith(_ADOBE) and len(segment[1]) >= 12


def without_adobe(segments: Sequence[Segment]) -> list[Segment]:
    """All but Adobe's segments, cut ones too."""
    return [s for s in segments if not (s[0] == APP14 and s[1].startswith(_ADOBE))]


def adobe_segment(transform: int) -> Segment:
    """Adobe's segment with a colour transform: 0 none, 1 YCbCr, 2 YCCK."""
    return APP14, _ADOBE + b"\0\x64\0\0\0\0" + bytes([transform])


def metadata_segments(
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> list[Segment]:
    """Metadata of another format as JPEG segments; what does not fit into segments is left out.

    Args:
        icc: a colour profile, split as ICC.1 annex B says; at most 255 parts.
        exif: a TIFF structure, with or without its "Exif" header. Of more than 65527 bytes the
            essential part alone is written.
        xmp: a packet; of more than 65504 bytes as an extended one.
        dpi: pixels an inch, across and down.
    """
    segments: list[Segment] = []
    density = [round(value) for value in dpi or (0, 0)]
    if all(1 <= value <= 65535 for value in density):
        segments.append((APP0, JFIF + struct.pack(">BBBHHBB", 1, 1, 1, *density, 0, 0)))
    if exif:
        whole = (APP1, exif if exif.startswith(EXIF) else EXIF + exif)
        segments += [whole] if len(whole[1]) <= MAX_PAYLOAD else _essential_alone(whole)
    if xmp:
        segments += xmp_segments(xmp)
    if icc:
        size = MAX_PAYLOAD - len(ICC) - 2
        chunks = [icc[i : i + size] for i in range(0, len(icc), size)]
        if len(chunks) <= 255:
            segments += [
                (APP2, ICC + bytes([i + 1, len(chunks)]) + chunk) for i, chunk in enumerate(chunks)
            ]
    return segments


def what_does_not_fit(
    keep: Literal["none", "essential", "all"],
    *,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
) -> tuple[str, ...]:
    """Notices of what `metadata_segments` leaves out although it was to be kept."""
    large = []
    if keep == "all" and len((exif or b"").removeprefix(EXIF)) > MAX_PAYLOAD - len(EXIF):
        large.append("EXIF data")
    if keep == "all" and xmp and not xmp_segments(xmp):
        large.append("XMP data")
    if keep != "none" and len(icc or b"") > 255 * (MAX_PAYLOAD - len(ICC) - 2):
        large.append("ICC profile")
    return tuple(f"{what} left out: too large for a JPEG" for what in large)


def companions(data: bytes) -> tuple[str, ...]:
    """What a JPEG carries or promises beside its picture: a gain map, a video."""
    gain_map, video = False, _video_follows(data)
    with contextlib.suppress(FormatError):  # decoders may still show the picture
        for marker in markers(data):
            if marker.code == SOS:
                break
            if marker.code in (APP1, APP2):
                gain_map |= marker.payload.startswith(_ISO_GAIN_MAP)
                xmp = marker.payload.startswith((MAIN, EXTENDED))
                gain_map |= xmp and _GAIN_MAP.search(marker.payload) is not None
                video |= xmp and _VIDEO.search(marker.payload) is not None
    names = (("gain map (Ultra HDR)", gain_map), ("video of the motion photo", video))
    return tuple(name for name, there in names if there)


def _video_follows(data: bytes) -> bool:
    # most files have none: a plain search is several times as fast as the pattern
    first = data.find(b"ftyp")
    return (
        first >= 0 and _TRAILING_VIDEO.search(data, first) is not None
    ) or b"MotionPhoto_Data" in data


def _promises(marker: int, payload: bytes) -> bool:
    """Whether a segment speaks of pictures or videos that follow the main picture."""
    if marker == APP2:
        return payload.startswith((_MPF, _ISO_GAIN_MAP))
    if marker != APP1 or not payload.startswith((MAIN, EXTENDED)):
        return False
    return bool(_GAIN_MAP.search(payload) or _VIDEO.search(payload))


def essential_segments(
    segments: Sequence[Segment], keep: Literal["none", "essential", "all"]
) -> list[Segment]:
    """The segments that a rewritten file should carry.

    Args:
        segments: of the source.
        keep: "none": what the colour needs. "essential": also the ICC profile, the pixel density,
            and the orientation, dates, artist and copyright, in an EXIF segment that holds nothing
            else. "all": everything but thumbnails in JFIF and what promises further pictures or
            videos (MPF, gain maps, motion photos), which are not written. An orientation is written
            as one SHORT, which all readers take.

    Malformed EXIF counts as none.
    """
    if keep not in ("none", "essential", "all"):
        raise SettingsError(f"unknown metadata setting {keep!r}", "use none, essential or all")
    result: list[Segment] = []
    # its parts stand or fall together
    if any(_promises(*segment) and segment[1].startswith(EXTENDED) for segment in segments):
        segments = [
            (m, without_pointer(p) if p.startswith(MAIN) else p)
            for m, p in segments
            if not p.startswith(EXTENDED)
        ]
    exif_seen = False
    for segment in segments:
        marker, payload = segment
        exif = marker == APP1 and payload.startswith(EXIF)
        if is_adobe(segment):
            if keep == "all" or payload[11] != 1:  # 1: YCbCr, as JFIF says already
                result.append(segment)
        elif keep == "none" or (marker == APP0 and payload.startswith(_JFXX)):
            continue
        elif is_jfif(segment):
            if len(payload) >= 14:
                result.append((marker, payload[:12] + b"\0\0"))
        elif marker == APP2 and payload.startswith(ICC):
            result.append(segment)
        elif keep == "essential":
            if exif and not exif_seen:
                result += _essential_alone(segment)
            exif_seen |= exif
        elif not _promises(marker, payload):
            result.append((marker, _plain_orientation(payload)) if exif else segment)
    return result


def with_metadata(data: bytes, keep: Literal["none", "essential"]) -> bytes:
    """A JPEG file with its picture byte for byte and less metadata; nothing follows its end.

    Args:
        data: a whole JPEG.
        keep: as in `essential_segments`; Adobe's segments always stay, since they tell the colour.

    Raises:
        FormatError: as `markers`.
    """
    segments: list[Segment] = []
    rest: list[bytes] = []
    for marker in markers(data):
        segment = (marker.code, marker.payload)
        if 0xE0 <= marker.code <= 0xEF or marker.code == COM:
            segments.append(segment)
        elif marker.code == EOI:
            rest.append(b"\xff\xd9")
        else:
            end = scan_end(data, marker.end) if marker.code == SOS else marker.end
            rest.append(data[marker.end - len(marker.payload) - 4 : end])
    chosen = [s for s in essential_segments(segments, keep) if not is_adobe(s)]
    chosen += [s for s in segments if is_adobe(s)]
    heads = (bytes([0xFF, m]) + struct.pack(">H", len(p) + 2) + p for m, p in chosen)
    return b"".join([data[:2], *heads, *rest])


# --- orientation ----------------------------------------------------------------------------------


def orientation(segments: Sequence[Segment]) -> int:
    """Orientation, 1..8, of the first EXIF segment; 1 where there is none or it is malformed."""
    return exif_orientation(
        next((p[len(EXIF) :] for m, p in segments if m == APP1 and p.startswith(EXIF)), b"")
    )


def exif_orientation(tiff: bytes) -> int:
    """Orientation, 1..8, of an EXIF block without its header; 1 where it is broken or has none.

    It may be of any type of whole numbers, or a RATIONAL over 1: writers use them all, and readers
    follow most. Of several values the first counts. Read by hand, since a broken block must cost
    nothing but itself.
    """
    entry = _orientation_entry(tiff)
    return entry[2] if entry else 1


def upright_exif(exif: bytes | None) -> bytes | None:
    """An EXIF block, with or without its header, that says of its orientation that it is upright,
    if it says anything."""
    head = EXIF if exif is not None and exif.startswith(EXIF) else b""
    tiff = (exif or b"")[len(head) :]
    entry = _orientation_entry(tiff)
    if entry is None:
        return exif
    order, at, _ = entry
    return (
        head + tiff[:at] + struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, 1, 0) + tiff[at + 12 :]
    )


def promises_more(packet: bytes) -> bool:
    """Whether an XMP packet speaks of a gain map or a video beside the picture."""
    return _promises(APP1, MAIN + packet)


def exif_directory(tiff: bytes) -> tuple[Literal["<", ">"], int, int] | None:
    """Byte order, offset and number of entries of the first directory; None if there is none."""
    order: Literal["<", ">"]
    if tiff[:4] == b"II*\0":
        order = "<"
    elif tiff[:4] == b"MM\0*":
        order = ">"
    else:
        return None
    if len(tiff) < 8:
        return None
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    if offset < 8 or offset + 2 > len(tiff):
        return None
    return order, offset, struct.unpack_from(order + "H", tiff, offset)[0]


def _orientation_entry(tiff: bytes) -> tuple[str, int, int] | None:
    """Byte order, index of the orientation's entry, and its value 2..8; else None."""
    directory = exif_directory(tiff)
    if directory is None:
        return None
    order, offset, count = directory
    for at in range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, at)
        if tag != _ORIENTATION:
            continue
        size, letter = _WHOLE_NUMBERS.get(kind, (0, ""))
        if not size or not number:
            return None
        place = at + 8
        if size * number > 4:  # too long for the entry, which then holds their offset
            (place,) = struct.unpack_from(order + "I", tiff, place)
        if place + size > len(tiff):
            return None
        values = struct.unpack_from(order + letter, tiff, place)
        value = values[0] if len(values) == 1 or values[1] == 1 else 0
        return (order, at, value) if 2 <= value <= 8 else None
    return None


def _essential_alone(segment: Segment) -> list[Segment]:
    """An EXIF segment with what is essential of `segment` alone; none where there is nothing."""
    block = essential_exif(segment[1][len(EXIF) :], orientation([segment]))
    return [(APP1, EXIF + block)] if block else []


def _plain_orientation(payload: bytes) -> bytes:
    """The EXIF segment with its orientation as one SHORT, the only form that all readers take."""
    tiff = payload[len(EXIF) :]
    entry = _orientation_entry(tiff)
    if entry is None:
        return payload
    order, at, value = entry
    plain = struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, value, 0)
    return EXIF + tiff[:at] + plain + tiff[at + 12 :]
