"""Numbers of the tables, and the price of a bit, as settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit import command, picture
from PIL import Image

from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.encoder import Encoder
from vizcomp.djpeg.guide import grid_shape
from vizcomp.djpeg.settings import (
    PHOTO_SHAPE,
    SHAPE,
    DjpegSettings,
    Shape,
    quantisation_tables,
)
from vizcomp.djpeg.source import Source
from vizcomp.errors import SettingsError
from vizcomp.photos.photo import in_memory, load


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


def _coded(pixels: np.ndarray, guide: str = "text", **options: Any) -> bytes:
    """A picture at quality 50 of which nothing is important, all of it one of lettering."""
    shape = Shape.of(options.pop("shape", ""), "auto")
    given, lettering = options.pop("given", False), options.pop("lettering", 1.0)
    settings = DjpegSettings(guide=guide, **options)
    source = Source.of(in_memory(pixels, format="PNG", source_bytes=1), settings)
    importance = np.zeros(grid_shape(*pixels.shape[:2]), np.float32)
    encoder = Encoder(source, importance, settings, lettering=lettering, given=given, shape=shape)
    return encoder.encode(50)


def _noise(most: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, most, (64, 96, 1))
    return (picture(1, 64, 96) // 4 + noise).astype(np.uint8)


def test_busy_blocks_pay_for_lettering_elsewhere() -> None:
    busy, calm = _noise(120), np.full((64, 96, 3), 90, np.uint8)
    assert len(_coded(busy, shape="text_busy=1")) < 0.9 * len(_coded(busy, shape="text_busy=0"))
    assert _coded(calm, shape="text_busy=1") == _coded(calm, shape="text_busy=0")
    # unimportant blocks all pay a share of the price, less than a user's own map asks of them
    assert len(_coded(busy, shape="even=1")) < len(_coded(busy))
    assert _coded(busy, shape="even=1", given=True) == _coded(busy, given=True)
    assert len(_coded(busy, strength=0.1)) > len(_coded(busy))


@pytest.mark.parametrize(
    "options",
    [
        {"guide": "uniform"},
        {"guide": "detail"},
        {"guide": "system:text"},
        {"lettering": 0.0},
        {"table": "machine"},
        {"table": "photo"},
        {"strength": 0.0},
    ],
)
def test_that_price_is_of_the_text_guide_where_there_is_lettering(options: dict[str, Any]) -> None:
    files = {_coded(_noise(120), shape=f"text_busy={n},even={n}", **options) for n in (0, 1)}
    assert len(files) == 1
