"""Our JPEG against other codecs: the same integers, the same pixels, no larger than libjpeg's own
best."""

from __future__ import annotations

import dataclasses
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data as skimage_data
from jpeg_kit import pillow
from PIL import Image

from vizcomp.errors import UnsupportedError
from vizcomp.jpeg.image import JpegImage
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.write import write_jpeg


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    """An odd-sized part of a photo, uint8 (203, 301, 3)."""
    picture: npt.NDArray[np.uint8] = skimage_data.astronaut()[20:223, 100:401]
    return np.ascontiguousarray(picture)


def tool(name: str, data: bytes, *arguments: str) -> bytes:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [path, *arguments], input=data, capture_output=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    # a warning of the decoder is a defect of rewritten
    assert not done.stderr, done.stderr.decode()
    return done.stdout


KINDS = {
    "4:4:4": ("RGB", {"subsampling": 0, "quality": 90}),
    "4:2:2": ("RGB", {"subsampling": 1, "quality": 75}),
    "4:2:0": ("RGB", {"subsampling": 2, "quality": 50}),
    "progressive": ("RGB", {"subsampling": 2, "quality": 60, "progressive": True}),
    "restarts": ("RGB", {"subsampling": 2, "quality": 60, "restart_marker_blocks": 3}),
    "coarse": ("RGB", {"subsampling": 2, "quality": 5}),
    "fine": ("RGB", {"subsampling": 0, "quality": 100}),
    "grey": ("L", {"quality": 60}),
    "grey progressive": ("L", {"quality": 95, "progressive": True}),
    "cmyk": ("CMYK", {"quality": 60}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_integers_equal_jpeglibs(kind: str, pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    import jpeglib

    mode, options = KINDS[kind]
    source = pillow(pixels, mode, **options)
    image = read_jpeg(source)
    for name, data in {
        "source": source,
        "progressive": write_jpeg(image),
        "sequential": write_jpeg(image, progressive=False),
        "typical tables": write_jpeg(image, progressive=False, optimise=False),
    }.items():
        path = tmp_path / "x.jpg"
        path.write_bytes(data)
        other = jpeglib.read_dct(str(path))
        planes = [
            p for p in (other.Y, other.Cb, other.Cr, getattr(other, "K", None)) if p is not None
        ]
        assert len(planes) == len(image.components)
        for c, plane in zip(image.components, planes, strict=True):
            assert plane.shape == (c.real_rows, c.real_cols, 8, 8), name
            rewritten = c.coefficients[: c.real_rows, : c.real_cols].reshape(plane.shape)
            np.testing.assert_array_equal(rewritten, plane, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_djpeg_and_opencv_decode_without_a_warning(
    kind: str, pixels: npt.NDArray[np.uint8]
) -> None:
    import cv2

    mode, options = KINDS[kind]
    source = pillow(pixels, mode, **options)
    image = read_jpeg(source)
    for progressive in (True, False):
        data = write_jpeg(image, progressive=progressive)
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(source)))
        )
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == pixels.shape
        if mode != "CMYK":  # djpeg writes PNM, which has no CMYK
            assert tool("djpeg", data, "-pnm") == tool("djpeg", source, "-pnm")


@pytest.mark.parametrize("kind", KINDS)
def test_not_larger_than_jpegtran(kind: str, pixels: npt.NDArray[np.uint8]) -> None:
    mode, options = KINDS[kind]
    source = pillow(pixels, mode, **options)
    image = read_jpeg(source)
    segments = [] if mode == "CMYK" else image.segments
    other = tool("jpegtran", source, "-optimize", "-progressive", "-copy", "none")
    rewritten = write_jpeg(dataclasses.replace(image, segments=segments))
    assert len(rewritten) <= len(other)
    other = tool("jpegtran", source, "-optimize", "-copy", "none")
    rewritten = write_jpeg(dataclasses.replace(image, segments=segments), progressive=False)
    assert len(rewritten) <= len(other) * 1.005


def test_not_larger_than_pillows_best_at_a_flat_step(pixels: npt.NDArray[np.uint8]) -> None:
    step = [24] * 64
    best = pillow(pixels, qtables=[step, step], subsampling=2, optimize=True, progressive=True)
    image = read_jpeg(best)
    assert len(write_jpeg(image)) <= len(best)


@pytest.mark.parametrize("sampling", ["1x1", "2x1", "1x2", "2x2", "4x1", "4x2", "1x4"])
def test_cjpegs_samplings_and_scripts(
    sampling: str, pixels: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PPM")
    script = tmp_path / "scans.txt"  # separate sequential scans; then bands with refinement
    script.write_text("0;\n1 2;\n")
    separate = tool(
        "cjpeg", out.getvalue(), "-quality", "70", "-sample", sampling, "-scans", str(script)
    )
    script.write_text(
        "0,1,2: 0-0, 0, 2;\n0,1,2: 0-0, 2, 1;\n0: 1-9, 0, 3;\n1: 1-63, 0, 0;\n2: 1-63, 0, 0;\n0:"
        " 10-63, 0, 3;\n0: 1-63, 3, 2;\n0,1,2: 0-0, 1, 0;\n0: 1-63, 2, 1;\n0: 1-63, 1, 0;\n"
    )
    refined = tool(
        "cjpeg",
        out.getvalue(),
        "-quality",
        "70",
        "-sample",
        sampling,
        "-scans",
        str(script),
        "-restart",
        "5B",
    )
    a, b = read_jpeg(separate), read_jpeg(refined)
    assert (b.restart_interval, b.progressive, a.progressive) == (5, True, False)
    for x, y in zip(a.components, b.components, strict=True):
        rows, cols = x.real_rows, x.real_cols
        np.testing.assert_array_equal(x.coefficients[:rows, :cols], y.coefficients[:rows, :cols])
    for image in (a, b):
        data = write_jpeg(image)
        assert tool("djpeg", data, "-pnm") == tool("djpeg", separate, "-pnm")


def test_an_arithmetic_coded_file_is_refused(pixels: npt.NDArray[np.uint8]) -> None:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PPM")
    with pytest.raises(UnsupportedError, match="arithmetic"):
        read_jpeg(tool("cjpeg", out.getvalue(), "-arithmetic"))


def test_tables_redefined_between_scans(pixels: npt.NDArray[np.uint8]) -> None:
    """The same slot with other steps for each component, which T.81 allows where scans are not
    interleaved."""
    image = read_jpeg(pillow(pixels, subsampling=0, quality=75))
    data = [b"\xff\xd8"]
    frame = b"\x08" + image.height.to_bytes(2, "big") + image.width.to_bytes(2, "big") + b"\x03"
    parts = []
    for i, c in enumerate(image.components):
        steps = (np.arange(64) + 1 + 50 * i).astype(np.uint8)
        grey = JpegImage(
            image.width,
            image.height,
            [dataclasses.replace(c)],
            {c.table: image.tables[c.table]},
            "grey",
        )
        body = write_jpeg(grey, progressive=False)
        tail = body[body.index(b"\xff\xc4") : -2]
        parts.append(b"\xff\xdb\0\x43\0" + steps.tobytes() + tail)
        frame += bytes([c.id, 0x11, 0])
    data += [b"\xff\xc0", (len(frame) + 2).to_bytes(2, "big"), frame, *parts, b"\xff\xd9"]
    joined = read_jpeg(b"".join(data))
    for i, (c, source) in enumerate(zip(joined.components, image.components, strict=True)):
        np.testing.assert_array_equal(c.coefficients, source.coefficients)
        assert joined.tables[c.table].min() == 1 + 50 * i
    assert Image.open(io.BytesIO(write_jpeg(joined))).size == (image.width, image.height)


def test_golden_file_stays_the_same() -> None:
    """A file is a promise: these integers were written by the first version, and must be read by
    all."""
    folder = Path(__file__).parents[1] / "golden"
    image = read_jpeg((folder / "first.jpg").read_bytes())
    expected = np.load(folder / "first.npy", allow_pickle=False)
    got = np.concatenate(
        [c.coefficients[: c.real_rows, : c.real_cols].ravel() for c in image.components]
    )
    np.testing.assert_array_equal(got, expected)
