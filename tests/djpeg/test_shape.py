"""Numbers of the tables, and the price of a bit, as settings."""

from __future__ import annotations

import numpy as np
import pytest
from kit import command, picture
from PIL import Image

from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import (
    PHOTO_SHAPE,
    SHAPE,
    DjpegSettings,
    Shape,
    quantisation_tables,
)
from vizcomp.errors import SettingsError
from vizcomp.photos.photo import load


def test_numbers_replace_those_of_the_table() -> None:
    assert Shape.of("", "auto") == SHAPE
    assert Shape.of("", "photo") == PHOTO_SHAPE
    shaped = Shape.of("price=0.1, high=1.5", "photo")
    assert (shaped.price, shaped.high, shaped.flat) == (0.1, 1.5, PHOTO_SHAPE.flat)
    plain, steep = (quantisation_tables("photo", 50, shape=one) for one in (PHOTO_SHAPE, shaped))
    assert steep[0][63] > plain[0][63]
    assert steep[0][1] == plain[0][1]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ("cost=1", "no number 'cost'"),
        ("price", "'' is no number"),
        ("price=much", "'much' is no number"),
        ("price=-1", "out of range"),
        ("price=nan", "out of range"),
        ("flat=2", "out of range"),
        ("high=0", "out of range"),
    ],
)
def test_a_wrong_shape_is_one_clear_line(shape: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as caught:
        DjpegSettings(shape=shape)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"table": "machine"}, "not of the table machine"),
        ({"format": "avif"}, "not of `format` avif"),
        ({"lossless": True, "guide": "depth+text"}, "`lossless` and `shape` contradict"),
    ],
)
def test_a_shape_is_of_jpegs_own_tables(options: dict[str, object], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        DjpegSettings(shape="price=0.1", **options)  # type: ignore[arg-type]


def test_a_price_makes_files_smaller_and_the_command_takes_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 60, (64, 96, 3))
    Image.fromarray((picture(1, 64, 96) // 2 + noise).astype(np.uint8)).save(tmp_path / "a.png")
    photo = load(tmp_path / "a.png")
    sizes = [
        len(compress(photo, DjpegSettings(guide="uniform", table=table, shape=shape)).data)
        for table in ("auto", "photo")
        for shape in ("", "price=0.5")
    ]
    assert sizes[1] < 0.95 * sizes[0]
    assert sizes[3] < 0.95 * sizes[2]
    words = ("djpeg", tmp_path / "a.png", "-o", tmp_path / "out", "--guide", "uniform", "-j", 1)
    assert command(*words, "--shape", "price=0.5") == 0
    assert (tmp_path / "out" / "a.jpg").stat().st_size == sizes[1]
    assert command(*words, "--shape", "price=0.5", "--table", "machine") == 2
