"""Photos that the tests make or borrow: scikit-image's own, under CC0 or in the public domain."""

from __future__ import annotations

import io
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in a script's background is born with it ignored

_own_cache: list[tempfile.TemporaryDirectory[str]] = []


def pytest_configure() -> None:
    """Journals and downloads of the tests do not go into the user's cache; before any test module copies the environment."""
    _own_cache.append(tempfile.TemporaryDirectory(prefix="vizcomp-tests-"))
    os.environ["VIZCOMP_CACHE"] = _own_cache[-1].name


def pytest_unconfigure() -> None:
    os.environ.pop("VIZCOMP_CACHE", None)
    while _own_cache:
        _own_cache.pop().cleanup()


def jpeg_bytes(pixels: np.ndarray, **options: object) -> bytes:
    """A JPEG by Pillow."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


def tiny_codec(path: Path, *, seed: int = 0, native: int = 0, **changes: Any) -> Path:
    """A codec as `vizcomp train` writes it, with random weights that are the same everywhere: block 8, 3 iterations of 4 bits."""
    import torch

    from vizcomp.nets.recurrent import RecurrentCodec, RecurrentConfig
    from vizcomp.training.codec import save_codec

    layers = {"stem": (8, 2), "encoder": ((8, 2, 1), (12, 2, 1)), "decoder": ((12, 2, 1), (8, 2, 1), (8, 2, 3))}
    network = RecurrentCodec(RecurrentConfig(**{**layers, "bits": (4, 4, 4), "shared": False, "native": native, **changes}))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.ndim < 2:
                value.zero_()
            else:  # whole multiples of a power of two: exact in half precision
                scale = 2.0 ** -round(np.log2(value[0].numel()) / 2 - 1)
                value.copy_(torch.from_numpy(rng.integers(-128, 128, value.shape) / 128 * scale))
    save_codec(path, network, {"name": "tiny"})
    return path


@pytest.fixture(scope="session")
def any_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec for images of any size."""
    return tiny_codec(tmp_path_factory.mktemp("models") / "any.safetensors")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec for images of 32x32."""
    return tiny_codec(tmp_path_factory.mktemp("models") / "small.safetensors", seed=1, native=32)


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
