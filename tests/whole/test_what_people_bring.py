"""Each input of ../shared/data/faults comes out as its README says is right."""

from __future__ import annotations

import io
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command
from PIL import Image, ImageOps

import vizcomp
from vizcomp.errors import UnsupportedError
from vizcomp.jpeg.segments import chroma_sampling
from vizcomp.photos.photo import load, load_bytes, to_srgb

FAULTS = Path(__file__).parents[3] / "shared" / "data" / "faults"
pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason="no ../shared here")


def made(name: str, **more: Any) -> Any:
    return vizcomp.compress(FAULTS / name, **{"guide": "uniform", "quality": 60, **more})


def stored(name: str) -> Image.Image:
    return Image.open(io.BytesIO((FAULTS / name).read_bytes()))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def decibel(name: str, reference: np.ndarray, **more: Any) -> float:
    error = decoded(made(name, **more).data) - reference
    return float(10 * np.log10(255**2 / max((error**2).mean(), 1e-9)))


def told(result: Any, words: str) -> bool:
    return any(words in notice for notice in result.notices)


@pytest.mark.parametrize("metadata", ["essential", "all"])
@pytest.mark.parametrize("name", ["orient_long_6.jpg", "exif_66kB_orient_6.webp"])
def test_orientations(name: str, metadata: str) -> None:
    result = made(name, metadata=metadata)
    with Image.open(io.BytesIO(result.data)) as image, stored(name) as source:
        assert ImageOps.exif_transpose(image).size == ImageOps.exif_transpose(source).size
        assert image.getexif()[0x0112] == 6
    assert told(result, "EXIF data left out") == (metadata == "all" and name.endswith("webp"))


def test_greys_of_tiff() -> None:
    values = np.asarray(stored("miniswhite_16bit.tif")).astype(float)
    shown = decoded(made("miniswhite_16bit.tif").data)[..., 0]
    assert np.corrcoef(shown.ravel(), values.ravel())[0, 1] < -0.9  # stored from white
    assert shown.mean() == pytest.approx(255 - values.mean() / 257, abs=2)
    photo = load(FAULTS / "uint32_grey.tif")
    unsigned = np.asarray(stored("uint32_grey.tif")).view(np.uint32).astype(float)
    assert np.corrcoef(photo.pixels.ravel(), unsigned.ravel())[0, 1] > 0.99
    assert photo.notices[0].startswith("samples from 6.7372e+08 to 3.53703e+09")


def test_a_profile_goes_by_what_it_does() -> None:
    pixels, said = to_srgb(load(FAULTS / "icc_linear_srgb_name.png"))
    assert pixels.mean() == pytest.approx(144.5, abs=1)
    assert said
    coded = vizcomp.encode(FAULTS / "icc_linear_srgb_name.png")
    assert vizcomp.decode(coded.data).image.mean() > 130


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("mjpeg_no_dht.jpg", ""),
        ("same_component_ids.jpg", "read as pixels"),
        ("rst_2_bytes_left_over.jpg", "restart marker"),
        ("adobe_1_then_0.jpg", ""),
    ],
)
def test_jpegs_that_were_refused_or_in_other_colours(name: str, notice: str) -> None:
    result = made(name, quality=90)
    reference = decoded((FAULTS / name).read_bytes())
    if name.startswith("rst"):  # libjpeg-turbo throws the rest of such an interval away
        reference = decoded((FAULTS / "same_component_ids.jpg").read_bytes())
    assert decibel(name, reference, quality=90) > 30
    assert not notice or told(result, notice)


def test_the_limit_of_pixels_is_the_callers() -> None:
    for name in ("dpi300.png", "orient_long_6.jpg"):
        assert made(name, max_pixels=19_200).width == 160
        with pytest.raises(vizcomp.VizcompError, match="more than the"):
            made(name, max_pixels=19_199)


def test_a_side_that_no_jpeg_has() -> None:
    with pytest.raises(UnsupportedError, match="65520 x 16 pixels do not fit into a JPEG") as error:
        made("png_65520_wide.png")
    assert "no side above 65500" in error.value.hint
    assert made("png_65520_wide.png", max_side=2000).width == 2000


@pytest.mark.parametrize("name", ["trns_grey_1bit.png", "trns_grey_4bit.png"])
def test_one_transparent_grey(name: str) -> None:
    photo = load(FAULTS / name)
    half = photo.pixels.shape[1] // 2
    assert (photo.pixels[:, :half] == 255).all()
    assert (photo.pixels[:, half:].mean() < 250) == name.endswith("4bit.png")  # 1 bit: all is white
    assert "transparency flattened on white" in photo.notices


def test_metadata() -> None:
    kept = made("gps_kept.webp", quality=90, format="webp", min_saving=0.9)
    assert kept.kept
    with Image.open(io.BytesIO(kept.data)) as image:
        assert not image.getexif().get_ifd(0x8825)
    hdr = made("ultrahdr.jpg", metadata="all")
    assert told(hdr, "gain map")
    assert b"hdrgm" not in hdr.data
    assert b"urn:iso:std:iso:ts:21496" not in hdr.data
    long = made("xmp_66kB.webp", metadata="all")
    assert not told(long, "left out")
    assert load_bytes(long.data, "long").xmp
    assert Image.open(io.BytesIO(made("dpi300.png").data)).info["dpi"] == (300, 300)


def test_pngs_whose_pixels_are_whole() -> None:
    assert not told(made("ztxt_1600kB.png"), "text")
    assert told(made("crc_of_phys.png"), "pHYs left out: its checksum is wrong")


def test_chroma_of_equal_factors_is_halved() -> None:
    assert chroma_sampling(made("444_as_2x1.jpg").data) == "4:2:0"


def test_names_in_another_composition_and_masks_of_0_and_1(tmp_path: Path) -> None:
    asked = ("djpeg", FAULTS / "nfd/photos", "-o", tmp_path / "out", "--guide", "mask")
    assert command(*asked, "--masks", FAULTS / "nfd/masks", "-j1", "--quiet") == 0
    mask = stored("mask_0_1.png")
    image = np.full((mask.height, mask.width, 3), 90, np.uint8)
    hinted = vizcomp.compress(image, guide="mask", mask=FAULTS / "mask_0_1.png")
    assert told(hinted, "1 of 255")


@pytest.mark.slow
def test_204_megapixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FAULTS / "make_204_megapixels.py"))
    (photo,) = tmp_path.iterdir()
    asked = ("djpeg", photo, "-o", tmp_path / "out", "--guide", "uniform", "--report", "none")
    assert command(*asked) == 1
    assert command(*asked, "--max-pixels", 400_000_000) == 0
