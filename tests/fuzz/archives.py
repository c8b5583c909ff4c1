"""Mutators by structure of archives, model files and texts.

Tar, zip, Parquet, protocol buffers, HDF5, JSON, TOML and XML.

As in `containers`: what is changed has checksums that match, and most lengths do too.
"""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import tarfile
import zipfile
import zlib
from typing import Any

BLOCK = 512
ODD: tuple[Any, ...] = (
    *(
        0,
        -1,
        1,
        2,
        255,
        1 << 31,
        1 << 63,
        -(1 << 63),
        10**400,
        1e308,
        -0.5,
        5e-324,
        "",
        "F64",
        "../x",
        "/dev/zero",
        "photo",
    ),
    *(
        None,
        True,
        [],
        [1 << 40],
        {},
        [[0]],
        {"": {"": 0}},
        "\x1b[2J\x07",
        "a\nb",
        "\ud800",
        "x" * 5000,
        "NaN",
        "inf",
        "1e999",
    ),
    *([0.0] * 4, [-1, -1, 1e11, 1e11], ["a"] * 3),
)
DEEP = '{"a":'


# --- tar ------------------------------------------------------------------------------------------


def sealed(block: bytearray) -> bytes:
    """A header of tar with the checksum that it must have."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_headers(data: bytes) -> list[int]:
    """Where the headers of an archive begin."""
    found, at = [], 0
    while at + BLOCK <= len(data) and any(data[at : at + BLOCK]):
        found.append(at)
        try:
            size = tarfile.nti(data[at + 124 : at + 136])  # type: ignore[attr-defined]
        except tarfile.TarError:
            break
        at += BLOCK + -(-max(0, size) // BLOCK) * BLOCK
    return found


RECORDS = (
    *(
        b"-5 path=x\n",
        b"0 path=x\n",
        b"+0 path=x\n",
        b"3 =\n",
        b"99999999999 path=x\n",
        b"11 size=-9\n",
        b"12 size=1e9\n",
    ),
    *(
        b"20 GNU.sparse.map=0,1\n",
        b"22 GNU.sparse.major=1\n",
        b"27 GNU.sparse.size=999999\n",
        b"14 path=../x\n",
        b"9 a=\0\0\0\n",
    ),
    *(
        b"16 path=0001.png\n",
        b"18 hdrcharset=BIN\n",
        b"15 mtime=1e999\n",
        b"12 mtime=nan",
        b"1 1 1 1 1 1 1",
        b"8" * 600,
    ),
)


def stir_tar(data: bytes, dice: random.Random) -> bytes:
    """One to three changes of headers, each with a right checksum, or headers and records that are
    put before others.
    """
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        headers = tar_headers(bytes(out))
        if not headers:
            break
        at, kind = dice.choice(headers), dice.randrange(7)
        block = bytearray(out[at : at + BLOCK])
        if kind == 0:
            sizes = (
                b"00000000000\0",
                b"77777777777\0",
                b"-0000000001\0",
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"00000001000 ",
                b"         x  ",
            )
            block[124:136] = dice.choice(sizes)
        elif kind == 1:
            block[156:157] = dice.choice(
                (
                    b"0",
                    b"\0",
                    b"1",
                    b"2",
                    b"3",
                    b"5",
                    b"6",
                    b"7",
                    b"g",
                    b"x",
                    b"X",
                    b"L",
                    b"K",
                    b"S",
                    b"D",
                    b"Z",
                )
            )
        elif kind == 2:
            name = dice.choice(
                (
                    b"",
                    b"/",
                    b"../../x.jpg",
                    b"/etc/x.jpg",
                    b"a" * 100,
                    b"\x1b[2J.jpg",
                    b"\xff\xfe.jpg",
                    b"a.jpg/",
                    b".jpg",
                    b"a\nb.jpg",
                )
            )
            block[:100] = name[:100].ljust(100, b"\0")
        elif kind == 3:
            place = dice.choice((100, 108, 116, 136, 257, 263, 265, 329, 345, 386, 482, 483))
            block[place : place + 8] = dice.choice(
                (
                    b"\xff" * 8,
                    b"\0" * 8,
                    b"7777777\0",
                    b"\x80" + bytes(7),
                    b"ustar  \0",
                    b"ustar\x0000",
                )
            )
        elif kind in (4, 5):
            body = b"".join(
                dice.choice(RECORDS) for _ in range(dice.choice((1, 2, 5)))
            ) * dice.choice((1, 1, 1, 40))
            if dice.random() < 0.5:
                body = (
                    tarfile.TarInfo._create_pax_generic_header(
                        {"path": "x/0001.jpg", "size": "9"}, b"x", "utf-8"
                    )[BLOCK:].rstrip(b"\0")
                    + body
                )  # type: ignore[attr-defined]
            head = bytearray(block)
            head[156:157] = dice.choice((b"x", b"x", b"g", b"L", b"K", b"X"))
            head[124:136] = b"%011o\0" % len(body)
            out[at:at] = sealed(head) + body + bytes(-len(body) % BLOCK)
            continue
        else:
            end = headers[headers.index(at) + 1] if at != headers[-1] else len(out)
            if dice.random() < 0.5:
                out[at:at] = out[at:end] * dice.choice((1, 1, 30))
            else:
                del out[at:end]
            continue
        out[at : at + BLOCK] = sealed(block)
    return bytes(out[:400_000])


# --- zip ------------------------------------------------------------------------------------------


def stir_zip(data: bytes, dice: random.Random, change: Any) -> bytes:
    """Members that are changed, renamed, doubled or packed otherwise, or numbers of the directory
    that are changed.
    """
    if dice.random() < 0.3:
        out = bytearray(data)
        marks = [m.start() for m in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)]
        for _ in range(dice.choice((1, 1, 3))):
            at = dice.choice(marks) + dice.randrange(4, 44)
            out[at : at + 4] = dice.choice(
                (b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\1\0\0\0", b"\0\0\0\x40")
            )
        return bytes(out)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        members = [(each.filename, old.read(each)) for each in old.infolist()]
        at = dice.randrange(len(members))
        name, body = members[at]
        kind = dice.randrange(6)
        if kind < 3:
            members[at] = name, change(body, dice)
        elif kind == 3:
            del members[at]
        elif kind == 4:
            members[at] = (
                dice.choice(
                    (
                        "../x",
                        "/x",
                        "data.pkl",
                        "a" * 5000,
                        "\x1b[2J",
                        members[0][0],
                        name + "/data.pkl",
                    )
                ),
                body,
            )
        else:
            members += [(name, body)] * dice.choice((1, 300))
        packed = dice.choice(
            (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
        )
        for name, body in members:
            new.writestr(zipfile.ZipInfo(name), body, packed)
    return made.getvalue()


# --- protocol buffers (ONNX) ----------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError


def _to_varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields_of(data: bytes) -> list[tuple[int, int, Any]]:
    """The fields of a message: number, wire type, value.

    A ValueError or IndexError where it is none.
    """
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0 or number > 2000:
            raise ValueError
        if wire == 0:
            value: Any
            value, at = _varint(data, at)
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value = data[at : at + width]
            at += width
        elif wire == 2:
            length, at = _varint(data, at)
            value = data[at : at + length]
            if len(value) < length:
                raise ValueError
            at += length
        else:
            raise ValueError
        found.append((number, wire, value))
    return found


def message_of(fields: list[tuple[int, int, Any]]) -> bytes:
    made = []
    for number, wire, value in fields:
        made.append(_to_varint(number << 3 | wire))
        made.append(
            _to_varint(value)
            if wire == 0
            else value
            if wire != 2
            else _to_varint(len(value)) + value
        )
    return b"".join(made)


def stir_message(data: bytes, dice: random.Random, depth: int = 0) -> bytes:
    """A message with one of its fields, at any depth, changed, lost, repeated or moved.

    Lengths fit.
    """
    fields = fields_of(data)
    if not fields:
        return data
    at = dice.randrange(len(fields))
    number, wire, value = fields[at]
    if wire == 2 and value and depth < 12 and dice.random() < 0.85:
        try:
            fields[at] = number, wire, stir_message(value, dice, depth + 1)
            return message_of(fields)
        except (ValueError, IndexError):
            pass
    kind = dice.randrange(6)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields[at:at] = [fields[at]] * dice.choice((1, 1, 500))
    elif kind == 2:
        fields.insert(dice.randrange(len(fields)), fields.pop(at))
    elif kind == 3:
        fields[at] = dice.choice((number + 1, max(1, number - 1), 1, 15)), wire, value
    elif wire == 0:
        fields[at] = (
            number,
            wire,
            dice.choice((0, 1, 2, 7, 8, 255, 1 << 20, 1 << 31, (1 << 63) - 1, (1 << 64) - 1)),
        )
    elif wire == 2:
        fields[at] = (
            number,
            wire,
            dice.choice(
                (
                    b"",
                    b"\xff\xfe",
                    b"../x",
                    b"/etc/passwd",
                    value + value,
                    value[:-1],
                    b"a" * 5000,
                    b"\x1b[2J",
                )
            ),
        )
    else:
        fields[at] = number, wire, dice.choice((b"\xff", b"\0", b"\x7f")) * len(value)
    return message_of(fields)


# --- Parquet: Thrift's compact protocol -----------------------------------------------------------


def stir_parquet(data: bytes, dice: random.Random) -> bytes:
    """Numbers of the footer or of page headers changed where they stand.

    The footer's length fits.
    """
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    out = bytearray(data)
    if dice.random() < 0.6:  # a varint of the footer for another one
        footer = bytearray(out[start:-8])
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(footer))
            end = at + 1
            while end < len(footer) and footer[end - 1] & 128 and end < at + 10:
                end += 1
            kind = dice.randrange(4)
            if kind == 0:
                footer[at:end] = _to_varint(
                    dice.choice((0, 1, 2, 3, 126, 127, 1 << 20, 1 << 31, (1 << 33) - 2, (1 << 62)))
                )
            elif kind == 1:
                footer[at] ^= 1 << dice.randrange(8)
            elif kind == 2:
                footer[at:at] = footer[at : at + dice.choice((1, 4, 40))]
            else:
                footer[at] = dice.choice((0, 0x15, 0x16, 0x18, 0x19, 0x1C, 0x29, 0xF5, 0xFF))
        return bytes(out[:start]) + bytes(footer) + len(footer).to_bytes(4, "little") + b"PAR1"
    for _ in range(dice.choice((1, 1, 2))):
        at = (
            4 + dice.randrange(min(start - 4, 64))
            if dice.random() < 0.7
            else dice.randrange(4, start)
        )
        some = _to_varint(dice.choice((0, 1, 3, 1 << 20, (1 << 31) - 2, (1 << 32) - 2)))
        out[at : at + len(some)] = some
    return bytes(out)


# --- HDF5 -----------------------------------------------------------------------------------------


def stir_hdf5(data: bytes, dice: random.Random) -> bytes:
    """Numbers at places of 8 bytes, as most of HDF5's are.

    Chunks of addresses that point back or nowhere.
    """
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(out) // 8) * 8
        kind = dice.randrange(4)
        if kind == 0:
            out[at : at + 8] = dice.choice(
                (0, 8, 96, at, 1 << 20, 1 << 31, 1 << 62, (1 << 64) - 1)
            ).to_bytes(8, "little")
        elif kind == 1:
            out[at : at + 8] = (dice.randrange(len(out)) & ~7).to_bytes(8, "little")
        elif kind == 2:
            out[at + dice.randrange(8)] = dice.choice((0, 1, 2, 3, 16, 127, 128, 255))
        else:
            other = dice.randrange(len(out) // 8) * 8
            out[at : at + 8] = out[other : other + 8]
    return bytes(out)


# --- JSON, TOML, XML ------------------------------------------------------------------------------


def stir_values(value: Any, dice: random.Random) -> Any:
    """A value as JSON has it with one to three of its parts replaced, lost, renamed or repeated."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 3))):
        place = value
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = dice.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and dice.random() < 0.8:
                place = place[key]
                continue
            kind = dice.randrange(10)
            if kind < 7:
                place[key] = copy.deepcopy(dice.choice(ODD))
            elif kind == 7:
                del place[key]
            elif isinstance(place, dict):
                place[dice.choice(("", "x", "\x1b[31m", "__class__", str(key).upper()))] = (
                    place.pop(key)
                )
            else:
                place += [copy.deepcopy(place[key])] * dice.choice((1, 200))
            break
    return value


def stir_json(data: bytes, dice: random.Random) -> bytes:
    """JSON with odd values, or nested beyond measure, or with texts of numbers that JSON does not
    have.
    """
    text = json.dumps(stir_values(json.loads(data), dice))
    kind = dice.randrange(12)
    if kind == 0:
        deep = dice.choice((70, 5000, 100_000))
        text = text[: len(text) // 2] + DEEP * deep + "1" + "}" * deep + text[len(text) // 2 :]
    elif kind == 1:
        at = dice.randrange(len(text))
        text = (
            re.sub(
                r"\d+",
                dice.choice(("NaN", "-Infinity", "1" * 5000, "1e999", "0" * 300, "1.5")),
                text[:at],
                count=1,
            )
            + text[at:]
        )
    elif kind == 2:
        text = "[" * 50_000 + text
    return text.encode("utf-8", "surrogatepass")


def stir_toml(data: bytes, dice: random.Random) -> bytes:
    """Lines of TOML with other values, lost, repeated, or nested beyond measure."""
    lines = data.decode().splitlines()
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(lines))
        name = lines[at].split("=")[0].strip() or "x"
        kind = dice.randrange(8)
        if kind < 5:
            odd = (
                "nan",
                "inf",
                "-1",
                "1" * 5000,
                "1e400",
                '""',
                "[]",
                "{}",
                "true",
                '"\\u001b[2J"',
                "1979-05-27",
                '"' + "x" * 9000 + '"',
                "0x" + "f" * 300,
                "[1, 2]",
            )
            lines[at] = f"{name} = {dice.choice(odd)}"
        elif kind == 5:
            lines[at] = f"{name} = " + "[" * 3000 + "]" * 3000
        elif kind == 6:
            lines[at] = "[" + ".".join(["a"] * dice.choice((50, 3000))) + "]"
        else:
            lines[at:at] = [lines[at]] * dice.choice((1, 1, 30))
    return "\n".join(lines).encode()


def stir_xml(data: bytes, dice: random.Random) -> bytes:
    """Numbers and elements of XML changed; entities, depth and other encodings put in."""
    text = data.decode()
    kind = dice.randrange(8)
    if kind < 4:
        found = list(re.finditer(r">([^<>]+)<", text))
        match = dice.choice(found)
        odd = (
            "nan",
            "inf",
            "-1",
            "1e999",
            "1" * 5000,
            "",
            "&#0;",
            "&lt;b&gt;",
            "é\x1b",
            "١٢",
            "0x10",
            " 3 ",
            "1_000",
        )
        text = text[: match.start(1)] + dice.choice(odd) + text[match.end(1) :]
    elif kind == 4:
        text = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;&b;">]>' + text
    elif kind == 5:
        text = text.replace("<object>", "<object>" * dice.choice((1, 2, 20_000)), 1)
    elif kind == 6:
        text = (
            '<?xml version="1.0" encoding="'
            + dice.choice(("utf-7", "latin-1", "utf-16", "x" * 99, "idna", "hex"))
            + '"?>'
            + text
        )
    else:
        at = dice.randrange(len(text))
        text = (
            text[:at]
            + dice.choice(("<", "</", "<a>", "&", "\x00", "]]>", "<!--"))
            + text[at + dice.randrange(3) :]
        )
    return text.encode("utf-8", "replace")


def stir_lines(data: bytes, dice: random.Random) -> bytes:
    """Words of lines replaced by odd ones, lines lost or repeated."""
    lines = [line.split(b" ") for line in data.splitlines()]
    for _ in range(dice.choice((1, 1, 2, 4))):
        line = dice.choice(lines)
        odd = (
            b"nan",
            b"inf",
            b"-1",
            b"1e999",
            b"1" * 5000,
            b"",
            b"\xff",
            b"\x00",
            b"0x1",
            b"1_0",
            "\u0661".encode(),
            b"\x1b[2J",
            b"1" * 400,
        )
        if dice.random() < 0.8 and line:
            line[dice.randrange(len(line))] = dice.choice(odd)
        else:
            lines.append(line * dice.choice((0, 1, 1000)))
    return b"\n".join(b" ".join(line) for line in lines)


def packed(value: bytes) -> bytes:
    """A text as a report's parts are kept: compressed."""
    return zlib.compress(value)


def npy(data: bytes, dice: random.Random) -> bytes:
    """A .npy whose header says something else; its length fits."""
    length = struct.unpack_from("<H", data, 8)[0]
    header = data[10 : 10 + length].decode()
    odd = (
        "(1 << 40,)",
        "(0, 0)",
        "(-1, 4)",
        "(99999999999, 99999999999)",
        "(4, 4, 4)",
        "()",
        "4",
        "(True, 8)",
        "(" * 90 + ")" * 90,
    )
    if dice.random() < 0.5:
        header = re.sub(r"\([^)]*\)", dice.choice(odd), header, count=1)
    else:
        header = re.sub(
            r"'[<|>][a-z]\d'",
            dice.choice(
                ("'|O'", "'<f2'", "'<c16'", "'|V9'", "'<U99'", "'<m8'", "[('a', '<f4')]", "'|S0'")
            ),
            header,
            count=1,
        )
    body = header.encode()
    return data[:8] + struct.pack("<H", len(body)) + body + data[10 + length :]
