"""The fields of a .vzc file: magic and flags, varints, columns, checksums, names.
docs/vzc-format.md specifies each byte."""

from __future__ import annotations

import binascii
import mmap
import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vizcomp.errors import FormatError, InputError, TooLargeError, TruncatedError

MAGIC = b"\xb5VZ"
VERSION = 1  # of files of one image
PACK_VERSION = 2
GREY, SIZED, METADATA, PACK = 1, 2, 4, 8  # flags

DEFAULT_SIZE = (32, 32)  # width and height of an image without the flag SIZED
DEFAULT_MAX_PIXELS = 200_000_000
MAX_ITERATIONS = 64
MAX_PAYLOAD = 2**31 - 1  # bytes of one iteration's payload in a file of one image
MAX_SIDE = 2**31 - 1
MAX_ITEMS = 64  # metadata
MAX_NAME = 1024  # bytes
SHORT = 256  # bytes: up to here a checksum is a CRC-16

TAG_ALPHA = 2
TAG_NAME = 4

Data = bytes | bytearray | memoryview | mmap.mmap
Ints = npt.NDArray[np.int64]

GET_AGAIN = "get the file again from where it came"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


def write_varint(value: int) -> bytes:
    """The varint of `value`, 0 to 2^63 - 1: 1 to 9 bytes."""
    if not 0 <= value < 2**63:
        raise ValueError(f"a varint holds 0 to 2^63 - 1, not {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_column(values: Sequence[int] | Ints) -> bytes:
    """The column of one or more numbers from 0 up that differ by less than 2^31: smallest, bit
    width, packed differences."""
    numbers = np.asarray(values, np.int64)
    least = int(numbers.min())
    bits = int(numbers.max() - least).bit_length()
    if least < 0 or bits > 31:
        raise ValueError("a column holds numbers from 0 up that differ by less than 2^31")
    planes = (numbers - least)[:, None] >> np.arange(bits) & 1
    return (
        write_varint(least * 32 + bits)
        + np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()
    )


def checksum_size(length: int) -> int:
    """Bytes of the short checksum of `length` bytes."""
    return 2 if length <= SHORT else 4


def short_checksum(before: Data, body: Data) -> bytes:
    """The checksum of `body` after `before`: a CRC-16 (two bytes) where `body` has at most 256
    bytes, else a CRC-32 (four)."""
    if len(body) <= SHORT:
        return binascii.crc_hqx(body, binascii.crc_hqx(before, 0xFFFF)).to_bytes(2, "little")
    return zlib.crc32(body, zlib.crc32(before)).to_bytes(4, "little")


class Cursor:
    """Reads fields from `data[at:end]`; `what` names the part for messages, and `short` is the
    error where it ends early."""

    def __init__(
        self, data: memoryview, at: int, end: int, what: str, short: type[FormatError] = FormatError
    ) -> None:
        self.data, self.at, self.end, self.what, self.short = data, at, end, what, short

    def damaged(self, why: str) -> FormatError:
        return FormatError(f"{self.what} is damaged: {why}", GET_AGAIN)

    def take(self, length: int) -> memoryview:
        if length > self.end - self.at:
            if self.short is TruncatedError:
                raise TruncatedError(f"the file ends within {self.what}", GET_AGAIN)
            raise self.damaged("a field is longer than what is left")
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if not byte and shift:
                    raise self.damaged("a number is not written the shortest way")
                return value
        raise self.damaged("a number is too long")

    def column(self, n: int) -> Ints:
        """n numbers; the caller has checked that n is small or that as many things are there."""
        least, bits = divmod(self.varint(), 32)
        packed = np.frombuffer(self.take((n * bits + 7) // 8), np.uint8)
        values = np.full(n, least, np.int64)
        if not bits:
            return values
        # 65,536 values begin at a whole byte; in pieces, since a bit takes a byte here
        for start in range(0, n, 65536):
            part = min(65536, n - start)
            planes = np.unpackbits(
                packed[start * bits // 8 :][: (part * bits + 7) // 8], bitorder="little"
            )
            for k in range(bits):
                values[start : start + part] += planes[k : part * bits : bits].astype(np.int64) << k
        top = int(values.max()) - least
        if (
            values.min() != least
            or top.bit_length() != bits
            or packed[-1] >> ((n * bits - 1) % 8 + 1)
        ):
            raise self.damaged("a column is not written the shortest way")
        return values


def check_name(name: str) -> bytes:
    """The UTF-8 bytes of a name that may stand in a file.

    Raises:
        InputError: the name is empty, longer than 1024 bytes, absolute, leads upwards, or has
            control characters or backslashes.
    """
    problem = name_problem(name)
    if problem:
        raise InputError(
            f"{name!r} cannot name an image in a .vzc file: {problem}", "rename the file"
        )
    return name.encode("utf-8")


def name_problem(name: str) -> str:
    """Why a name is refused, or an empty string. One set of rules for writer and reader."""
    if not name:
        return "it is empty"
    try:
        if len(name.encode("utf-8")) > MAX_NAME:
            return f"it has more than {MAX_NAME} bytes"
    except UnicodeEncodeError:
        return "it is not Unicode"
    if _CONTROL.search(name):
        return "it has control characters or a backslash"
    if name[1:2] == ":":
        return "it begins like a drive of Windows"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it is not a plain relative path"
    return ""


def decoded_name(raw: bytes, what: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError(f"{what}: a name is not UTF-8", GET_AGAIN) from exc
    problem = name_problem(name)
    if problem:
        raise FormatError(
            f"{what}: the name {name!r} is refused, {problem}", "the file may be hostile"
        )
    return name


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLargeError(
            f"{width}x{height} pixels are more than the limit of {max_pixels:,}",
            "raise the limit if you trust the file",
        )
