"""WebP, AVIF and JPEG XL: what `compress` promises of them, as of JPEG."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture, size_of, tree
from PIL import Image, ImageCms, ImageOps

from vizcomp import metrics
from vizcomp.batch.records import FileRecord
from vizcomp.batch.rivals import likeness
from vizcomp.djpeg import formats, guide, readers
from vizcomp.djpeg.compress import Compressed, compress, prepare
from vizcomp.djpeg.formats import (
    ENCODER_QUALITIES,
    QUALITIES,
    WITHOUT_LETTERING,
    Picture,
    encoder_quality,
    widest_blur,
)
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, MissingExtraError, SettingsError, UnsupportedError
from vizcomp.jpeg.segments import exif_orientation
from vizcomp.photos import formats as photo_formats
from vizcomp.photos.formats import FORMATS, encode_format, with_alpha
from vizcomp.photos.photo import Photo, load_bytes, to_srgb

try:
    import pillow_jxl  # noqa: F401 - for a skip
except ImportError:
    HAVE_JXL = False
else:
    HAVE_JXL = True
NAMES = (
    "webp",
    "avif",
    pytest.param(
        "jxl", marks=pytest.mark.skipif(not HAVE_JXL, reason="could not import 'pillow_jxl'")
    ),
)
SRGB = ImageCms.createProfile("sRGB")
each_format = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def small(coffee: np.ndarray) -> np.ndarray:
    return coffee[120:280, 200:440]


def made_of(pixels: np.ndarray, name: str, **changes: Any) -> Compressed:
    values: dict[str, Any] = {"guide": "detail", "format": name, **changes}
    return compress(load_bytes(jpeg_bytes(pixels), "a.jpg"), DjpegSettings(**values))


def shown(data: bytes) -> Photo:
    return load_bytes(data, "result")


def png(pixels: np.ndarray, **options: Any) -> Photo:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return load_bytes(file.getvalue(), "a.png")


# --- quality, guides, sizes -----------------------------------------------------------------------


@each_format
def test_quality_and_strength_do_what_they_do_for_jpeg(name: str, small: np.ndarray) -> None:
    low, middle, high = (made_of(small, name, quality=q) for q in (20.0, 50.0, 80.0))
    assert len(low.data) < len(middle.data) < len(high.data)
    fidelity = [metrics.ms_ssim(small, shown(one.data).pixels) for one in (low, middle, high)]
    assert fidelity == sorted(fidelity)
    assert (middle.format, middle.quality) == (name, 50)
    free, guided = (made_of(small, name, strength=s) for s in (0.0, 1.0))
    assert len(guided.data) < len(free.data)
    assert shown(middle.data).format == name.upper()


@each_format
def test_a_quality_keeps_about_what_jpeg_keeps(name: str, small: np.ndarray) -> None:
    for quality in (35.0, 50.0, 80.0):
        ours, jpeg = (
            made_of(small, kind, quality=quality, guide="uniform") for kind in (name, "jpeg")
        )
        loss, of_jpeg = (1 - metrics.ms_ssim(small, shown(one.data).pixels) for one in (ours, jpeg))
        assert of_jpeg / 2.5 < loss < 1.6 * of_jpeg


def test_tables_rise_and_reach_from_end_to_end() -> None:
    assert set(ENCODER_QUALITIES) == set(WITHOUT_LETTERING) == set(FORMATS)
    assert (QUALITIES[0], QUALITIES[-1]) == (0, 100)
    for lettering, tables in ((1.0, ENCODER_QUALITIES), (0.0, WITHOUT_LETTERING)):
        for name, table in tables.items():
            assert len(table) == len(QUALITIES)
            assert list(table) == sorted(table)
            assert encoder_quality(name, 100, lettering=lettering) > 99
            at_fifty = encoder_quality(name, 50, lettering=lettering)
            assert at_fifty == table[QUALITIES.index(50)]
    both = [encoder_quality("webp", 50, lettering=share) for share in (0.0, 0.25, 1.0)]
    assert both[1] == (both[0] + both[2]) / 2


def test_the_blur_goes_by_guide_strength_and_quality() -> None:
    text, depth, uniform = (
        widest_blur(DjpegSettings(guide=g), 50) for g in ("text", "depth", "uniform")
    )
    system = widest_blur(DjpegSettings(guide="system:text"), 50)
    assert 0 == uniform < depth < text < system
    by_quality = [widest_blur(DjpegSettings(guide="depth"), q) for q in (1, 20, 50, 90, 100)]
    assert by_quality == sorted(by_quality, reverse=True)
    assert by_quality[-1] == 0
    assert widest_blur(DjpegSettings(guide="depth", strength=0), 50) == 0


@each_format
@pytest.mark.parametrize("target", [900, 3000])
def test_target_sizes_are_met_from_below(name: str, target: int, small: np.ndarray) -> None:
    made = made_of(small, name, target_size=target)
    assert 0.98 * target <= len(made.data) <= target
    assert made.format == name


@each_format
def test_targets_beyond_both_ends(name: str, small: np.ndarray) -> None:
    made = made_of(small, name, target_size=10_000_000)
    assert made.quality == 100
    assert "highest quality" in made.notices[-1]
    with pytest.raises(InputError, match="as small as 20 bytes"):
        made_of(small, name, target_size=20)


@each_format
def test_mended_places_lose_their_blur(name: str, small: np.ndarray) -> None:
    picture = Picture(
        load_bytes(jpeg_bytes(small), "a"),
        np.zeros((20, 30), np.float32),
        DjpegSettings(strength=1),
        name,
    )
    places = np.zeros(small.shape[:2], np.float32)
    places[:, :120] = 1
    plain, mended = (
        shown(data).pixels for data in (picture.at(50), picture.mended(50, 1.0, 80, places))
    )
    left, right = (slice(None), slice(8, 104)), (slice(None), slice(136, 232))
    assert metrics.psnr(small[left], mended[left]) > metrics.psnr(small[left], plain[left]) + 1
    assert metrics.psnr(small[right], mended[right]) == pytest.approx(
        metrics.psnr(small[right], plain[right]), abs=0.5
    )
    # where there is no blur to lose, the quality rises
    sharp = Picture(
        load_bytes(jpeg_bytes(small), "a"), np.ones((20, 30), np.float32), DjpegSettings(), name
    )
    assert len(sharp.at(50)) < len(sharp.mended(50, 1.0, 90, places)) < len(sharp.at(90))


# --- what a file carries --------------------------------------------------------------------------


def linear_profile(name: str) -> bytes:
    """An ICC profile of sRGB's primaries with a gamma of 1."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for at in range(132, 132 + 12 * struct.unpack_from(">I", made, 128)[0], 12):
        tag, offset, _ = struct.unpack_from(">4sII", made, at)
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            made[offset : offset + 16] = b"curv" + bytes(8) + bytes(4)  # no entries: the identity
        if tag == b"desc":
            text = name.encode("utf-16-be")
            size = struct.unpack_from(">I", made, offset + 20)[0]
            made[offset + 28 : offset + 28 + size] = text[:size].ljust(size, b"\0")
    return bytes(made)


def with_everything(pixels: np.ndarray) -> tuple[Photo, bytes]:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" a="b"/></x:xmpmeta>'
    data = jpeg_bytes(pixels, icc_profile=icc, exif=exif.tobytes(), xmp=xmp)
    return load_bytes(data, "a.jpg"), icc


@each_format
@pytest.mark.parametrize("keep", ["none", "essential", "all"])
def test_metadata_and_orientation(name: str, keep: str, small: np.ndarray) -> None:
    photo, icc = with_everything(small)
    made = compress(photo, DjpegSettings(guide="uniform", format=name, metadata=keep, quality=90))  # type: ignore[arg-type]
    with Image.open(io.BytesIO(made.data)) as image:
        image.load()
        found = dict(image.info)
        assert image.size == (160, 240)  # upright for every reader, whatever it makes of tags
        assert image.getexif().get(0x0112, 1) == 1
        assert ImageOps.exif_transpose(image).size == (160, 240)
        assert image.getexif().get(0x010F) == ("Maker" if keep == "all" else None)
    if name != "jxl":
        assert found.get("icc_profile") == (None if keep == "none" else icc)
    assert (b"Maker" in made.data) == (keep == "all")
    assert (b"adobe:ns:meta" in made.data) == (keep == "all")
    assert b'tiff:Orientation="6"' not in made.data
    assert metrics.psnr(np.rot90(small, -1), shown(made.data).pixels) > 25
    assert any("upright" in notice for notice in made.notices)


def test_a_format_without_profiles_gets_srgb(small: np.ndarray) -> None:
    if not HAVE_JXL:
        pytest.skip("could not import 'pillow_jxl'")
    photo = dataclasses.replace(load_bytes(jpeg_bytes(small), "a"), icc=linear_profile("linear"))
    made = compress(photo, DjpegSettings(guide="uniform", format="jxl", quality=95))
    wanted, _ = to_srgb(photo)
    assert metrics.psnr(wanted, to_srgb(shown(made.data))[0]) > 30
    assert any("converted to sRGB" in notice for notice in made.notices)
    assert likeness(photo, made.data)[1] > 0.98


@each_format
def test_opacity_is_kept(name: str, small: np.ndarray) -> None:
    alpha = np.tile(np.linspace(0, 255, small.shape[1]).astype(np.uint8), (small.shape[0], 1))
    photo = png(np.dstack([small, alpha]))
    made = compress(photo, DjpegSettings(guide="uniform", format=name, quality=95))  # type: ignore[arg-type]
    with Image.open(io.BytesIO(made.data)) as image:
        result = np.asarray(image.convert("RGBA"))
    assert np.abs(result[..., 3].astype(int) - alpha).mean() < 3
    assert metrics.psnr(photo.pixels, shown(made.data).pixels) > 28
    opaque = compress(photo, DjpegSettings(guide="uniform")).data
    # JPEG has none: flattened on white, as ever
    assert Image.open(io.BytesIO(opaque)).mode == "RGB"


def test_flattening_on_white_is_undone(small: np.ndarray) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, small.shape[:2], np.uint8)
    source = Image.fromarray(np.dstack([small, alpha]))
    flat = png(np.dstack([small, alpha])).pixels
    again = with_alpha(flat, alpha)
    for colour in ("white", "black", "orange"):
        pair = []
        for image in (source, again):
            ground = Image.new("RGB", image.size, colour)
            ground.paste(image.convert("RGB"), mask=image.getchannel("A"))
            pair.append(np.asarray(ground, int))
        assert np.abs(pair[0] - pair[1]).max() <= 2


@each_format
def test_grey_and_odd_sizes(name: str) -> None:
    for height, width in ((1, 1), (7, 13), (33, 65)):
        grey = picture(2, height, width)[..., 0]
        made = compress(png(grey), DjpegSettings(guide="uniform", format=name, quality=90))  # type: ignore[arg-type]
        result = shown(made.data).pixels
        assert result.shape[:2] == (height, width)
        assert np.abs(result.reshape(height, width, -1).astype(int) - grey[..., None]).mean() < 25


# --- who reads what, and what is missing ----------------------------------------------------------


def test_readers_decide_what_auto_takes() -> None:
    def taken(text: str) -> tuple[str, ...]:
        return DjpegSettings(format="auto", readers=text).formats

    assert taken("") == ("avif", "webp", "jpeg")
    assert taken("tensorflow") == ("webp", "jxl", "jpeg")
    assert taken("torchvision, dali") == ("webp", "jpeg")
    assert taken("opencv,tensorflow") == ("webp", "jpeg")
    assert DjpegSettings().formats == ("jpeg",)
    assert all("jpeg" in each for each in readers.READERS.values())


def test_settings_that_contradict() -> None:
    with pytest.raises(SettingsError, match="dali does not read `format` avif") as caught:
        DjpegSettings(format="avif", readers="dali")
    assert "webp" in caught.value.hint
    with pytest.raises(SettingsError, match="unknown reader 'gimp'") as caught:
        DjpegSettings(format="auto", readers="gimp")
    assert all(name in caught.value.hint for name in readers.READERS)
    with pytest.raises(SettingsError, match="unknown `format` 'heic'"):
        DjpegSettings(format="heic")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="names nobody"):
        DjpegSettings(readers=",")
    one = DjpegSettings(format="auto", readers="pillow,dali")
    assert DjpegSettings.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_auto_is_the_smallest(small: np.ndarray) -> None:
    sizes = {name: len(made_of(small, name).data) for name in ("avif", "webp", "jpeg")}
    made = made_of(small, "auto")
    assert len(made.data) == min(sizes.values())
    assert sizes[made.format] == len(made.data)
    assert made_of(small, "auto", target_size=2000).format in sizes


def test_dali_reads_no_extended_webp(small: np.ndarray) -> None:
    photo, _ = with_everything(small)
    assert (
        compress(photo, DjpegSettings(guide="uniform", format="auto", readers="dali")).format
        == "jpeg"
    )
    assert (
        compress(
            photo, DjpegSettings(guide="uniform", format="auto", readers="dali", metadata="none")
        ).format
        == "webp"
    )
    with pytest.raises(UnsupportedError, match="DALI"):
        compress(photo, DjpegSettings(guide="uniform", format="webp", readers="dali"))
    assert compress(photo, DjpegSettings(guide="uniform", format="webp")).data[12:16] == b"VP8X"


def test_sides_that_a_format_cannot_hold() -> None:
    wide = np.zeros((2, 16384, 3), np.uint8)
    with pytest.raises(
        UnsupportedError,
        match="16384 x 2 pixels do not fit into WebP, whose sides have at most 16,383",
    ):
        compress(png(wide), DjpegSettings(guide="uniform", format="webp"))
    assert [
        one.format for one in prepare(png(wide), DjpegSettings(guide="uniform", format="auto"))
    ] == ["avif", "jpeg"]
    made = compress(png(wide), DjpegSettings(guide="uniform", format="auto", readers="torchvision"))
    assert made.format == "jpeg"


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_a_pillow_without_the_format(
    name: str, monkeypatch: pytest.MonkeyPatch, small: np.ndarray
) -> None:
    monkeypatch.setattr(photo_formats.features, "check", lambda feature: False)
    with pytest.raises(SettingsError, match="this Pillow writes no") as caught:
        formats.check_formats(DjpegSettings(format=name))  # type: ignore[arg-type]
    assert "pip install -U pillow" in caught.value.hint
    assert made_of(small, "auto").format == "jpeg"


def test_jpeg_xl_without_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    with pytest.raises(MissingExtraError, match="pillow-jxl-plugin"):
        encode_format(picture(0), FORMATS["jxl"], 50)
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture(0)))
    assert (
        command(
            "djpeg",
            tmp_path / "a.jpg",
            "-o",
            tmp_path / "out",
            "--format",
            "jxl",
            "--guide",
            "uniform",
        )
        == 2
    )
    error = capfd.readouterr().err
    assert "pillow-jxl-plugin" in error
    assert "vizcomp[jxl]" in error
    assert not (tmp_path / "out" / "a.jxl").exists()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, small: np.ndarray) -> Path:
    """plain.jpg, clear.png (half of it transparent), tiny.webp (cannot be made smaller)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "plain.jpg").write_bytes(jpeg_bytes(small))
    Image.fromarray(np.dstack([small, np.full(small.shape[:2], 128, np.uint8)])).save(
        folder / "clear.png"
    )
    Image.fromarray(small).save(folder / "tiny.webp", quality=1)
    return folder


def rows(out: Path) -> dict[str, FileRecord]:
    report = json.loads((out / "report.json").read_text("utf-8"))
    return {Path(row["input"]).name: FileRecord.from_dict(row) for row in report["files"]}


@each_format
def test_names_records_and_resume(name: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("djpeg", photos, "-o", out, "--guide", "uniform", "--format", name, "-j1", "--quiet")
    assert command(*asked) == 0
    found = rows(out)
    assert tree(out) - {"report.html", "report.json", "report.csv"} == {
        f"plain.{name}",
        f"clear.{name}",
        "tiny.webp",
    }
    assert (found["plain.jpg"].status, found["plain.jpg"].format, found["plain.jpg"].quality) == (
        "ok",
        name,
        50,
    )
    assert found["tiny.webp"].status == "kept"
    assert found["tiny.webp"].format == ("webp" if name == "webp" else "source")
    assert (out / "tiny.webp").read_bytes() == (photos / "tiny.webp").read_bytes()
    assert not any("white" in notice for notice in found["clear.png"].notices)
    assert found["clear.png"].psnr is not None
    assert size_of(out / f"plain.{name}") == (240, 160)
    before = (out / f"plain.{name}").stat().st_mtime_ns
    assert command(*asked, "--resume") == 0
    assert (out / f"plain.{name}").stat().st_mtime_ns == before
    assert rows(out)["plain.jpg"] == found["plain.jpg"]


def test_a_kept_jpeg_is_a_jpeg_by_name_too(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        command(
            "djpeg",
            photos / "plain.jpg",
            "-o",
            out,
            "--format",
            "avif",
            "--min-saving",
            "99%",
            "--quiet",
        )
        == 0
    )
    assert tree(out) >= {"plain.jpg"}
    assert not (out / "plain.avif").exists()
    row = rows(out)["plain.jpg"]
    assert (row.status, row.format) == ("kept", "source")


def test_auto_names_what_it_took_and_knows_it_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inputs = (photos / "plain.jpg", photos / "clear.png")
    asked = (
        "djpeg",
        *inputs,
        "-o",
        out,
        "--format",
        "auto",
        "--guide",
        "uniform",
        "--quiet",
        "-j1",
    )
    assert command(*asked) == 0
    found = rows(out)
    for row in found.values():
        assert row.output is not None
        assert Path(row.output).suffix == f".{row.format}".replace("jpeg", "jpg")
    everything = tree(out)
    assert command(*asked) == 0
    assert tree(out) == everything
    assert command(*asked, "--resume") == 0
    assert {row.status for row in rows(out).values()} == {"ok"}
    assert tree(out) == everything


@pytest.mark.parametrize("again", ["--overwrite", "--resume"])
def test_an_older_result_of_another_suffix_does_not_stay_beside_the_new_one(
    photos: Path, tmp_path: Path, again: str
) -> None:
    out = tmp_path / "out"
    asked = (
        "djpeg",
        photos / "plain.jpg",
        "-o",
        out,
        "--format",
        "auto",
        "--guide",
        "uniform",
        "--table",
        "machine",  # under which AVIF is the smallest
        "--quiet",
        "--report",
        "none",
    )
    assert command(*asked) == 0
    (first,) = tree(out)
    stranger = out / "plain.txt"
    stranger.write_text("not ours")
    readers = "torchvision" if first == "plain.avif" else "pillow,browser"
    assert command(*asked, "--readers", readers, again) == 0
    assert len(tree(out)) == 2
    assert first not in tree(out)
    assert stranger.read_text() == "not ours"
    (second,) = tree(out) - {"plain.txt"}
    (out / second).write_bytes(b"changed by its user")
    assert command(*asked, "--overwrite") == 0
    assert tree(out) == {first, second, "plain.txt"}


def test_a_kept_source_gives_way_to_its_result(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = (
        "djpeg",
        photos / "clear.png",
        "-o",
        out,
        "--guide",
        "uniform",
        "--quiet",
        "--report",
        "none",
    )
    assert command(*asked, "--min-saving", "100%") == 0
    assert tree(out) == {"clear.png"}
    assert command(*asked, "--overwrite") == 0
    assert tree(out) == {"clear.jpg"}


def test_a_source_that_readers_do_not_open_is_not_kept(photos: Path, tmp_path: Path) -> None:
    source = photos / "new.avif"
    with Image.open(photos / "tiny.webp") as image:
        image.save(source, quality=1, speed=9)
    out = tmp_path / "out"
    assert (
        command(
            "djpeg",
            source,
            "-o",
            out,
            "--format",
            "auto",
            "--readers",
            "torchvision",
            "--guide",
            "uniform",
            "--quiet",
        )
        == 0
    )
    row = rows(out)["new.avif"]
    assert row.status == "ok"
    assert row.format in ("webp", "jpeg")
    assert any("not all" in notice for notice in row.notices)


def test_one_photo_that_does_not_fit_fails_alone(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16384, 2)).save(photos / "wide.png")
    out = tmp_path / "out"
    assert (
        command(
            "djpeg",
            photos / "wide.png",
            photos / "plain.jpg",
            "-o",
            out,
            "--format",
            "webp",
            "--quiet",
            "-j1",
        )
        == 1
    )
    found = rows(out)
    assert found["plain.jpg"].status == "ok"
    assert "16,383" in (found["wide.png"].error or "")


# --- other programs -------------------------------------------------------------------------------


def all_results(small: np.ndarray) -> dict[str, bytes]:
    photo, _ = with_everything(small)
    return {
        name: compress(photo, DjpegSettings(guide="uniform", format=name, quality=90)).data
        for name in ("webp", "avif", "jpeg")
    }


def test_opencv_shows_them_upright(small: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    for name, data in all_results(small).items():
        array = np.frombuffer(data, np.uint8)
        result = cv2.imdecode(array, cv2.IMREAD_COLOR)
        if result is None and name == "avif":
            continue  # wheels of OpenCV before 5 were built without
        assert metrics.psnr(np.rot90(small, -1), np.ascontiguousarray(result[..., ::-1])) > 25, name


def imagemagick(data: bytes, name: str, folder: Path, *options: str) -> np.ndarray | None:
    """What ImageMagick makes of a file; None where it was built without the format."""
    program = shutil.which("magick") or shutil.which("convert")
    said = (
        subprocess.run([program, "-version"], capture_output=True, text=True, timeout=600).stdout
        if program
        else ""
    )
    if "Version: ImageMagick" not in said:
        pytest.skip("ImageMagick is not installed")
    delegate = {"avif": "heic", "jxl": "jxl"}.get(name, name)
    if program is None or delegate not in said.lower():
        return None
    source, target = folder / f"a.{name}", folder / "a.png"
    source.write_bytes(data)
    asked = [program, str(source), *options, str(target)]
    subprocess.run(asked, check=True, capture_output=True, timeout=600)
    return np.asarray(Image.open(target).convert("RGB"))


def test_imagemagick_shows_them_upright(small: np.ndarray, tmp_path: Path) -> None:
    results = all_results(small)
    if HAVE_JXL:
        photo, _ = with_everything(small)
        settings = DjpegSettings(guide="uniform", format="jxl", quality=90)
        results["jxl"] = compress(photo, settings).data
    for name, data in results.items():
        shown = imagemagick(data, name, tmp_path, "-auto-orient")
        assert shown is None or metrics.psnr(np.rot90(small, -1), shown) > 25, name


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_imagemagick_shows_colours_by_their_profile(name: str, tmp_path: Path) -> None:
    """Not of AVIF: ImageMagick 6 reads no profile there, Chromium does (below)."""
    colours = np.full((40, 40, 3), (40, 90, 160), np.uint8)
    source = png(colours, icc_profile=linear_profile("linear"))
    expected, _ = to_srgb(source)
    (tmp_path / "srgb.icc").write_bytes(ImageCms.ImageCmsProfile(SRGB).tobytes())
    settings = DjpegSettings(guide="uniform", format=name, quality=95)  # type: ignore[arg-type]
    data = compress(source, settings).data
    shown = imagemagick(data, name, tmp_path, "-profile", str(tmp_path / "srgb.icc"))
    if shown is None:
        pytest.skip(f"this ImageMagick was built without {name}")
    assert np.abs(expected.astype(int) - colours).max() > 40
    assert np.abs(expected.astype(int)[20, 20] - shown[20, 20]).max() < 12


def seen_by_chromium(
    files: dict[str, bytes], folder: Path, places: list[tuple[int, int]]
) -> dict[str, list[Any]]:
    """Of each file by name (its format, perhaps with more behind a dash): width, height, and the
    sRGB colours at places."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium here")
    page = "<body><script>const seen = {};\n"
    for name, data in files.items():
        source = f"data:image/{name.split('-')[0]};base64,{base64.b64encode(data).decode()}"
        page += f"""{{ const image = new Image(); image.onload = () => {{
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            const pen = canvas.getContext('2d'); pen.drawImage(image, 0, 0);
            const at = (x, y) => Array.from(pen.getImageData(x, y, 1, 1).data.slice(0, 3));
            const colours = {json.dumps(places)}.map(([x, y]) => at(x, y));
            seen['{name}'] = [image.naturalWidth, image.naturalHeight, ...colours];
            document.body.textContent = JSON.stringify(seen); }};
            image.src = '{source}'; }}\n"""
    (folder / "page.html").write_text(page + "</script>", "utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000",
    ]
    asked = [program, *flags, "--dump-dom", (folder / "page.html").as_uri()]
    text = subprocess.run(asked, check=True, capture_output=True, timeout=600, text=True).stdout
    seen: dict[str, list[Any]] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    assert set(seen) == set(files)
    return seen


@pytest.mark.slow
def test_chromium_shows_them_upright(small: np.ndarray, tmp_path: Path) -> None:
    turned = np.rot90(small, -1).astype(int)
    places = [(30, 40), (120, 200)]
    for name, (width, height, *colours) in seen_by_chromium(
        all_results(small), tmp_path, places
    ).items():
        assert (width, height) == (160, 240), name
        for (x, y), colour in zip(places, colours, strict=True):
            assert np.abs(turned[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)) - colour).max() < 40, (
                name
            )


@pytest.mark.slow
def test_chromium_shows_colours_by_their_profile(tmp_path: Path) -> None:
    """A profile in which the samples mean something far from sRGB."""
    places = [(20, 20), (60, 20)]
    colours = np.repeat(np.array([[[40, 90, 160], [200, 120, 30]]], np.uint8), 40, axis=1).repeat(
        40, axis=0
    )
    profile = linear_profile("linear")
    source = png(colours, icc_profile=profile)
    expected, _ = to_srgb(source)
    assert np.abs(expected.astype(int) - colours).max() > 40
    files = {
        f"{name}-{guide}": (
            compress(
                source, DjpegSettings(guide=guide, format=name, quality=95, subsampling="420")
            ).data
        )
        for name in ("jpeg", "webp", "avif")
        for guide in ("uniform", "detail")
    }
    for name, (_, _, *seen) in seen_by_chromium(files, tmp_path, places).items():
        for (x, y), colour in zip(places, seen, strict=True):
            assert np.abs(expected[y, x].astype(int) - colour).max() < 12, name


def test_an_exif_orientation_is_neutral_after_the_pixels_were_turned(small: np.ndarray) -> None:
    photo, _ = with_everything(small)
    kept = formats.Metadata.of(photo, "all")
    assert kept.exif is not None
    assert exif_orientation(kept.exif.removeprefix(b"Exif\0\0")) == 1


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_without_lettering_nothing_is_blurred_for_its_sake(name: str, small: np.ndarray) -> None:
    """No guide had a gain there; what the user gave, or a higher strength, blurs as before."""
    photo = load_bytes(jpeg_bytes(small), "a.jpg")
    size = {"guide": "text", "format": name}
    guided, uniform = (
        compress(photo, DjpegSettings(**{**size, "guide": guide})).data
        for guide in ("text", "uniform")
    )  # type: ignore[arg-type]
    assert guided == uniform
    assert compress(photo, DjpegSettings(**size, strength=1)).data != uniform  # type: ignore[arg-type]
    mask = np.zeros((8, 8), np.float32)
    given = compress(photo, DjpegSettings(guide="mask+text", format=name), mask=mask).data  # type: ignore[arg-type]
    assert len(given) < len(uniform)


def test_avif_is_tuned_for_signal_where_there_is_lettering(
    small: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = load_bytes(jpeg_bytes(small), "a.jpg")
    flat = np.ones((20, 30), np.float32)
    settings = DjpegSettings(guide="uniform", format="avif")
    signal, eyes = (
        Picture(photo, flat, settings, "avif", lettering=share).at(50) for share in (1.0, 0.0)
    )
    assert signal != eyes
    assert compress(photo, settings).data == eyes  # the photo has none
    machine = dataclasses.replace(settings, table="machine")
    assert compress(photo, machine).data == signal
    # a guide that looks for lettering does not change what the table says
    monkeypatch.setattr(guide, "lettering", lambda logits: 1.0)
    guided = DjpegSettings(guide="text", format="avif", strength=0.001)
    assert compress(photo, guided).data == signal
    assert compress(photo, dataclasses.replace(guided, table="photo")).data == eyes
    assert encoder_quality("avif", 50, lettering=0) > encoder_quality("avif", 50)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_the_guide_centre_makes_the_sides_cheap_and_nothing_else(
    name: str, coffee: np.ndarray
) -> None:
    wide = np.ascontiguousarray(coffee[100:228, 100:420])
    table = {"table": "photo"} if name == "jpeg" else {}
    even, centre = (
        made_of(wide, name, quality=90.0, guide=guide, strength=1.0, **table)
        for guide in ("uniform", "centre")
    )
    assert len(centre.data) < 0.8 * len(even.data)
    shown = [np.asarray(Image.open(io.BytesIO(one.data)).convert("RGB")) for one in (even, centre)]
    off = np.abs(shown[0].astype(float) - shown[1]).mean((0, 2))
    # an encoder that predicts and filters lets a little through at the edge
    assert off[96:224].max() <= (1.0 if name == "jpeg" else 2.5)
    assert off[:80].mean() > 3
    assert off[240:].mean() > 3


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_fine_steps_in_the_middle_buy_nothing_beside_it(name: str, coffee: np.ndarray) -> None:
    busy = np.ascontiguousarray(coffee[100:228, 100:420])
    calm = busy.copy()
    calm[:, :80] = calm[:, -80:] = 128  # what the middle's filters reach is alike
    table = {"table": "photo"} if name == "jpeg" else {}

    def size(pixels: np.ndarray, guide: str) -> int:
        made = made_of(pixels, name, quality=97.0, guide=guide, strength=1.0, **table)
        return len(made.data)

    more = [size(busy, guide) - size(calm, guide) for guide in ("uniform", "centre")]
    assert more[0] > 0.3 * size(calm, "uniform")
    assert more[1] < 0.2 * more[0]
