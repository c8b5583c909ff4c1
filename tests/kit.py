"""What tests share: made pictures, files and codecs, and commands in this process."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image


def jpeg_bytes(pixels: np.ndarray, **options: object) -> bytes:
    """A JPEG by Pillow."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


def tiny_codec(path: Path, *, seed: int = 0, native: int = 0, **changes: Any) -> Path:
    """A codec as `vizcomp train` writes it, with random weights that are the same everywhere: block
    8, 3 iterations of 4 bits."""
    import torch

    from vizcomp.nets.recurrent import RecurrentCodec, RecurrentConfig
    from vizcomp.training.codec import save_codec

    layers = {
        "stem": (8, 2),
        "encoder": ((8, 2, 1), (12, 2, 1)),
        "decoder": ((12, 2, 1), (8, 2, 1), (8, 2, 3)),
    }
    network = RecurrentCodec(
        RecurrentConfig(
            **{**layers, "bits": (4, 4, 4), "shared": False, "native": native, **changes}
        )
    )
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


def picture(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    """uint8 (height, width, 3): a gradient with a square, so that it is neither flat nor noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    plane = (
        rows[..., None] * rng.integers(1, 4, 3) + columns[..., None] * rng.integers(1, 4, 3)
    ) % 256
    plane[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return plane.astype(np.uint8)


def size_of(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file."""
    with Image.open(path) as image:
        return image.size


def tree(folder: Path) -> set[str]:
    """The paths of all files below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    """What every file below a folder holds."""
    return {name: (folder / name).read_bytes() for name in sorted(tree(folder))}


def command(*arguments: object) -> int:
    """Runs `vizcomp ARGUMENTS` in this process, and gives its exit code."""
    from vizcomp import cli

    with (
        mock.patch.object(sys, "argv", ["vizcomp", *map(str, arguments)]),
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    return int(left.value.code or 0)


def script(path: Path, *arguments: object) -> tuple[int, str, str]:
    """Runs a Python script in this process, which has its packages loaded already: its exit code,
    standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [str(path), *map(str, arguments)]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # as a script has them
        code: object = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
    if isinstance(code, str):
        err.write(code)
    return code if isinstance(code, int) else 1, out.getvalue(), err.getvalue()


PATIENCE = 300.0
"""Seconds that a test waits for what must come: they cost nothing when it does, and a machine that
is busy, or stops for a while, is no failure."""


def wait_until(there: Callable[[], bool], *, unless: Callable[[], object] = lambda: None) -> None:
    """Waits for a state, and never for a time; fails where `unless` gives anything but None, as
    `Popen.poll` of a process that has ended."""
    until = time.monotonic() + PATIENCE
    while not there():
        # what it wrote last counts
        assert unless() is None or there(), "it ended before that"
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


@contextlib.contextmanager
def processor_seconds(most: float) -> Iterator[None]:
    """What is done within takes at most so much of the processor: other than the clock, this does
    not grow with what else the machine has to do. `most` is some ten times what is needed, and a
    small part of what the thing that is guarded against would take."""
    began = time.process_time()
    yield
    assert time.process_time() - began < most
