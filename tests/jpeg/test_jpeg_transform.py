"""Pixels to coefficients and a JPEG's integers to real values, against the definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from jpeg_kit import blank, decoded, photo, pillow

from vizcomp.errors import SettingsError
from vizcomp.jpeg.image import Component, JpegImage
from vizcomp.jpeg.quantise import quantise
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.transform import consume, from_pixels
from vizcomp.jpeg.write import write_jpeg


def dct_matrix() -> npt.NDArray[np.float64]:
    u, x = np.mgrid[:8, :8]
    matrix = np.cos((2 * x + 1) * u * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix


def reference(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows, cols = plane.shape[0] // 8, plane.shape[1] // 8
    blocks = plane.reshape(rows, 8, cols, 8).transpose(0, 2, 1, 3)
    m = dct_matrix()
    return (m @ blocks @ m.T).reshape(rows, cols, 64)


def inverse(blocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows, cols = blocks.shape[:2]
    m = dct_matrix()
    return (
        (m.T @ blocks.reshape(rows, cols, 8, 8) @ m)
        .transpose(0, 2, 1, 3)
        .reshape(8 * rows, 8 * cols)
    )


def halved(plane: npt.NDArray[np.float64], down: int, across: int) -> npt.NDArray[np.float64]:
    """The mean of each `down` x `across` samples."""
    rows, cols = plane.shape
    means: npt.NDArray[np.float64] = plane.reshape(rows // down, down, cols // across, across).mean(
        (1, 3)
    )
    return means


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33), (64, 48)])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "grey"])
def test_forward_dct_equals_the_definition(size: tuple[int, int], subsampling: str) -> None:
    pixels = photo(*size)
    hx, vy = {"4:2:0": (2, 2), "4:2:2": (2, 1)}.get(subsampling, (1, 1))
    rows, cols = -(-size[1] // (8 * vy)) * 8 * vy, -(-size[0] // (8 * hx)) * 8 * hx
    if subsampling == "grey":
        plane = pixels[..., 0]
        image = from_pixels(plane)
        planes = [
            np.pad(plane.astype(float), ((0, rows - size[1]), (0, cols - size[0])), "edge") - 128
        ]
    else:
        image = from_pixels(pixels, subsampling=subsampling)  # type: ignore[arg-type]
        rgb = np.pad(
            pixels.astype(float), ((0, rows - size[1]), (0, cols - size[0]), (0, 0)), "edge"
        )
        y = rgb @ [0.299, 0.587, 0.114]
        cb, cr = (rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402
        small = [c.reshape(rows // vy, vy, cols // hx, hx).mean((1, 3)) for c in (cb, cr)]
        planes = [y - 128, *small]
    for component, plane in zip(image.components, planes, strict=True):
        assert component.values.dtype == np.float32
        np.testing.assert_allclose(component.values, reference(plane), atol=2e-3)


def test_dc_of_a_flat_block() -> None:
    image = from_pixels(np.full((8, 8), 200, np.uint8))
    assert image.components[0].values[0, 0, 0] == pytest.approx(8 * (200 - 128), abs=1e-3)


def test_pixels_written_and_decoded_are_close() -> None:
    pixels = photo(75, 50)
    real = from_pixels(pixels, subsampling="4:4:4")
    parts = [Component(c.id, c.h, c.v, 0, quantise(c.values, np.ones(64))) for c in real.components]
    data = write_jpeg(JpegImage(75, 50, parts, {0: np.ones(64, np.uint16)}, "ycbcr"))
    assert np.abs(decoded(data).astype(int) - pixels).max() <= 3


def test_from_pixels_refuses_other_arrays() -> None:
    for bad in (
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
    ):
        with pytest.raises(SettingsError):
            from_pixels(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("size", [(64, 48), (41, 23), (8, 8), (1, 1)])
def test_chroma_is_halved_as_its_pixels_would_be(
    sampling: tuple[int, int], size: tuple[int, int]
) -> None:
    h, v = sampling
    image = blank(*size, [sampling, (1, 1), (1, 1)], "ycbcr")
    rng = np.random.default_rng(0)
    planes = []
    for c in image.components:
        c.coefficients[:] = rng.integers(-20, 21, c.coefficients.shape)
        planes.append(inverse(c.coefficients.astype(float) * 3))
    shapes = [
        blank(*size, [(2, 2), (1, 1), (1, 1)], "ycbcr").components[i].coefficients.shape
        for i in range(3)
    ]
    real, was_halved = consume(image)
    assert was_halved
    inside = size[1] // 16, size[0] // 16  # whole MCUs: beside them blocks are mirrored
    for i, (c, shape) in enumerate(zip(real.components, shapes, strict=True)):
        assert (c.h, c.v) == ((2, 2) if i == 0 else (1, 1))
        assert c.values.shape == shape
        rows, cols = (inside[0] * 2, inside[1] * 2) if i == 0 else inside
        plane = (
            planes[i]
            if i == 0
            else halved(planes[i][: 16 // v * inside[0], : 16 // h * inside[1]], 3 - v, 3 - h)
        )
        values = c.values if c.unit is None else c.values * c.unit
        np.testing.assert_allclose(values[:rows, :cols], reference(plane)[:rows, :cols], atol=1e-3)


def test_the_real_values_of_a_jpeg_are_coefficients_times_steps() -> None:
    data = pillow(photo(30, 30), subsampling=2)
    image = read_jpeg(data)
    real, was_halved = consume(read_jpeg(data))
    assert not was_halved
    for c, r in zip(image.components, real.components, strict=True):
        values = c.coefficients.astype(np.float64) * image.tables[c.table]
        assert r.unit is not None
        np.testing.assert_array_equal(r.values * r.unit, values)
        np.testing.assert_array_equal(r.dc(), values[..., 0])
        np.testing.assert_allclose(r.ac_norm(), np.sqrt((values[..., 1:] ** 2).sum(2)), rtol=1e-5)
