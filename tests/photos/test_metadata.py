"""What of a photo's metadata is in its result: dates, artist and copyright, and neither place nor
camera, of any format."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import jpeg_bytes, picture
from PIL import Image, PngImagePlugin

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.jpeg.exif import essential_exif, has_more_than_essential
from vizcomp.photos.strip import with_essential

DATE, TAKEN = "2024:05:06 07:08:09", "2024:05:06 07:08:08"
SECRET = (b"SecretCamera", b"SecretLens", b"SecretText", b"SecretComment", b"GPSLatitude")


def exif(orientation: int = 6) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x0132] = DATE
    block[0x013B] = "A. Artist"
    block[0x8298] = "(c) A. Artist"
    block[0x010F] = "SecretCamera"
    block.get_ifd(0x8769).update({0x9003: TAKEN, 0xA434: "SecretLens", 0x829A: 0.01})
    block.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 12.3), 3: "E", 4: (13.0, 24.0, 1.2)})
    return block


def source(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>SecretText GPSLatitude</x:xmpmeta>"
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "SecretComment")
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options["pnginfo"] = info
    block = exif()
    if kind == "TIFF":
        block[270], block[700], block[305] = "SecretComment", xmp, "SecretText"
    elif kind != "PNG":
        options["xmp"] = xmp
    Image.fromarray(picture(3, 48, 64)).save(
        out, kind, exif=block.tobytes() if kind == "JXL" else block, **options
    )
    return out.getvalue()


def result(data: bytes, name: str, folder: Path, **settings: Any) -> tuple[Path, Any]:
    (folder / "in").mkdir()
    path = folder / "in" / name
    path.write_bytes(data)
    chosen = DjpegSettings(guide="uniform", quality=95, **settings)
    run = run_djpeg(
        find_inputs([path]), folder / "out", chosen, BatchSettings(), options=RunOptions(jobs=1)
    )
    record = run.records[0]
    assert record.output is not None, record.error
    return Path(record.output), record


def check_essential(path: Path, *, turned: int | None = 6, taken: bool = True) -> None:
    """`turned`: the orientation that the EXIF states; `taken`: it has the date of the shot, in a
    directory of its own."""
    data = path.read_bytes()
    assert not [secret for secret in SECRET if secret in data]
    with Image.open(path) as image:
        found = image.getexif()
        assert (found.get(0x0112), found.get(0x0132), found.get(0x013B)) == (
            turned,
            DATE,
            "A. Artist",
        )
        assert found.get(0x8298) == "(c) A. Artist"
        assert found.get_ifd(0x8769).get(0x9003) == (TAKEN if taken else None)
        assert not found.get_ifd(0x8825)
        assert 0x010F not in found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_compressed_file_has_date_artist_and_copyright_alone(tmp_path: Path, kind: str) -> None:
    path, record = result(source(kind), f"a.{kind.lower()}", tmp_path)
    assert record.status in ("ok", "kept")
    # Pillow turns its pixels upright as it reads them, and writes no second directory into one
    if kind == "TIFF":
        check_essential(path, turned=None, taken=False)
    else:
        check_essential(path)


KEPT = [
    ("JPEG", ".jpg"),
    ("PNG", ".png"),
    ("WEBP", ".webp"),
    ("TIFF", ".tif"),
    ("AVIF", ".avif"),
    ("HEIF", ".heic"),
    ("JXL", ".jxl"),
]


@pytest.mark.parametrize(("kind", "suffix"), KEPT)
def test_a_kept_source_has_no_more_either(tmp_path: Path, kind: str, suffix: str) -> None:
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}.get(
        kind, {}
    )
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    data = source(kind, **options)
    path, record = result(data, f"a{suffix}", tmp_path, min_saving=0.999)
    assert (record.status, path.suffix) == ("kept", suffix)
    assert not [notice for notice in record.notices if "carries" in notice]
    # HEIC and JPEG XL state their orientation beside the EXIF
    check_essential(path, turned=None if kind in ("HEIF", "JXL") else 6, taken=kind != "TIFF")
    with Image.open(path) as kept, Image.open(io.BytesIO(data)) as before:
        assert np.array_equal(np.asarray(kept), np.asarray(before))


def test_a_kept_gif_says_nothing_and_still_loops(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(n, 32, 32)).quantize(8) for n in range(3)]
    out = io.BytesIO()
    frames[0].save(
        out, "GIF", save_all=True, append_images=frames[1:], loop=4, comment=b"SecretComment"
    )
    data = out.getvalue()[:-1] + b"!\xff\x0bXMP DataXMP" + b"\x0aSecretText" + b"\0;"
    path, record = result(data, "a.gif", tmp_path, min_saving=0.999)
    assert record.status == "kept"
    assert b"Secret" not in path.read_bytes()
    with Image.open(path) as kept, Image.open(io.BytesIO(data)) as before:
        assert (kept.n_frames, kept.info["loop"]) == (3, 4)
        for n in range(3):
            kept.seek(n)
            before.seek(n)
            assert np.array_equal(
                np.asarray(kept.convert("RGB")), np.asarray(before.convert("RGB"))
            )


def test_all_keeps_all_and_none_keeps_none(tmp_path: Path) -> None:
    path, _ = result(source("PNG"), "a.png", tmp_path, min_saving=0.999, metadata="all")
    assert path.read_bytes() == (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "second").mkdir()
    path, _ = result(source("JPEG"), "a.jpg", tmp_path / "second", metadata="none")
    with Image.open(path) as image:
        assert not image.getexif()


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_kept_file_that_is_not_understood_says_what_it_carries(tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = source(kind) + b"\0\0\0\x40uuid"  # a box that is cut
    path, record = result(data, "a." + kind.lower(), tmp_path, min_saving=0.999)
    assert path.read_bytes() == data
    assert any("the kept source carries its metadata" in notice for notice in record.notices)


def test_animations_stay_whole() -> None:
    frames = [Image.fromarray(picture(n, 32, 32)) for n in range(3)]
    for kind in ("PNG", "WEBP"):
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:], exif=exif(1))
        stripped = with_essential(out.getvalue(), b"")
        assert stripped is not None
        assert b"SecretCamera" not in stripped
        with Image.open(io.BytesIO(stripped)) as image, Image.open(out) as before:
            assert image.n_frames == 3
            for n in range(3):
                image.seek(n)
                before.seek(n)
                assert np.array_equal(
                    np.asarray(image.convert("RGB")), np.asarray(before.convert("RGB"))
                )


def test_broken_blocks_cost_nothing_but_themselves() -> None:
    whole = exif().tobytes()[6:]
    block = essential_exif(whole, 6)
    assert not has_more_than_essential(block)
    assert has_more_than_essential(whole)
    assert essential_exif(b"", 1) == b""
    rng = np.random.default_rng(1)
    for end in range(len(whole)):
        essential_exif(whole[:end], 6)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 4):
            data[place] = rng.integers(0, 256)
        assert len(essential_exif(bytes(data), 3)) < 20_000
    # a directory that leads to itself
    loop = struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x8769, 4, 1, 8, 0)
    assert essential_exif(loop, 1) == b""
    for kind in ("PNG", "WEBP", "TIFF"):
        data = source(kind)
        for end in range(0, len(data), 7):
            with_essential(data[:end], b"")


def test_a_jpeg_is_no_file_of_these_kinds() -> None:
    assert with_essential(jpeg_bytes(picture(1)), b"") is None
