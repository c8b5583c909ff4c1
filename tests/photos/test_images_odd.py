"""Photos of every odd kind: read right, or refused in one clear line."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import vizcomp
from vizcomp.errors import (
    FormatError,
    InputError,
    MissingExtraError,
    TooLargeError,
    TruncatedError,
    UnsupportedError,
    VizcompError,
)
from vizcomp.photos import photo as photos_photo
from vizcomp.photos.decoders import dots_per_inch
from vizcomp.photos.photo import Photo, _orientation, load_bytes

WIDTH, HEIGHT = 48, 32


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


def smooth() -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack(
        [x * 255 / WIDTH, y * 255 / HEIGHT, (x + y) * 255 / (WIDTH + HEIGHT)], axis=-1
    ).astype(np.uint8)


def noise(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> Photo:
    photo = load_bytes(data, "odd")
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.ndim == 2 or photo.pixels.shape[2] == 3
    assert photo.source_bytes == len(data)
    assert (photo.jpeg == data) if photo.format == "JPEG" else photo.jpeg is None
    return photo


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header: tuple[int, int, int, int], raw: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: (width, height, bits, colour type), the filtered rows, chunks between header
    and data."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def rows(array: npt.NDArray[np.generic]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in array)


def tiff(
    samples: npt.NDArray[np.generic], photometric: int, sample_format: int = 1, **tags: int
) -> bytes:
    """A little-endian, uncompressed, one-strip TIFF by hand, for sample layouts that Pillow does
    not write."""
    height, width = samples.shape[:2]
    count = samples.shape[2] if samples.ndim == 3 else 1
    body = samples.tobytes()
    bits = samples.dtype.itemsize * 8
    after = 8 + len(body)
    fields = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, count, bits if count == 1 else after),
        259: (3, 1, 1),
        262: (3, 1, photometric),
        273: (4, 1, 8),
        277: (3, 1, count),
        278: (4, 1, height),
        279: (4, 1, len(body)),
        339: (3, count, sample_format if count == 1 else after + 2 * count),
        **{int(tag): (3, 1, value) for tag, value in tags.items()},
    }
    lists = struct.pack(f"<{2 * count}H", *[bits] * count, *[sample_format] * count)
    directory = struct.pack("<H", len(fields)) + b"".join(
        struct.pack("<HHII", t, *v) for t, v in sorted(fields.items())
    )
    return struct.pack("<2sHI", b"II", 42, after + len(lists)) + body + lists + directory + bytes(4)


# --- formats


@pytest.mark.parametrize(
    ("kind", "options", "exact"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 6),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 6),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 24),
        ("AVIF", {"quality": 95}, 24),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate"}, 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_every_format_in_rgb_and_grey(
    kind: str, options: dict[str, object], exact: int, grey: bool
) -> None:
    source = Image.fromarray(smooth()).convert("L" if grey else "RGB")
    photo = read(encoded(source, kind, **options))
    assert photo.format == kind
    assert photo.notices == ()
    pixels = (
        photo.pixels
        if photo.pixels.ndim == 3 or grey is False
        else np.stack([photo.pixels] * 3, axis=-1)
    )
    difference = np.abs(pixels.astype(int) - np.asarray(source.convert("RGB")))
    assert difference.max() <= exact
    assert kind not in ("JPEG", "PNG", "TIFF", "BMP", "PPM") or photo.pixels.ndim == (
        2 if grey else 3
    )


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    opened = dict(Image.OPEN)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    try:
        pillow_heif.from_pillow(Image.fromarray(smooth())).save(
            buffer, quality=95, exif=exif.tobytes()
        )
    except RuntimeError as exc:
        pytest.skip(f"this pillow-heif cannot write: {exc}")
    photo = read(buffer.getvalue())
    assert photo.format == "HEIF"
    assert photo.orientation == 1  # the decoder turns it
    assert sorted(photo.pixels.shape[:2]) == [HEIGHT, WIDTH]
    assert abs(float(photo.pixels.mean()) - smooth().mean()) < 3
    assert opened == Image.OPEN  # no opener stays behind in Pillow
    with pytest.raises(TooLargeError):
        load_bytes(buffer.getvalue(), "odd", max_pixels=100)
    for part in (0.1, 0.5, 0.9):
        with pytest.raises(TruncatedError):
            load_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * part)], "odd")


def test_heic_without_pillow_heif_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(MissingExtraError) as caught:
        photos_photo.load(path)
    assert "vizcomp[heif]" in caught.value.hint


# --- samples of other sizes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    image = Image.fromarray(values) if kind != "PPM" else Image.fromarray(values.astype(np.int32))
    photo = read(encoded(image, kind))
    assert photo.pixels.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(photo.pixels, np.rint(values / 257).astype(np.uint8))
    assert any("16 bit" in notice for notice in photo.notices)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: png((WIDTH, HEIGHT, 16, 2), rows(v.astype(">u2").reshape(HEIGHT, -1))),
        lambda v: tiff(v, 2),
    ],
)
def test_16_bit_colour_is_scaled(make: Callable[[npt.NDArray[np.uint16]], bytes]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype("<u2")
    photo = read(make(values))
    assert np.abs(photo.pixels - values / 257).max() <= 1
    assert any("16 bit" in notice for notice in photo.notices)


def test_16_bit_with_alpha_is_flattened() -> None:
    values = np.full((HEIGHT, WIDTH, 4), 30000, ">u2")
    values[:, : WIDTH // 2, 3] = 0
    values[:, WIDTH // 2 :, 3] = 65535
    photo = read(png((WIDTH, HEIGHT, 16, 6), rows(values.reshape(HEIGHT, -1))))
    assert (photo.pixels[:, : WIDTH // 2] == 255).all()
    assert np.abs(photo.pixels[:, WIDTH // 2 :] - 30000 / 257).max() <= 1
    assert len(photo.notices) == 2


def test_16_bit_grey_with_a_transparent_value() -> None:
    values = np.full((HEIGHT, WIDTH), 30000, ">u2")
    values[0] = 77
    photo = read(png((WIDTH, HEIGHT, 16, 0), rows(values), chunk(b"tRNS", struct.pack(">H", 77))))
    assert (photo.pixels[0] == 255).all()
    assert (photo.pixels[1:] == round(30000 / 257)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_reaches_black_and_white(bits: int) -> None:
    photo = read(png((8, 2, bits, 0), (b"\0" + b"\xff" * bits) + (b"\0" + b"\x00" * bits)))
    assert photo.pixels.tolist() == [[255] * 8, [0] * 8]


def test_one_bit_of_other_formats() -> None:
    source = Image.fromarray(smooth()).convert("1")
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        np.testing.assert_array_equal(
            read(encoded(source, kind)).pixels, np.asarray(source).astype(np.uint8) * 255
        )


def test_floats_are_scaled_and_it_is_said() -> None:
    values = smooth()[:, :, 2].astype(np.float32) / 255
    photo = read(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(photo.pixels - values * 255).max() <= 0.51
    assert "0..1" in photo.notices[0]
    wide = values * 3000 - 500
    wide[0, 0], wide[0, 1] = np.nan, np.inf
    photo = read(encoded(Image.fromarray(wide), "TIFF"))
    assert (photo.pixels.min(), photo.pixels.max()) == (0, 255)
    assert (photo.pixels[0, 0], photo.pixels[0, 1]) == (0, 255)
    assert "stretched" in photo.notices[0]
    with pytest.raises(UnsupportedError, match="finite"):
        read(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_wide_integers_are_stretched() -> None:
    values = np.linspace(-70000, 90000, HEIGHT * WIDTH).astype(np.int32).reshape(HEIGHT, WIDTH)
    photo = read(encoded(Image.fromarray(values), "TIFF"))
    assert (photo.pixels.min(), photo.pixels.max()) == (0, 255)
    assert "stretched" in photo.notices[0]


def test_sample_layouts_that_are_not_read_are_refused_as_such() -> None:
    with pytest.raises(UnsupportedError, match="TIFF"):
        read(tiff(np.zeros((HEIGHT, WIDTH, 3), np.float32), 2, 3))
    with pytest.raises(UnsupportedError, match="TIFF"):
        read(tiff(np.zeros((HEIGHT, WIDTH), np.float64), 1, 1))


# --- transparency and palettes


def half_clear(mode: str) -> Image.Image:
    image = Image.fromarray(smooth()).convert(mode)
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    alpha[:, WIDTH // 2 : WIDTH // 2 + 4] = 128
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("RGBA", "AVIF")],
)
def test_transparency_is_flattened_on_white(mode: str, kind: str) -> None:
    image = half_clear(mode)
    photo = read(
        encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    )
    assert photo.notices == ("transparency flattened on white",)
    colours = np.asarray(image.convert("RGB" if mode == "RGBA" else "L")).astype(float)
    alpha = np.asarray(image.getchannel("A"))[..., None][..., 0] / 255
    expected = colours * (alpha[..., None] if mode == "RGBA" else alpha) + 255 * (
        1 - (alpha[..., None] if mode == "RGBA" else alpha)
    )
    assert photo.pixels.ndim == (3 if mode == "RGBA" else 2)
    assert np.abs(photo.pixels - expected).max() <= (30 if kind == "AVIF" else 1)
    assert (photo.pixels[:, : WIDTH // 2 - 4] >= (250 if kind == "AVIF" else 255)).all()


def test_an_opaque_alpha_changes_nothing_and_is_not_told() -> None:
    image = Image.fromarray(smooth()).convert("RGBA")
    photo = read(encoded(image, "PNG"))
    np.testing.assert_array_equal(photo.pixels, smooth())
    assert photo.notices == ()


def test_palettes() -> None:
    image = Image.fromarray(smooth()).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        photo = read(encoded(image, kind))
        np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))
        assert photo.notices == ()


def test_palettes_with_transparency() -> None:
    image = Image.fromarray(smooth()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    index = np.asarray(image)
    expected = np.asarray(image.convert("RGB")).astype(float)
    for transparency in (b"\xff\x00\x80", 1):
        photo = read(encoded(image, "PNG", transparency=transparency))
        assert photo.notices == ("transparency flattened on white",)
        alpha = (
            np.array([255, 0, 128 if isinstance(transparency, bytes) else 255, 255])[index][
                ..., None
            ]
            / 255
        )
        assert np.abs(photo.pixels - (expected * alpha + 255 * (1 - alpha))).max() <= 1
    photo = read(encoded(image, "GIF", transparency=1))
    assert (photo.pixels[index == 1] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour(mode: str) -> None:
    pixels = (
        np.full((HEIGHT, WIDTH), 90, np.uint8)
        if mode == "L"
        else np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    )
    pixels[0] = 10
    photo = read(
        encoded(Image.fromarray(pixels), "PNG", transparency=10 if mode == "L" else (10, 10, 10))
    )
    assert photo.pixels.ndim == pixels.ndim
    assert (photo.pixels[0] == 255).all()
    assert (photo.pixels[1:] == 90).all()


# --- several pictures


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("GIF", "frames"),
        ("WEBP", "frames"),
        ("PNG", "frames"),
        ("AVIF", "frames"),
        ("TIFF", "pages"),
    ],
)
def test_the_first_of_several_pictures_is_taken(kind: str, word: str) -> None:
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime", "blue")]
    photo = read(encoded(pictures[0], kind, save_all=True, append_images=pictures[1:]))
    assert photo.notices == (f"first of 3 {word}",)
    assert np.abs(photo.pixels.astype(int) - [255, 0, 0]).max() < 8


def test_the_main_picture_of_a_multi_picture_jpeg_is_taken() -> None:
    pictures = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    photo = read(encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:]))
    assert photo.format == "JPEG"
    assert photo.notices == ("main picture of 2",)
    assert np.abs(photo.pixels.astype(int) - [254, 0, 0]).max() < 4


# --- colour


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_profile(kind: str) -> None:
    source = Image.fromarray(smooth()).convert("CMYK")
    photo = read(
        encoded(source, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    )
    assert np.abs(photo.pixels.astype(int) - smooth()).max() < 12
    assert photo.icc is None
    assert "CMYK" in photo.notices[0]
    assert "approximate" in photo.notices[0]


def test_inverted_and_ycck_jpegs_come_out_alike() -> None:
    """Adobe stores CMYK inverted, as it is or turned to YCCK; a marker says which."""
    cv = np.full((16, 16, 4), (10, 200, 90, 30), np.uint8)
    data = encoded(Image.fromarray(cv, "CMYK"), "JPEG", quality=100)
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] in (0, 2)
    expected = np.asarray(Image.fromarray(cv, "CMYK").convert("RGB")).astype(int)
    assert np.abs(read(data).pixels - expected).max() < 4
    turned = bytearray(data)
    # the same components under the other mark are turned where they must not be, or the reverse
    turned[adobe + 11] ^= 2
    other = read(bytes(turned))
    assert np.abs(other.pixels - expected).max() > 20
    assert "CMYK" in other.notices[0]


def cmyk_profile() -> bytes:
    """A small valid CMYK profile: a lookup table of two points an ink, black ink or all inks black,
    no ink white."""

    def s15(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))

    lut = struct.pack(">4sIBBBx", b"mft1", 0, 4, 3, 2) + s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += bytes(range(256)) * 4
    for c in range(2):
        for m in range(2):
            for y in range(2):
                for k in range(2):
                    light = 0 if k else max(0, 255 - 70 * (c + m + y))
                    tint = 0 if k else 60
                    lut += bytes(
                        [
                            light,
                            min(255, max(0, 128 + tint * (m - c))),
                            min(255, max(0, 128 + tint * (y - (c + m) / 2).__trunc__())),
                        ]
                    )
    lut += bytes(range(256)) * 3
    description = b"desc" + struct.pack(">II", 0, 5) + b"test\0" + bytes(78 + 1)
    white = b"XYZ " + bytes(4) + s15(0.9642, 1.0, 0.8249)
    tags = [(b"desc", description), (b"cprt", b"text" + bytes(4) + b"none\0"), (b"wtpt", white)]
    tags += [(name, lut) for name in (b"A2B0",)]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    header += bytes(28) + s15(0.9642, 1.0, 0.8249) + bytes(48)
    return header[:128] + struct.pack(">I", len(tags)) + table + body


def test_cmyk_with_a_profile_goes_through_it_and_does_not_keep_it() -> None:
    profile = cmyk_profile()
    assert profile[16:20] == b"CMYK"
    source = Image.fromarray(np.full((16, 16, 4), (0, 0, 0, 0), np.uint8), "CMYK")
    photo = read(encoded(source, "JPEG", quality=95, icc_profile=profile))
    assert photo.icc is None
    assert photo.notices == ("CMYK converted to sRGB by its ICC profile",)
    assert (photo.pixels > 245).all()
    inked = Image.fromarray(np.full((16, 16, 4), (255, 0, 0, 0), np.uint8), "CMYK")
    by_profile = read(encoded(inked, "JPEG", quality=95, icc_profile=profile)).pixels
    plainly = read(encoded(inked, "JPEG", quality=95)).pixels
    assert np.abs(by_profile.astype(int) - plainly).max() > 30  # pure cyan ink is no pure cyan


def test_cmyk_with_a_broken_profile_is_converted_plainly() -> None:
    profile = cmyk_profile()[:200]
    source = Image.fromarray(smooth()).convert("CMYK")
    photo = read(encoded(source, "JPEG", quality=95, icc_profile=profile))
    assert photo.icc is None
    assert "approximate" in photo.notices[0]


def test_a_profile_that_does_not_fit_the_colours_is_left_out() -> None:
    rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read(encoded(Image.fromarray(smooth()), "PNG", icc_profile=rgb)).icc == rgb
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        grey = read(encoded(Image.fromarray(smooth()).convert("L"), kind, icc_profile=rgb))
        assert grey.icc == (rgb if grey.pixels.ndim == 3 else None)
        assert bool(grey.notices) == (grey.pixels.ndim == 2)


def test_lab_is_converted() -> None:
    photo = read(encoded(Image.new("LAB", (9, 9), (128, 128, 128)), "TIFF"))
    assert np.abs(photo.pixels.astype(int) - 119).max() <= 2
    assert photo.icc is None
    assert photo.notices == ("LAB converted to sRGB",)


# --- metadata


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",
        b"Exif\0\0garbage" + bytes(range(256)),
    ],
)
def test_broken_exif_costs_nothing_but_itself(exif: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        photo = read(encoded(Image.fromarray(smooth()), kind, exif=exif))
        assert photo.orientation == 1
        assert photo.pixels.shape == (HEIGHT, WIDTH, 3)
        assert photo.exif is None or photo.exif == exif


@given(exif=st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_exif_block_breaks_the_reading_of_its_orientation(exif: bytes) -> None:
    for body in (exif, b"II*\0" + exif, b"MM\0*\0\0\0\x08" + exif):
        assert 1 <= _orientation(body) <= 8


def test_resolution() -> None:
    assert read(encoded(Image.fromarray(smooth()), "JPEG", dpi=(72, 72))).dpi == (72.0, 72.0)
    assert read(encoded(Image.fromarray(smooth()), "JPEG")).dpi is None
    assert (
        dots_per_inch((0, 0))
        is dots_per_inch(None)
        is dots_per_inch((float("nan"), 2))
        is dots_per_inch("ab")
        is None
    )


# --- what cannot be read


def test_files_that_are_no_photos(tmp_path: Path) -> None:
    for name, content, words in (
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"Dear Sir or Madam,\n" * 100, "not an image"),
        ("short.jpg", b"\xff", "not an image"),
        ("paper.jpg", b"%PDF-1.7\n", "a PDF"),
        ("draw.png", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        ("layers.tif", b"8BPS" + bytes(50), "Photoshop"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            photos_photo.load(path)
        assert name in caught.value.message
        assert caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        photos_photo.load(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="folder"):
        photos_photo.load(tmp_path)
    with pytest.raises(InputError):
        photos_photo.load(tmp_path / "empty.jpg" / "a.jpg")
    with pytest.raises(InputError):
        photos_photo.load(tmp_path / "a\0b.jpg")


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really-a.jpg"
    path.write_bytes(encoded(Image.fromarray(smooth()), "PNG"))
    photo = photos_photo.load(path)
    assert (photo.format, photo.jpeg) == ("PNG", None)


def test_a_huge_file_that_is_no_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a hole: takes no disk
    with pytest.raises(InputError, match="not an image"):
        photos_photo.load(path)
    with open(path, "r+b") as file:
        file.write(b"\xff\xd8\xff\xe0")
    with pytest.raises(TooLargeError, match="bytes"):
        photos_photo.load(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "kind", ["JPEG", "progressive", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"]
)
def test_a_photo_that_is_cut_off(kind: str, part: float) -> None:
    source = Image.fromarray(noise(100, 120))
    data = (
        encoded(source, "JPEG", progressive=True)
        if kind == "progressive"
        else encoded(source, kind)
    )
    assert read(data).pixels.shape == (100, 120, 3)
    with pytest.raises(TruncatedError, match="cut off") as caught:
        load_bytes(data[: int(len(data) * part)], "half.jpg")
    assert "half.jpg" in caught.value.message
    assert caught.value.hint
    assert caught.value.__cause__ is not None or kind in ("GIF", "WEBP")


def bomb_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.fromarray(smooth()), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bomb_tiff(side: int) -> bytes:
    data = tiff(np.zeros((2, 2), np.uint8), 1)
    for tag in (256, 257):  # width and height
        data = data.replace(
            struct.pack("<HHII", tag, 4, 1, 2), struct.pack("<HHII", tag, 4, 1, side)
        )
    return data


def bomb_webp(kind: bytes, body: bytes) -> bytes:
    return (
        b"RIFF"
        + struct.pack("<I", 12 + len(body))
        + b"WEBP"
        + kind
        + struct.pack("<I", len(body))
        + body
    )


GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x01\x00\x00;"
BMP_HEADER = struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 1, 1, 0, 0)
BOMBS = {
    "PNG": png((60000, 60000, 8, 2), b""),
    "PNG of lines": png((2**31 - 1, 1, 8, 2), b""),
    "JPEG": bomb_jpeg(65500, 65500),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + GIF_FRAME,
    "BMP": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + BMP_HEADER + bytes(46),
    "PPM": b"P6 60000 60000 255\n" + bytes(100),
    "TIFF": bomb_tiff(60000),
    "WEBP": bomb_webp(b"VP8X", bytes(4) + b"\xff\x3f\0\xff\x3f\0"),
    "WEBP lossless": bomb_webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(13)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError, match="pixels") as caught:
        load_bytes(BOMBS[name], "bomb")
    assert "bomb" in caught.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_the_limit_is_the_callers() -> None:
    data = encoded(Image.fromarray(smooth()), "PNG")
    assert load_bytes(data, "odd", max_pixels=WIDTH * HEIGHT).pixels.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(TooLargeError, match=f"{WIDTH} x {HEIGHT}"):
        load_bytes(data, "odd", max_pixels=WIDTH * HEIGHT - 1)


def test_a_photo_above_pillows_own_limit_is_read_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would raise beyond 200 pixels
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP"):
        assert read(encoded(Image.fromarray(smooth()), kind)).pixels.shape == (HEIGHT, WIDTH, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_compressed_text_and_profiles_do_not_blow_up() -> None:
    million = zlib.compress(bytes(80_000_000), 9)
    one = rows(np.zeros((1, 3), np.uint8))
    for extra in (
        chunk(b"zTXt", b"k\0\0" + million),
        chunk(b"iCCP", b"k\0\0" + million),
        chunk(b"iTXt", b"k\0\1\0\0\0" + million),
    ):
        try:
            photo = read(png((1, 1, 8, 2), one, extra))
        except FormatError:
            continue
        assert photo.icc is None or len(photo.icc) < 4_000_000


def special_jpeg(marker: int, bits: int = 8) -> bytes:
    data = bytearray(encoded(Image.fromarray(smooth()), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 1] = marker
    data[frame + 4] = bits
    return bytes(data)


@pytest.mark.parametrize(
    ("marker", "bits", "words"),
    [(0xC1, 12, "12-bit"), (0xC3, 8, "lossless"), (0xC5, 8, "hierarchical"), (0xCB, 8, "lossless")],
)
def test_jpegs_of_rare_kinds_are_refused_by_name(marker: int, bits: int, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        load_bytes(special_jpeg(marker, bits), "rare.jpg")


@pytest.mark.skipif(shutil.which("jpegtran") is None, reason="needs jpegtran to make one")
def test_an_arithmetic_coded_jpeg_is_read_as_its_huffman_twin() -> None:
    source = encoded(Image.fromarray(smooth()), "JPEG", quality=90)
    done = subprocess.run(
        ["jpegtran", "-arithmetic"], input=source, capture_output=True, check=False
    )
    if done.returncode != 0 or b"\xff\xc9" not in done.stdout:
        pytest.skip("this jpegtran has no arithmetic coding")
    np.testing.assert_array_equal(read(done.stdout).pixels, read(source).pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_flipped_bytes_end_in_a_photo_or_in_one_of_our_errors(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = encoded(
        Image.fromarray(smooth()),
        kind,
        **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}),
    )
    generator = np.random.default_rng(5)
    opened = 0
    for _ in range(120):
        data = bytearray(source)
        for position in generator.integers(0, min(len(data), 700), generator.integers(1, 4)):
            data[position] = generator.integers(0, 256)
        cut = (
            bytes(data[: generator.integers(1, len(data) + 1)])
            if generator.random() < 0.3
            else bytes(data)
        )
        error: VizcompError | None = None
        try:
            photo = load_bytes(cut, "flipped", max_pixels=1_000_000)
        except VizcompError as exc:
            error = exc
        if error is not None:
            assert error.message.startswith("flipped ")
            assert error.hint
        else:
            assert 1 <= photo.orientation <= 8
            assert photo.pixels.size > 0
            opened += 1
    assert 0 < opened < 120


def test_memory_running_out_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise MemoryError

    data = encoded(Image.fromarray(smooth()), "BMP")
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    with pytest.raises(TooLargeError, match="memory"):
        load_bytes(data, "odd")


def test_formats_outside_the_list_never_reach_pillow(tmp_path: Path) -> None:
    """An EPS renamed to .jpg must not start Ghostscript, and importing the module loads no plugin
    for it."""
    script = (
        f"import sys, vizcomp.photos.photo as i\ni.load_bytes(open({str(tmp_path / 'a.webp')!r},"
        " 'rb').read(), 'a')\nprint(sorted(m for m in sys.modules if"
        " m.endswith('ImagePlugin')))\nprint([m for m in ('torch', 'scipy', 'onnxruntime',"
        " 'matplotlib', 'cv2') if m in sys.modules])\n"
    )
    (tmp_path / "a.webp").write_bytes(encoded(Image.fromarray(smooth()), "WEBP"))
    environment = {**os.environ, "PYTHONPATH": str(Path(vizcomp.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    plugins, heavy = done.stdout.splitlines()
    assert "WebPImagePlugin" in plugins
    for name in ("Eps", "Pdf", "Wmf", "Psd", "Fpx"):
        assert name not in plugins
    assert heavy == "[]"
    assert done.stderr == ""
