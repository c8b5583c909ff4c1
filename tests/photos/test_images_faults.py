"""Kinds of pictures that were once read wrongly in silence, or refused although they are whole."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from vizcomp.errors import FormatError
from vizcomp.photos.photo import load_bytes, to_srgb


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """float 0..1, brighter to the right and below."""
    y, x = np.mgrid[:height, :width]
    return (x / (width - 1) + y / (height - 1)) / 2


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(header: tuple[int, int, int, int], rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: (width, height, bits, colour type), filtered rows, chunks before the
    pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)) + b"".join(extra)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    samples: np.ndarray,
    photometric: int,
    order: str = "<",
    bits: int = 0,
    compression: int = 1,
    planes: int = 1,
) -> bytes:
    """A TIFF by hand, one strip for each plane (below each other in `samples`); compression 8:
    deflate."""
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    bits = bits or samples.dtype.itemsize * 8
    if bits == 12:
        pairs = samples.reshape(-1, 2).astype(np.uint32)
        whole = pairs[:, 0] << 12 | pairs[:, 1]
        body = np.stack([whole >> 16, whole >> 8 & 255, whole & 255], -1).astype(np.uint8).tobytes()
    else:
        body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    if compression == 8:
        body = zlib.compress(body)
    height, width = samples.shape[0] // planes, samples.shape[1]
    strips = [(8 + len(body) // planes * plane, len(body) // planes) for plane in range(planes)]
    values = {
        256: (width,),
        257: (height,),
        258: (bits,) * planes,
        259: (compression,),
        262: (photometric,),
    }
    values |= {
        273: tuple(at for at, _ in strips),
        277: (planes,),
        278: (height,),
        279: tuple(size for _, size in strips),
    }
    values |= {284: (1 + (planes > 1),), 339: (kind,) * planes}
    data = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + body + b"\0" * (len(body) % 2)
    directory = struct.pack(order + "H", len(values))
    for tag, numbers in sorted(values.items()):
        stored = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            place, data = len(data), data + stored
            stored = struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, 4, len(numbers)) + stored
    return data[:4] + struct.pack(order + "I", len(data)) + data[8:] + directory + bytes(4)


# --- grey of many bits ----------------------------------------------------------------------------


ALL_GREYS = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]


def spread(kind: str) -> np.ndarray:
    """The ramp over all values of a sample's type, of floats from 0 to 1."""
    if kind[0] == "f":
        return ramp().astype(kind)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return (low + (ramp() * (float(high) - low)).round()).clip(low, high).astype(kind)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ALL_GREYS)
def test_grey_of_any_type_and_order_of_bytes(kind: str, order: str, compression: int) -> None:
    data = tiff(spread(kind), 1, order, compression=compression)
    assert np.abs(load_bytes(data, "grey.tif").pixels - ramp() * 255).max() <= 1


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ALL_GREYS)
def test_a_tiff_that_counts_from_white_is_no_negative(
    kind: str, order: str, compression: int
) -> None:
    values = spread(kind)
    stored = (
        1 - values
        if kind[0] == "f"
        else -1 - values
        if kind[0] == "i"
        else np.iinfo(kind).max - values
    )
    data = tiff(stored.astype(kind), 0, order, compression=compression)
    assert np.abs(load_bytes(data, "white.tif").pixels - ramp() * 255).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits_are_no_planes_of_8(order: str) -> None:
    planes = np.stack([ramp(), ramp()[::-1], ramp()[:, ::-1]])
    data = tiff((planes * 65535).round().astype(np.uint16).reshape(-1, 32), 2, order, planes=3)
    assert (
        np.abs(load_bytes(data, "planes.tif").pixels - planes.transpose(1, 2, 0) * 255).max() <= 1
    )


def test_pillow_has_its_own_layouts_back() -> None:
    from PIL import TiffImagePlugin

    before = dict(TiffImagePlugin.OPEN_INFO)
    load_bytes(tiff(spread("f8"), 1), "grey.tif")
    assert before == TiffImagePlugin.OPEN_INFO


def test_unsigned_32_bits_keep_their_order_above_2_to_31() -> None:
    stored = (ramp() * (2**32 - 1)).astype(np.uint32)
    photo = load_bytes(tiff(stored, 1), "wide.tif")
    assert np.abs(photo.pixels - ramp() * 255).max() <= 1
    assert not any("-" in notice for notice in photo.notices)
    signed = load_bytes(tiff((ramp() * 1000 - 500).astype(np.int32), 1), "signed.tif")
    assert np.abs(signed.pixels - ramp() * 255).max() <= 1


def test_twelve_bits_are_scaled_by_their_own_range() -> None:
    stored = (ramp() * 4095).round().astype(np.uint16)
    photo = load_bytes(tiff(stored, 1, bits=12), "twelve.tif")
    assert np.abs(photo.pixels - ramp() * 255).max() <= 1
    assert photo.notices == ("12 bits a sample reduced to 8",)


# --- one transparent colour -----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0, 1 / 3, 1])
def test_a_transparent_grey_of_any_depth_is_white(bits: int, share: float) -> None:
    most = 2**bits - 1
    if bits == 1 and share == 1 / 3:
        share = 0.0
    clear, other = round(most * share), round(most * (1 - share))
    half = 8  # left half transparent
    levels = [clear] * half + [other] * half
    row = int("".join(f"{level:0{bits}b}" for level in levels), 2).to_bytes(
        2 * half * bits // 8, "big"
    )
    data = png((2 * half, 4, bits, 0), (b"\0" + row) * 4, chunk(b"tRNS", struct.pack(">H", clear)))
    photo = load_bytes(data, "grey.png")
    assert photo.pixels[:, :half].tolist() == [[255] * half] * 4
    assert np.abs(photo.pixels[:, half:].astype(int) - other * 255 / most).max() <= 1
    assert "transparency flattened on white" in photo.notices


def test_a_transparent_colour_of_16_bits_is_compared_whole() -> None:
    colours = np.array([[[4660, 22136, 39612], [4661, 22136, 39612], [0, 0, 0]]], ">u2")
    body = b"\0" + colours.tobytes()
    data = png((3, 1, 16, 2), body, chunk(b"tRNS", struct.pack(">3H", 4660, 22136, 39612)))
    photo = load_bytes(data, "colour.png")
    assert photo.pixels.tolist() == [[[255] * 3, [4660 >> 8, 22136 >> 8, 39612 >> 8], [0] * 3]]
    assert set(photo.notices) == {
        "16 bits a sample reduced to 8",
        "transparency flattened on white",
    }


# --- colours --------------------------------------------------------------------------------------


def linear_profile(name: str) -> bytes:
    """An ICC profile of sRGB's primaries with a gamma of 1, under any name."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", made, 128)[0]
    for at in range(132, 132 + 12 * count, 12):
        tag, offset, _ = struct.unpack_from(">4sII", made, at)
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            made[offset : offset + 16] = b"curv" + bytes(8) + bytes(4)  # no entries: the identity
        if tag == b"desc":
            text = name.encode("utf-16-be")
            size = struct.unpack_from(">I", made, offset + 20)[0]
            made[offset + 28 : offset + 28 + size] = text[:size].ljust(size, b"\0")
    return bytes(made)


def test_a_profile_is_taken_by_what_it_does_and_not_by_its_name() -> None:
    grey = np.full((8, 8, 3), 71, np.uint8)
    data = saved(Image.fromarray(grey), "PNG", icc_profile=linear_profile("linear sRGB"))
    pixels, notices = to_srgb(load_bytes(data, "linear.png"))
    assert abs(int(pixels.mean()) - 144) <= 2  # 71 of 255 in linear light
    assert notices
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = load_bytes(saved(Image.fromarray(grey), "PNG", icc_profile=own), "srgb.png")
    assert to_srgb(photo) == (photo.pixels, ())


def test_photos_of_one_camera_share_what_their_profile_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    build = ImageCms.buildTransform
    monkeypatch.setattr(
        ImageCms, "buildTransform", lambda *a, **k: made.append(a) or build(*a, **k)
    )
    icc = linear_profile("linear twice")
    means = []
    for level in (71, 140):
        pixels = np.full((8, 8, 3), level, np.uint8)
        photo = load_bytes(saved(Image.fromarray(pixels), "PNG", icc_profile=icc), "a.png")
        means.append(int(to_srgb(photo)[0].mean()))
    assert len(made) == 1
    assert means[0] < means[1]
    assert abs(means[0] - 144) <= 2
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other = load_bytes(saved(Image.fromarray(pixels), "PNG", icc_profile=own), "b.png")
    assert to_srgb(other)[0].mean() == 140  # another profile, another transform


# --- a PNG's chunks beside its pixels -------------------------------------------------------------


def plain_png(*extra: bytes) -> bytes:
    return png((2, 2, 8, 0), b"\0\x10\x20\0\x30\x40", *extra)


def broken(made: bytes) -> bytes:
    return made[:-1] + bytes([made[-1] ^ 1])


TEXTS = [
    chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_600_000)),
    chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 1_600_000)),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 1_600_000)),
    *[chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 900_000))] * 80,
]


@pytest.mark.parametrize("extra", [TEXTS[:1], TEXTS[1:2], TEXTS[2:3], TEXTS[3:4], TEXTS], ids=len)
def test_megabytes_of_text_do_not_keep_a_png_from_being_read(extra: list[bytes]) -> None:
    photo = load_bytes(plain_png(*extra), "text.png")
    assert photo.pixels.tolist() == [[16, 32], [48, 64]]
    assert photo.notices == ()
    assert photo.source_bytes == len(plain_png(*extra))


@pytest.mark.parametrize("kind", [b"pHYs", b"gAMA", b"eXIf", b"iCCP", b"tIME"])
def test_a_wrong_checksum_beside_the_pixels_costs_that_chunk_only(kind: bytes) -> None:
    photo = load_bytes(plain_png(broken(chunk(kind, bytes(9)))), "sum.png")
    assert photo.pixels.tolist() == [[16, 32], [48, 64]]
    assert photo.notices == (f"{kind.decode()} left out: its checksum is wrong",)
    assert photo.dpi is None


def test_a_wrong_checksum_of_whole_pixels_is_told() -> None:
    data = bytearray(plain_png())
    at = data.index(b"IDAT")
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    photo = load_bytes(bytes(data), "sum.png")
    assert photo.pixels.tolist() == [[16, 32], [48, 64]]
    assert photo.notices == ("a checksum of its pixels is wrong; they unpack all the same",)
    data[at + 6] ^= 0xFF
    with pytest.raises(FormatError, match="is broken"):
        load_bytes(bytes(data), "broken.png")


def test_xmp_of_a_png_is_kept_and_a_broken_palette_is_not() -> None:
    packet = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    assert load_bytes(plain_png(packet, TEXTS[0]), "xmp.png").xmp == b"<x/>"
    with pytest.raises(FormatError):
        load_bytes(plain_png(broken(chunk(b"PLTE", bytes(9)))), "palette.png")


# --- colours and orientations that are stated in other ways ---------------------------------------


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (chunk(b"gAMA", struct.pack(">I", 100_000)), "gamma 1"),
        (chunk(b"cICP", bytes([12, 13, 0, 1])), "Display P3"),
        (chunk(b"cICP", bytes([9, 16, 0, 1])), "BT.2020, PQ (HDR)"),
        (
            chunk(
                b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
            ),
            "primaries of its own",
        ),
        (chunk(b"gAMA", struct.pack(">I", 45_455)), ""),
        (chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0"), ""),
        (chunk(b"cICP", bytes([1, 13, 0, 1])), ""),
    ],
)
def test_colours_that_no_profile_states_are_told(extra: bytes, said: str) -> None:
    photo = load_bytes(png((8, 8, 8, 2), (b"\0" + bytes(24)) * 8, extra), "stated.png")
    told = [notice for notice in photo.notices if "taken for sRGB" in notice]
    assert told == (
        [f"its colours ({said}) are taken for sRGB, as other decoders do"] if said else []
    )


def test_exif_in_a_text_as_imagemagick_wrote_it_turns_the_photo() -> None:
    block = Image.Exif()
    block[0x0112] = 6
    body = block.tobytes()
    lines = [body.hex()[at : at + 72] for at in range(0, 2 * len(body), 72)]
    text = "\n".join(["", "exif", f"{len(body):8}", *lines, ""]).encode()
    for kind, stored in ((b"tEXt", b"\0" + text), (b"zTXt", b"\0\0" + zlib.compress(text))):
        data = png((8, 6, 8, 0), bytes(9 * 6), chunk(kind, b"Raw profile type exif" + stored))
        assert load_bytes(data, "old.png").orientation == 6
    broken = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz")
    assert load_bytes(png((8, 6, 8, 0), bytes(9 * 6), broken), "broken.png").orientation == 1


def test_an_orientation_in_xmp_alone_is_told_and_not_followed() -> None:
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    photo = load_bytes(saved(Image.new("RGB", (8, 6)), "JPEG", xmp=packet), "xmp.jpg")
    assert (photo.orientation, photo.notices) == (
        1,
        ("orientation 6 stands in its XMP alone: not turned, as in browsers",),
    )
    block = Image.Exif()
    block[0x0112] = 1
    assert (
        load_bytes(
            saved(Image.new("RGB", (8, 6)), "JPEG", xmp=packet, exif=block), "both.jpg"
        ).notices
        == ()
    )
