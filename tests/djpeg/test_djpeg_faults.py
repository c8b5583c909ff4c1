"""Kinds of sources whose results once lost something in silence, or that were refused although
whole."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import jpeg_bytes
from PIL import Image

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import DamagedError, UnsupportedError
from vizcomp.files.find import find_inputs
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import markers
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.photo import load_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + y / 23), np.cos(x / 17 - y / 11), np.sin((x + y) / 29)], -1)
    return (128 + 100 * waves).astype(np.uint8)


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(smooth()).save(out, kind, **options)
    return out.getvalue()


def made(data: bytes, **changes: Any) -> tuple[bytes, tuple[str, ...]]:
    """A result and all notices."""
    photo = load_bytes(data, "source")
    result = compress(photo, DjpegSettings(**{"guide": "uniform", "quality": 60, **changes}))
    return result.data, (*photo.notices, *result.notices)


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def decibel(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((a - b) ** 2).mean(), 1e-9)))


def in_file(folder: Path, name: str, data: bytes, **changes: Any) -> tuple[FileRecord, bytes]:
    """The record and the output of one file."""
    (folder / "in").mkdir()
    (folder / "in" / name).write_bytes(data)
    settings = DjpegSettings(**{"guide": "uniform", "quality": 90, **changes})
    files = find_inputs([str(folder / "in")])
    run = run_djpeg(files, folder / "out", settings, BatchSettings(), options=RunOptions(jobs=1))
    (record,) = run.records
    assert record.status != "failed", record.error
    return record, Path(str(record.output)).read_bytes()


def block(orientation: int, padding: int = 0) -> bytes:
    """EXIF with an orientation, a maker and a place, and a comment of any length."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera of the test"
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 12.0)
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b"x" * padding
    return exif.tobytes()


# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", ["essential", "all"])
def test_an_orientation_in_a_block_too_large_for_a_segment_is_kept(metadata: str) -> None:
    data, notices = made(saved("WEBP", exif=block(6, 66_000)), metadata=metadata)
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    assert any("EXIF data left out" in n for n in notices) == (metadata == "all")


@pytest.mark.parametrize("size", [60_000, 70_000, 17 << 20])
def test_a_packet_of_any_sane_size_is_kept_and_a_larger_one_told(size: int) -> None:
    data, notices = made(saved("WEBP", xmp=b"<x>" + b" " * size + b"</x>"), metadata="all")
    assert (b"<x>" in data) == (size <= 70_000)
    assert any("XMP data left out" in n for n in notices) == (size > 70_000)
    assert made(saved("WEBP", xmp=b" " * size))[1] == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_the_resolution_is_kept(kind: str) -> None:
    data = saved(kind, dpi=(300, 200))
    assert Image.open(io.BytesIO(made(data)[0])).info["dpi"] == (300, 200)
    assert Image.open(io.BytesIO(made(data, metadata="none")[0])).info.get("dpi") != (300, 200)


def test_a_kept_jpeg_loses_place_and_camera_but_no_pixel(tmp_path: Path) -> None:
    source = jpeg_bytes(
        smooth(), quality=30, exif=block(6), comment=b"at home", icc_profile=b"profile" * 20
    )
    record, data = in_file(tmp_path, "a.jpg", source + b"trailer", min_saving=0.99)
    assert record.status == "kept"
    exif = Image.open(io.BytesIO(data)).getexif()
    assert dict(exif) == {0x0112: 6}
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == b"profile" * 20
    assert b"at home" not in data
    assert data.endswith(b"\xff\xd9")
    assert np.array_equal(shown(data), shown(source))


def test_a_kept_jpeg_without_metadata_is_the_same_file(tmp_path: Path) -> None:
    source = jpeg_bytes(smooth(), quality=30)
    assert in_file(tmp_path, "a.jpg", source, min_saving=0.99)[1] == source


@pytest.mark.parametrize(("orientation", "padding", "told"), [(6, 0, True), (0, 0, False)])
def test_a_kept_file_of_another_kind_carries_no_camera(
    tmp_path: Path, orientation: int, padding: int, told: bool
) -> None:
    options = {"exif": block(orientation, padding)} if told else {}
    record, data = in_file(tmp_path, "a.webp", saved("WEBP", quality=1, **options), min_saving=0.99)
    assert record.status == "kept"
    assert b"Camera of the test" not in data
    with Image.open(io.BytesIO(data)) as kept:
        assert kept.getexif().get(0x0112, 1) == (orientation or 1)


# --- colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("transforms", [(1, 0), (0, 1), (0, 0), (1, 1)])
@pytest.mark.parametrize("metadata", ["essential", "all"])
def test_of_two_adobe_segments_the_last_counts(transforms: tuple[int, int], metadata: str) -> None:
    plain = jpeg_bytes(smooth(), keep_rgb=True)
    start = plain.index(b"\xff\xdb")
    heads = b"".join(b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(4) + bytes([t]) for t in transforms)
    source = plain[:2] + heads + plain[start:]
    assert decibel(shown(source), shown(made(source, quality=95, metadata=metadata)[0])) > 30


# --- pictures beside the picture ------------------------------------------------------------------


XMP = b"http://ns.adobe.com/xap/1.0/\0"
COMPANIONS = {
    "gain map": (
        [
            (
                0xE1,
                XMP
                + b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>',
            )
        ],
        b"",
    ),
    "gain map of ISO": ([(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))], b""),
    "video": ([(0xE1, XMP + b'<x GCamera:MotionPhoto="1"/>')], b"\0\0\0\x18ftypmp42" + bytes(40)),
    "video of old": ([(0xE1, XMP + b"<GCamera:MicroVideo>1</GCamera:MicroVideo>")], b""),
    "video alone": ([], b"MotionPhoto_Data" + bytes(40)),
}


@pytest.mark.parametrize("name", COMPANIONS)
@pytest.mark.parametrize("metadata", ["essential", "all"])
def test_what_is_lost_beside_the_picture_is_told_and_not_promised(name: str, metadata: str) -> None:
    segments, trailer = COMPANIONS[name]
    plain = jpeg_bytes(smooth())
    heads = b"".join(bytes([0xFF, m]) + struct.pack(">H", len(p) + 2) + p for m, p in segments)
    data, notices = made(plain[:2] + heads + plain[2:] + trailer, metadata=metadata)
    assert any(name.split()[0] in n and "not in the result" in n for n in notices)
    assert not [m for m in markers(data) if m.code in (0xE1, 0xE2)]


def test_photos_without_companions_say_nothing() -> None:
    for packet in (b'<x GCamera:MotionPhoto="0"/>', b"<x>a day</x>"):
        data, notices = made(jpeg_bytes(smooth(), xmp=packet), metadata="all")
        assert notices == ()
        assert packet in data


# --- refused although whole -----------------------------------------------------------------------


def renumbered(data: bytes, numbers: tuple[int, int, int]) -> bytes:
    """Other component numbers in the frame and in the scan of a baseline JPEG."""
    made = bytearray(data)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for i, number in enumerate(numbers):
        made[frame + 10 + 3 * i] = made[scan + 5 + 2 * i] = number
    return bytes(made)


def odd_sources() -> dict[str, bytes]:
    plain = jpeg_bytes(smooth(), quality=90)
    table = plain.index(b"\xff\xdb")
    return {
        "equal component numbers": renumbered(plain, (1, 1, 1)),
        "two equal component numbers": renumbered(plain, (1, 2, 2)),
        "a step of 0": plain[: table + 60] + b"\0" + plain[table + 61 :],
        "a broken table that no scan uses": (
            plain[:2] + b"\xff\xc4\0\x13\x03" + b"\xff" * 16 + plain[2:]
        ),
    }


@pytest.mark.parametrize("name", odd_sources())
def test_what_the_usual_library_reads_in_silence_is_read_by_its_pixels(name: str) -> None:
    source = odd_sources()[name]
    try:
        expected = shown(source)
    except (OSError, SyntaxError):
        pytest.skip("the library refuses it")
    data, notices = made(source, quality=95)
    assert decibel(expected, shown(data)) > 28
    assert any(n.startswith("read as pixels: ") for n in notices)


def test_damage_is_no_photo_although_the_usual_library_shows_something() -> None:
    plain = jpeg_bytes(smooth(), restart_marker_blocks=4)
    at = plain.index(b"\xff\xd1", plain.index(b"\xff\xda"))
    with pytest.raises(DamagedError):
        made(plain[:at] + b"\xff\xd5" + plain[at + 2 :])


def test_the_limit_of_pixels_is_the_callers_for_coefficients_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vizcomp.jpeg.read.MAX_PIXELS", 1000)
    photo = load_bytes(jpeg_bytes(smooth()), "large", max_pixels=100_000)
    result = compress(photo, DjpegSettings(guide="uniform"))
    assert result.notices == ()


@pytest.mark.parametrize("side", [65_501, 65_520, 65_535])
def test_sides_that_no_reader_of_jpeg_takes_are_refused_plainly(side: int) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((2, side), np.uint8)).save(out, "PNG")
    with pytest.raises(UnsupportedError) as told:
        made(out.getvalue())
    assert "65500" in told.value.hint
    plain = read_jpeg(jpeg_bytes(smooth(16, 16), quality=80, subsampling=0))
    data = bytearray(write_jpeg(plain))
    at = next(m.end for m in markers(bytes(data)) if m.code in (0xC0, 0xC2)) - 15 + 1
    data[at + 2 : at + 4] = side.to_bytes(2, "big")
    with pytest.raises(UnsupportedError, match="a side above 65500 pixels"):
        made(bytes(data))


@pytest.mark.parametrize("factors", [0x11, 0x12, 0x21, 0x22])
def test_equal_sampling_of_all_is_4_4_4_by_any_factors(factors: int) -> None:
    """Four blocks across and down: whole units by any factors, interleaved anew below."""
    plain = read_jpeg(jpeg_bytes(smooth(64, 64), subsampling=0, quality=80))
    for c in plain.components:
        c.h, c.v = factors >> 4, factors & 15
    source = write_jpeg(plain, progressive=False)
    frame = read_jpeg(made(source)[0])
    assert [(c.h, c.v) for c in frame.components] == [(2, 2), (1, 1), (1, 1)]
    assert decibel(shown(source), shown(made(source, quality=90)[0])) > 30
