"""Photos that the tests make or borrow: scikit-image's own, under CC0 or in the public domain."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def jpeg_bytes(pixels: np.ndarray, **options: object) -> bytes:
    """A JPEG by Pillow."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """uint8 (400, 600, 3): a table with a cup, in focus in front and dark behind."""
    from skimage import data

    return np.asarray(data.coffee())


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """uint8 (300, 451, 3): sides that are no multiples of 8."""
    from skimage import data

    return np.asarray(data.chelsea())


@pytest.fixture
def folder(tmp_path: Path, coffee: np.ndarray, cat: np.ndarray) -> Path:
    """A small tree of photos: a/coffee.jpg, cat.png, cat.jpg, grey.jpg."""
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    (photos / "a" / "coffee.jpg").write_bytes(jpeg_bytes(coffee, subsampling="4:4:4"))
    Image.fromarray(cat).save(photos / "cat.png")
    (photos / "cat.jpg").write_bytes(jpeg_bytes(cat))
    (photos / "grey.jpg").write_bytes(jpeg_bytes(cat[..., 1]))
    return photos
