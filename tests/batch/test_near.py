"""What the depth guide bought near the camera, as reports have it."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command, jpeg_bytes
from PIL import Image

from vizcomp.batch.near import MOST_PHOTOS, measures_near, near_psnr, near_third, near_totals
from vizcomp.depth.kinds import Depth
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.photo import load_bytes


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ramp(height: int, width: int) -> np.ndarray:
    """Left is near."""
    return np.broadcast_to(np.linspace(1, 0, width, dtype=np.float32), (height, width))


def run(photos: Path, out: Path, *options: str) -> dict[str, Any]:
    assert command("djpeg", photos, "-o", out, "--quiet", *options) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.fixture
def photos(tmp_path: Path, coffee: np.ndarray) -> Path:
    """A photo with a map whose left third is near."""
    for name, data in (
        ("photos/a.jpg", jpeg_bytes(coffee[:240, :320], quality=95)),
        ("maps/a.png", png((255 * ramp(24, 32)).astype(np.uint8))),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path / "photos"


def test_the_nearest_third_of_a_ramp_is_its_near_end() -> None:
    near = near_third(Depth(ramp(6, 30)), 12, 60)
    assert near is not None
    assert near[:, :20].all()
    assert not near[:, 22:].any()


@pytest.mark.parametrize("nearness", [np.full((4, 6), 0.5), np.repeat([[0.0, 1.0]], 4, 0)])
def test_a_map_without_a_nearest_third_has_none(nearness: np.ndarray) -> None:
    assert near_third(Depth(nearness.astype(np.float32)), 40, 60) is None


def test_psnr_near_and_elsewhere_is_that_of_the_formula() -> None:
    pixels = np.full((300, 30, 3), 100, np.uint8)
    changed = pixels.copy()
    changed[:, :10] += 10
    changed[:, 10:] -= 5
    near = np.zeros((300, 30), bool)
    near[:, :10] = True
    found = near_psnr(load_bytes(png(pixels), "a.png"), png(changed), near)
    assert found == pytest.approx((20 * math.log10(255 / 10), 20 * math.log10(255 / 5)))


def test_the_report_says_what_the_guide_bought_near(photos: Path, tmp_path: Path) -> None:
    options = ("--guide", "depth", "--strength", "1", "--depth-maps", str(photos.parent / "maps"))
    report = run(photos, tmp_path / "out", *options)
    (row,) = report["files"]
    found, total = row["near"], report["totals"]["near"]
    photo = load_bytes((photos / "a.jpg").read_bytes(), "a.jpg")
    near = np.zeros((240, 320), bool)
    near[:, :110] = True  # eleven of the map's columns
    # found again in another way: between files without a guide at every quality
    data = (tmp_path / "out" / "a.jpg").read_bytes()
    files = [compress(photo, DjpegSettings(guide="uniform", quality=q)).data for q in range(20, 56)]
    sizes = np.log([len(each) for each in files])
    assert sizes[0] < math.log(len(data)) < sizes[-1]
    for index, (ours, theirs) in enumerate(
        (("psnr", "uniform_psnr"), ("rest_psnr", "uniform_rest_psnr"))
    ):
        assert found[ours] == pytest.approx(near_psnr(photo, data, near)[index], abs=0.05)
        expected = np.interp(
            math.log(len(data)), sizes, [near_psnr(photo, each, near)[index] for each in files]
        )
        assert found[theirs] == pytest.approx(expected, abs=0.1)
    assert found["psnr"] > found["uniform_psnr"]
    assert found["rest_psnr"] < found["uniform_rest_psnr"]
    assert total["photos"] == 1
    assert total["gain"] == pytest.approx(found["psnr"] - found["uniform_psnr"])
    assert total["interval"] == pytest.approx([total["gain"]] * 2)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Nearest third at equal bytes" in page
    assert f"{total['gain']:+.2f} dB" in page


def test_a_photo_on_its_side_is_measured_as_it_is_displayed(photos: Path, tmp_path: Path) -> None:
    upright = Image.open(photos / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(photos / "b.jpg", quality=95, exif=exif)
    (photos.parent / "maps" / "b.png").write_bytes((photos.parent / "maps" / "a.png").read_bytes())
    for metadata in ("essential", "none"):
        options = (
            "--guide",
            "depth",
            "--strength",
            "1",
            "--depth-maps",
            str(photos.parent / "maps"),
            "--metadata",
            metadata,
        )
        one, other = (row["near"] for row in run(photos, tmp_path / metadata, *options)["files"])
        assert one["psnr"] - one["uniform_psnr"] == pytest.approx(
            other["psnr"] - other["uniform_psnr"], abs=0.3
        )
        assert other["rest_psnr"] < other["uniform_rest_psnr"]


@pytest.mark.parametrize(
    "options", [("--guide", "uniform"), ("--guide", "depth", "--strength", "0"), ("--lossless",)]
)
def test_without_a_say_of_depth_nothing_is_measured(
    photos: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    report = run(photos, tmp_path / "out", *options)
    assert report["totals"]["near"] is None
    assert report["files"][0]["near"] is None


def test_it_is_measured_in_other_formats_too(photos: Path, tmp_path: Path) -> None:
    options = (
        "--guide",
        "depth",
        "--strength",
        "1",
        "--depth-maps",
        str(photos.parent / "maps"),
        "--format",
        "webp",
    )
    near = run(photos, tmp_path / "out", *options)["totals"]["near"]
    assert near["photos"] == 1
    assert math.isfinite(near["gain"])


def test_large_photos_are_fewer() -> None:
    settings = DjpegSettings()
    small, large = (
        load_bytes(png(np.zeros(shape, np.uint8)), "a.png") for shape in ((8, 8), (3000, 4000))
    )
    assert [measures_near(k, small, settings) for k in (MOST_PHOTOS - 1, MOST_PHOTOS)] == [
        True,
        False,
    ]
    assert [measures_near(k, large, settings) for k in (1, 2)] == [True, False]
    # as much memory again as all else would be needed
    assert not measures_near(
        0, load_bytes(png(np.zeros((3001, 4000), np.uint8)), "a.png"), settings
    )


def test_totals_are_means_over_photos() -> None:
    photos = [
        {"psnr": 30.0, "uniform_psnr": 29.0, "rest_psnr": 28.0, "uniform_rest_psnr": 29.0},
        {"psnr": 40.0, "uniform_psnr": 39.5, "rest_psnr": 38.0, "uniform_rest_psnr": 38.5},
    ]
    found = near_totals(photos)
    assert found is not None
    low, high = found.pop("interval")
    assert found == {
        "photos": 2,
        "psnr": 35.0,
        "uniform_psnr": 34.25,
        "gain": 0.75,
        "rest_gain": -0.75,
    }
    assert (low, high) == (0.5, 1.0)
    assert near_totals([]) is None
