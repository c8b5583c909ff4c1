"""The encoder: what it promises about size, regions, sources and metadata."""

from __future__ import annotations

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import jpeg_bytes
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vizcomp import metrics
from vizcomp.cli.values import parse_fraction, parse_size
from vizcomp.depth.kinds import Depth
from vizcomp.djpeg import guide
from vizcomp.djpeg.compress import Prepared, compress
from vizcomp.djpeg.encoder import MACHINE_SCALE, STEP_SCALES, Encoder
from vizcomp.djpeg.settings import (
    METADATA,
    PHOTO_CHROMA,
    PHOTO_LUMA,
    SHAPE,
    TABLES,
    DjpegSettings,
    Shape,
    quantisation_tables,
)
from vizcomp.djpeg.source import Source
from vizcomp.errors import InputError, SettingsError
from vizcomp.jpeg.image import Component, JpegImage
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import exif_orientation
from vizcomp.jpeg.write import write_jpeg
from vizcomp.photos.encode import encode_plain_jpeg
from vizcomp.photos.frame import upright
from vizcomp.photos.photo import Photo, decode_jpeg, load_bytes


def photo_of(pixels: np.ndarray, **options: object) -> Photo:
    return load_bytes(jpeg_bytes(pixels, **options), "made.jpg")


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def left_is_near(pixels: np.ndarray) -> Depth:
    height, width = pixels.shape[:2]
    nearness = np.broadcast_to(np.linspace(1, 0, width, dtype=np.float32), (height, width))
    return Depth(nearness)


def test_uniform_result_is_an_ordinary_jpeg_and_smaller_than_plain(coffee: np.ndarray) -> None:
    photo = photo_of(coffee)
    made = compress(photo, DjpegSettings(guide="uniform"))
    shown = Image.open(io.BytesIO(made.data))
    assert shown.format == "JPEG"
    assert shown.size == (600, 400)
    assert metrics.psnr(photo.pixels, np.asarray(shown.convert("RGB"))) > 30
    assert len(made.data) < len(encode_plain_jpeg(photo.pixels, quality=50))


def test_near_keeps_what_far_gives_up(coffee: np.ndarray) -> None:
    photo = photo_of(coffee)
    uniform = compress(photo, DjpegSettings(guide="uniform"))
    guided = compress(photo, DjpegSettings(guide="depth", strength=1), depth=left_is_near(coffee))
    assert len(guided.data) < len(uniform.data)

    def psnr(data: bytes, part: slice) -> float:
        return metrics.psnr(photo.pixels[:, part], decode_jpeg(data)[:, part])

    near, far = slice(0, 60), slice(450, 600)
    loss_near = psnr(uniform.data, near) - psnr(guided.data, near)
    loss_far = psnr(uniform.data, far) - psnr(guided.data, far)
    assert loss_near < 0.5
    assert loss_far > loss_near + 0.3


# under auto near blocks pay for bits too
@pytest.mark.parametrize(("table", "least"), [("machine", 1.0), ("auto", 0.3)])
def test_at_equal_bytes_the_guide_buys_fidelity_where_it_points(
    coffee: np.ndarray, table: Any, least: float
) -> None:
    photo = photo_of(coffee)
    guided = compress(
        photo, DjpegSettings(guide="depth", strength=1, table=table), depth=left_is_near(coffee)
    )
    size = round(len(guided.data) * 1.01)
    uniform = compress(photo, DjpegSettings(guide="uniform", table=table, target_size=size))
    third = slice(0, 200)
    gain = metrics.psnr(photo.pixels[:, third], decode_jpeg(guided.data)[:, third]) - metrics.psnr(
        photo.pixels[:, third], decode_jpeg(uniform.data)[:, third]
    )
    assert gain > least


def test_strength_zero_and_uniform_are_the_same(coffee: np.ndarray) -> None:
    photo = photo_of(coffee)
    assert (
        compress(photo, DjpegSettings(strength=0)).data
        == compress(photo, DjpegSettings(guide="uniform")).data
    )


def test_more_strength_never_costs_bytes(coffee: np.ndarray) -> None:
    photo, depth = photo_of(coffee), left_is_near(coffee)
    sizes = [
        len(compress(photo, DjpegSettings(guide="depth", strength=s), depth=depth).data)
        for s in (0.25, 0.5, 0.75, 1)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


@pytest.mark.parametrize("table", TABLES)
def test_quality_orders_size_and_fidelity(coffee: np.ndarray, table: str) -> None:
    photo = photo_of(coffee)
    made = [
        compress(photo, DjpegSettings(guide="uniform", table=table, quality=q)).data
        for q in (5, 25, 50, 75, 95)
    ]  # type: ignore[arg-type]
    sizes = [len(data) for data in made]
    fidelity = [metrics.psnr(photo.pixels, decode_jpeg(data)) for data in made]
    assert sizes == sorted(sizes)
    assert fidelity == sorted(fidelity)


@pytest.mark.parametrize("guide", ["uniform", "depth"])
@pytest.mark.parametrize("target", [3_000, 12_345, 40_000])
def test_target_size_is_met_within_two_percent_from_below(
    coffee: np.ndarray, cat: np.ndarray, guide: str, target: int
) -> None:
    for pixels in (coffee, cat):
        photo = photo_of(pixels, quality=98)
        made = compress(
            photo, DjpegSettings(guide=guide, target_size=target), depth=left_is_near(pixels)
        )
        assert 0.98 * target <= len(made.data) <= target


def test_target_size_out_of_reach_is_refused_or_said(coffee: np.ndarray) -> None:
    photo = photo_of(coffee)
    with pytest.raises(InputError, match="smallest"):
        compress(photo, DjpegSettings(guide="uniform", target_size=100))
    made = compress(photo, DjpegSettings(guide="uniform", target_size=10_000_000))
    assert "smaller than the target size" in made.notices[0]


def test_what_a_jpeg_source_keeps_is_kept_exactly(coffee: np.ndarray) -> None:
    """A source as coarse as the asked quality goes through with its own steps and integers, so a
    second pass changes nothing."""
    photo = photo_of(coffee, quality=30, subsampling="4:2:0")
    made = compress(photo, DjpegSettings(guide="uniform", quality=50, table="photo"))
    before, after = read_jpeg(photo.jpeg or b""), read_jpeg(made.data)
    for a, b in zip(before.components, after.components, strict=True):
        assert np.array_equal(before.tables[a.table], after.tables[b.table])
        assert np.array_equal(
            a.coefficients[: a.real_rows, : a.real_cols],
            b.coefficients[: b.real_rows, : b.real_cols],
        )
    assert np.array_equal(decode_jpeg(made.data), photo.pixels)
    assert len(made.data) < photo.source_bytes


def test_guided_blocks_of_a_coarse_source_are_kept_or_dropped_never_changed(
    coffee: np.ndarray,
) -> None:
    photo = photo_of(coffee, quality=20, subsampling="4:2:0")
    made = compress(photo, DjpegSettings(guide="depth", strength=1), depth=left_is_near(coffee))
    before, after = read_jpeg(photo.jpeg or b"").components[0], read_jpeg(made.data)
    tables = (
        read_jpeg(photo.jpeg or b"").tables[before.table],
        after.tables[after.components[0].table],
    )
    kept = tables[0] == tables[1]
    old, new = before.coefficients[..., kept], after.components[0].coefficients[..., kept]
    assert np.all((new == old) | (new == 0))


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_a_coarse_source_is_not_blown_up(coffee: np.ndarray, quality: int) -> None:
    photo = photo_of(coffee, quality=quality)
    made = compress(photo, DjpegSettings(guide="uniform", quality=95))
    assert len(made.data) <= photo.source_bytes


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 9), (17, 33), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_odd_sizes(shape: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (*shape, 3) if channels == 3 else shape, dtype=np.uint8)
    for photo in (photo_of(pixels), load_bytes(_png(pixels), "made.png")):
        depth = Depth(np.full((4, 5), 0.5, np.float32), np.ones((4, 5), np.float32))
        made = compress(photo, DjpegSettings(guide="depth+detail", quality=90), depth=depth)
        assert decode_jpeg(made.data).shape == photo.pixels.shape


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("metadata", METADATA)
def test_orientation_looks_the_same_in_every_viewer(
    coffee: np.ndarray, orientation: int, metadata: str
) -> None:
    from PIL import ImageOps

    source = jpeg_bytes(coffee, exif=_exif(orientation))
    made = compress(
        load_bytes(source, "turned.jpg"),
        DjpegSettings(guide="uniform", quality=90, metadata=metadata),
    )  # type: ignore[arg-type]
    before = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(source))))
    opened = Image.open(io.BytesIO(made.data))
    after = np.asarray(ImageOps.exif_transpose(opened))
    assert after.shape == before.shape
    assert metrics.psnr(before, after) > 30
    tags = dict(opened.getexif())
    if metadata == "none":
        assert not tags
    elif metadata == "essential":
        assert set(tags) <= {0x0112}
    else:
        assert tags.get(0x010F) == "Maker"


def test_depth_is_given_as_displayed(coffee: np.ndarray) -> None:
    """A turned photo with the same picture on screen and the same depth keeps the same side."""
    turned = np.rot90(coffee)  # stored on its side; orientation 6 turns it clockwise, back upright
    photo = load_bytes(jpeg_bytes(np.ascontiguousarray(turned), exif=_exif(6)), "turned.jpg")
    straight = compress(
        photo_of(coffee), DjpegSettings(guide="depth", strength=1), depth=left_is_near(coffee)
    )
    made = compress(photo, DjpegSettings(guide="depth", strength=1), depth=left_is_near(coffee))
    assert np.allclose(upright(made.importance, 6), straight.importance, atol=0.02)


@pytest.mark.parametrize("metadata", ["none", "essential"])
def test_lettering_is_looked_for_as_displayed(coffee: np.ndarray, metadata: str) -> None:
    turned = np.ascontiguousarray(np.rot90(coffee[:304]))
    photo = load_bytes(jpeg_bytes(turned, exif=_exif(6)), "turned.jpg")
    settings = DjpegSettings(guide="text", table="machine")
    straight = compress(photo_of(coffee[:304]), settings)
    made = compress(photo, dataclasses.replace(settings, metadata=metadata))  # type: ignore[arg-type]
    found = made.importance if metadata == "none" else upright(made.importance, 6)
    assert found.shape == straight.importance.shape
    assert np.abs(found - straight.importance).mean() < 0.05 < straight.importance.std()


def test_icc_profile_is_kept_unless_none(coffee: np.ndarray) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for data in (jpeg_bytes(coffee, icc_profile=profile), _png_with(coffee, profile)):
        for metadata, expected in (("none", None), ("essential", profile), ("all", profile)):
            made = compress(
                load_bytes(data, "x"), DjpegSettings(guide="uniform", metadata=metadata)
            )  # type: ignore[arg-type]
            assert Image.open(io.BytesIO(made.data)).info.get("icc_profile") == expected


def _png_with(pixels: np.ndarray, profile: bytes) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", icc_profile=profile)
    return out.getvalue()


def test_mask_keeps_what_is_bright(coffee: np.ndarray) -> None:
    mask = np.zeros((40, 60), np.float32)
    mask[:, :30] = 1
    photo = photo_of(coffee)
    made = compress(photo, DjpegSettings(guide="mask", strength=1, table="machine"), mask=mask)
    shown = decode_jpeg(made.data)
    uniform = decode_jpeg(compress(photo, DjpegSettings(guide="uniform", table="machine")).data)
    assert np.array_equal(shown[:, :280], uniform[:, :280])
    assert not np.array_equal(shown[:, 320:], uniform[:, 320:])


def test_a_missing_map_is_an_input_error(coffee: np.ndarray) -> None:
    with pytest.raises(InputError, match="depth"):
        compress(photo_of(coffee), DjpegSettings(guide="depth"))
    with pytest.raises(InputError, match="mask"):
        compress(photo_of(coffee), DjpegSettings(guide="mask"))


def test_settings_are_checked_and_round_trip() -> None:
    settings = DjpegSettings(quality=40, guide="depth+detail", target_size=1000)
    assert DjpegSettings.from_dict(settings.to_dict()) == settings
    for bad in (
        {"quality": 0},
        {"quality": float("nan")},
        {"strength": 1.5},
        {"guide": "far"},
        {"table": "flat"},
        {"metadata": "some"},
        {"target_size": 0},
        {"min_saving": 2},
    ):
        with pytest.raises(SettingsError):
            DjpegSettings(**bad)  # type: ignore[arg-type]


def test_sizes_and_shares_are_read() -> None:
    assert [
        parse_size(s, "x") for s in ("900", "20kB", "20 KB", "1.5MB", "16KiB", "2k", "1m", "3 b")
    ] == [
        900,
        20_000,
        20_000,
        1_500_000,
        16_384,
        2_000,
        1_000_000,
        3,
    ]
    assert [parse_fraction(s, "x") for s in ("5%", "0.05", "0", "100%")] == [0.05, 0.05, 0, 1]
    for bad in ("", "kB", "-3kB", "1e", "20 parsecs", "nan", "inf", "0"):
        with pytest.raises(SettingsError):
            parse_size(bad, "x")
    for bad in ("", "%", "5 %%", "-1%", "140%", "nan"):
        with pytest.raises(SettingsError):
            parse_fraction(bad, "x")


def test_result_opens_in_opencv(coffee: np.ndarray, tmp_path: Path) -> None:
    import cv2

    made = compress(photo_of(coffee), DjpegSettings(guide="uniform"))
    assert cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_COLOR).shape == coffee.shape


@pytest.mark.parametrize("guide", ["uniform", "detail"])
@pytest.mark.parametrize("stored", [{"quality": 97}, None], ids=["jpeg", "pixels"])
def test_places_are_finer_than_the_rest(
    coffee: np.ndarray, guide: str, stored: dict[str, int] | None
) -> None:
    source = _png(coffee) if stored is None else jpeg_bytes(coffee, **stored)
    photo = load_bytes(source, "a")
    prepared = Prepared(photo, DjpegSettings(guide=guide, strength=1))
    places = np.zeros(coffee.shape[:2], np.float32)
    places[96:160, 128:256] = 1
    inside, outside = (slice(104, 152), slice(136, 248)), (slice(176, 400), slice(16, 304))
    coarse, fine, mended = (
        prepared.at(40),
        prepared.at(100),
        prepared.mended(40, 1.0, 100, places),
    )
    assert 0.8 * len(coarse) < len(mended) < 0.5 * len(fine)
    low, high, found = (decoded(d) for d in (coarse, fine, mended))
    # nothing is given up there, whatever the guide says
    assert metrics.psnr(high[inside], found[inside]) > 50
    assert (
        24
        < metrics.psnr(photo.pixels[outside], found[outside])
        < metrics.psnr(photo.pixels[outside], high[outside]) - 5
    )
    assert (
        metrics.psnr(photo.pixels[inside], low[inside])
        < metrics.psnr(photo.pixels[inside], found[inside]) - 5
    )
    everywhere = prepared.mended(40, 1.0, 80, np.ones_like(places))
    even = decoded(Prepared(photo, DjpegSettings(guide="uniform")).at(80))
    if guide == "uniform":
        assert metrics.psnr(decoded(everywhere), even) > 50
    else:  # its steps are finer, since elsewhere it saves
        assert metrics.psnr(decoded(everywhere), photo.pixels) > metrics.psnr(even, photo.pixels)
    nowhere = prepared.mended(60, 1.0, 60, np.zeros_like(places))
    assert metrics.psnr(decoded(nowhere), decoded(prepared.at(60))) > 45


def test_places_are_given_as_displayed(coffee: np.ndarray) -> None:
    turned = np.rot90(coffee)  # as below orientation 6
    photo = load_bytes(jpeg_bytes(np.ascontiguousarray(turned), quality=97, exif=_exif(6)), "a")
    places = np.zeros(coffee.shape[:2], np.float32)
    places[:, :96] = 1
    data = Prepared(photo, DjpegSettings(guide="uniform")).mended(20, 1.0, 95, places)
    shown = upright(decoded(data), 6)
    assert (
        metrics.psnr(coffee[:, :80], shown[:, :80])
        > metrics.psnr(coffee[:, 200:], shown[:, 200:]) + 6
    )


@pytest.mark.filterwarnings("error")
def test_chroma_finer_than_luma_goes_by_its_pixels() -> None:
    """Legal and odd (`cjpeg -sample 1x1,2x2,2x2`): the sampling factors in the frame header are
    exchanged here."""
    image = JpegImage(
        width=16,
        height=16,
        components=[
            Component(
                id=n + 1,
                h=1 + (n > 0),
                v=1 + (n > 0),
                table=0,
                coefficients=np.zeros((1 + (n > 0), 1 + (n > 0), 64), np.int16),
            )
            for n in range(3)
        ],
        tables={0: np.full(64, 16, np.uint16)},
        colour="ycbcr",
        segments=[],
    )
    photo = load_bytes(write_jpeg(image), "odd.jpg")
    made = compress(photo, DjpegSettings(guide="detail", metadata="none"))
    assert decode_jpeg(made.data).shape == photo.pixels.shape


def turned(pixels: np.ndarray, order: str, kind: int, number: int) -> bytes:
    """A JPEG that is to be shown turned by a quarter: orientation 6 as `number` values of a type (1
    BYTE, 3 SHORT, 4 LONG)."""
    letter = {1: "B", 3: "H", 4: "I"}[kind]
    values = struct.pack(f"{order}{number}{letter}", *[6] * number)
    field = values.ljust(4, b"\0") if len(values) <= 4 else struct.pack(order + "I", 26)
    entry = struct.pack(order + "HHI", 0x0112, kind, number) + field
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1)
    tiff = start + entry + bytes(4) + (values if len(values) > 4 else b"")
    return jpeg_bytes(pixels, exif=b"Exif\0\0" + tiff)


@pytest.mark.parametrize("metadata", ["none", "essential", "all"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "number"), [(1, 1), (3, 1), (4, 1), (1, 2), (3, 2), (4, 2)])
def test_every_way_of_writing_an_orientation_is_shown_upright(
    coffee: np.ndarray, metadata: str, order: str, kind: int, number: int
) -> None:
    pixels = coffee[:160, :120]
    photo = load_bytes(turned(pixels, order, kind, number), "turned.jpg")
    assert photo.orientation == 6
    made = compress(photo, DjpegSettings(guide="uniform", quality=80, metadata=metadata))
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(made.data))).convert("RGB")
    assert shown.size == (160, 120)
    assert metrics.psnr(np.ascontiguousarray(np.rot90(pixels, -1)), np.asarray(shown)) > 28


def test_an_orientation_without_a_value_counts_as_none(coffee: np.ndarray) -> None:
    for tiff in (b"", b"II*\0", b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x0112, 4, 2, 5000)):
        assert exif_orientation(tiff) == 1
    assert load_bytes(turned(coffee, "<", 3, 0), "none.jpg").orientation == 1


def test_auto_keeps_what_a_quality_says(coffee: np.ndarray) -> None:
    """As near to the source as plain JPEG of the same setting, with fewer bytes than its optimised
    form."""
    photo = load_bytes(_png(coffee), "a.png")
    for quality in (35, 50, 70):
        made = compress(photo, DjpegSettings(guide="uniform", quality=quality)).data
        out = io.BytesIO()
        Image.fromarray(coffee).save(
            out, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True
        )
        assert len(made) < len(out.getvalue())
        assert (
            metrics.psnr(coffee, decode_jpeg(made))
            > metrics.psnr(coffee, decode_jpeg(out.getvalue())) - 1
        )


def test_photo_beats_optimised_jpeg_for_the_eye(coffee: np.ndarray) -> None:
    """At the same PSNR and at the same MS-SSIM the table `photo` takes fewer bytes than Pillow's
    optimised progressive JPEG."""
    photo = load_bytes(_png(coffee), "a.png")
    rival = []
    for quality in range(30, 76, 5):
        out = io.BytesIO()
        Image.fromarray(coffee).save(
            out, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True
        )
        rival.append((len(out.getvalue()), out.getvalue()))
    sizes = np.log([size for size, _ in rival])
    for quality in (40, 60):
        for name in ("uniform", "text"):
            made = compress(photo, DjpegSettings(guide=name, quality=quality, table="photo")).data
            for measure in (metrics.psnr, metrics.ms_ssim):
                theirs = [measure(coffee, decode_jpeg(data)) for _, data in rival]
                needed = np.exp(np.interp(measure(coffee, decode_jpeg(made)), theirs, sizes))
                assert len(made) < 0.95 * needed


def test_busy_blocks_pay_and_calm_ones_do_not(coffee: np.ndarray) -> None:
    """Where a photo has no lettering, bits are saved in blocks of much contrast; without that price
    they are not."""
    rng = np.random.default_rng(0)
    half = np.full((128, 256, 3), 128.0)
    half[:, :128] += rng.normal(0, 4, (128, 128, 1))  # faint grain on the left, strong on the right
    half[:, 128:] += rng.normal(0, 40, (128, 128, 1))
    photo = load_bytes(_png(half.clip(0, 255).astype(np.uint8)), "grain.png")
    settings = DjpegSettings(guide="uniform", quality=80)
    blocks = []
    for busy in (0.0, 0.1):
        shape = dataclasses.replace(SHAPE, busy=busy, flat=0.0)
        image = read_jpeg(Prepared(photo, settings, shape=shape).at(80))
        blocks.append(np.count_nonzero(image.components[0].coefficients, axis=2)[:16, :32])
    assert blocks[0][:, :15].sum() > 0
    assert blocks[1][:, :15].sum() > 0.95 * blocks[0][:, :15].sum()
    assert blocks[1][:, 17:].sum() < 0.9 * blocks[0][:, 17:].sum()


def test_busy_blocks_pay_in_fine_detail_alone(coffee: np.ndarray) -> None:
    """Without lettering nothing of colour is given up, and of luma's low frequencies little."""
    photo = load_bytes(_png(coffee), "a.png")
    settings = DjpegSettings(guide="uniform")
    order = np.add.outer(np.arange(8), np.arange(8)).ravel()
    low = (order > 0) & (order <= 3)
    kinds = {
        "none": dataclasses.replace(SHAPE, busy=0.0, flat=0.0),
        "ours": dataclasses.replace(SHAPE, flat=0.0),
        "all": dataclasses.replace(SHAPE, flat=0.0, keep=1.0, colour=1.0),
    }
    made = {
        name: read_jpeg(Prepared(photo, settings, shape=shape).at(50)).components
        for name, shape in kinds.items()
    }
    for ours, none in zip(made["ours"][1:], made["none"][1:], strict=True):
        np.testing.assert_array_equal(ours.coefficients, none.coefficients)
    luma = {name: np.count_nonzero(c[0].coefficients, axis=(0, 1)) for name, c in made.items()}
    lost = {name: 1 - count[low].sum() / luma["none"][low].sum() for name, count in luma.items()}
    assert 0 <= lost["ours"] < 0.5 * lost["all"]
    assert luma["ours"][order > 3].sum() < 0.9 * luma["none"][order > 3].sum()


def test_a_quality_of_the_table_photo_keeps_what_plain_jpeg_keeps(coffee: np.ndarray) -> None:
    photo = load_bytes(_png(coffee), "a.png")

    def distance(data: bytes) -> float:
        return -10 * np.log10(1 - metrics.ms_ssim(coffee, decode_jpeg(data)))

    for quality in (35, 50, 75):
        ours = distance(
            compress(photo, DjpegSettings(guide="uniform", quality=quality, table="photo")).data
        )
        assert abs(ours - distance(encode_plain_jpeg(coffee, quality=quality))) < 0.6


@pytest.mark.parametrize("lettering", [0.0, 0.5, 1.0])
def test_steps_are_scaled_as_each_guide_was_calibrated(
    coffee: np.ndarray, lettering: float
) -> None:
    """Relative to `uniform`: means of the steps, by what `STEP_SCALES` says for a photo with so
    much lettering."""
    source = Source.of(load_bytes(_png(coffee), "a.png"), DjpegSettings())
    cheap = np.zeros(guide.grid_shape(*coffee.shape[:2]), np.float32)

    def steps(name: str) -> float:
        data = Encoder(source, cheap, DjpegSettings(guide=name), lettering=lettering).encode(50)
        return float(read_jpeg(data).tables[0].mean())

    def factor(kind: str) -> float:
        calm, lettered = STEP_SCALES[kind]
        return float(calm ** (1 - lettering) * lettered**lettering)

    for name, kind in (
        ("text", "text"),
        ("system:text", "system"),
        ("detail", "other"),
        ("mask", "uniform"),
        ("a.onnx", "learned"),
    ):
        expected = factor(kind) / factor("uniform") if lettering or kind != "text" else 1.0
        assert steps(name) / steps("uniform") == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("name", ["uniform", "text"])
def test_the_table_machine_is_finer_without_lettering(coffee: np.ndarray, name: str) -> None:
    """By what `MACHINE_SCALE` says, and it is the network for lettering that says whether there is
    some."""
    settings = DjpegSettings(guide=name, table="machine")
    source = Source.of(photo_of(coffee), settings)
    cheap = np.zeros(guide.grid_shape(*coffee.shape[:2]), np.float32)

    def steps(lettering: float) -> float:
        made = Encoder(source, cheap, settings, lettering=lettering).encode(50)
        return float(read_jpeg(made).tables[0].mean())

    assert steps(0.0) / steps(1.0) == pytest.approx(MACHINE_SCALE, rel=0.05)
    assert steps(0.5) / steps(1.0) == pytest.approx(MACHINE_SCALE**0.5, rel=0.05)
    for photo, lettering in ((photo_of(coffee), 0.0), (photo_of(sign(coffee)), 1.0)):
        table = read_jpeg(compress(photo, settings).data).tables[0]
        assert float(table.mean()) == pytest.approx(steps(lettering), rel=0.05)


def sign(coffee: np.ndarray) -> np.ndarray:
    """The photo with large letters painted on it."""
    image = Image.fromarray(coffee)
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, 580, 160), fill=(240, 240, 235))
    draw.text((40, 40), "COFFEE 24 HOURS", font=ImageFont.load_default(62), fill=(20, 20, 30))
    return np.asarray(image)


def test_depth_is_guessed_only_where_it_has_a_say(coffee: np.ndarray) -> None:
    """On a photo without lettering the default guides leave all alone, and the depth network is not
    asked."""
    asked = []

    def guess() -> Depth:
        asked.append(1)
        return dataclasses.replace(left_is_near(coffee), guess=True)

    plain, lettered = photo_of(coffee), photo_of(sign(coffee))
    assert (
        compress(plain, DjpegSettings(), depth=guess).data
        == compress(plain, DjpegSettings(guide="uniform")).data
    )
    assert asked == []
    for photo, settings in (
        (lettered, DjpegSettings()),
        (plain, DjpegSettings(strength=1)),
        (plain, DjpegSettings(guide="depth")),
        (plain, DjpegSettings(table="machine")),
    ):
        asked.clear()
        guided = compress(photo, settings, depth=guess).data
        assert asked == [1]
        assert guided != compress(photo, dataclasses.replace(settings, guide="uniform")).data


def test_a_map_that_is_given_is_obeyed_without_lettering_too(coffee: np.ndarray) -> None:
    photo, given = photo_of(coffee), left_is_near(coffee)
    size = len(compress(photo, DjpegSettings(strength=1), depth=given).data)
    guided = decode_jpeg(
        compress(photo, DjpegSettings(strength=1, target_size=size + 300), depth=given).data
    )
    uniform = decode_jpeg(
        compress(photo, DjpegSettings(guide="uniform", target_size=size + 300)).data
    )
    near = slice(0, 200)
    assert (
        metrics.psnr(coffee[:, near], guided[:, near])
        > metrics.psnr(coffee[:, near], uniform[:, near]) + 0.2
    )
    assert (
        compress(photo, DjpegSettings(), depth=given).data
        != compress(photo, DjpegSettings(guide="uniform")).data
    )


def test_auto_is_flat_for_lettering_and_near_the_standards_else(coffee: np.ndarray) -> None:
    photo = load_bytes(_png(coffee), "a.png")
    luma = read_jpeg(compress(photo, DjpegSettings(guide="uniform")).data).tables[0]
    # no lettering
    assert np.array_equal(luma, quantisation_tables("auto", 50, flat=SHAPE.least)[0])
    plain = Shape(scale=1.0, chroma=1.0, dc=1.0, low=1.0)
    standard = [np.array(rows).ravel() for rows in (PHOTO_LUMA, PHOTO_CHROMA)]
    for ours, theirs in zip(
        quantisation_tables("auto", 50, flat=0, shape=plain), standard, strict=True
    ):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(
        quantisation_tables("auto", 50, flat=1), quantisation_tables("machine", 50), strict=True
    ):
        assert np.array_equal(ours, theirs)
