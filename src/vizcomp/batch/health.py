"""What an installation can do: versions, formats, decoders and how their pixels differ, cores,
cache, extras, GPU."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from vizcomp._version import __version__
from vizcomp.errors import VizcompError, first_line
from vizcomp.files.place import cache_folder
from vizcomp.files.write import check_output_folder
from vizcomp.photos.opencv import by_opencv
from vizcomp.weights import cache, table
from vizcomp.weights.sessions import available_cores

PACKAGES = (
    "numpy",
    "pillow",
    "onnxruntime",
    "onnx",
    "safetensors",
    "typer",
    "rich",
    "torch",
    "torchvision",
    "tensorflow-cpu",
)

EXTRAS = {
    "train": ("torch", "torchvision", "accelerate"),
    "nyu": ("tensorflow",),
    "text": ("rapidocr", "cv2"),
    "tflite": ("ai_edge_litert",),
    "heif": ("pillow_heif",),
    "jxl": ("pillow_jxl",),
    "exr": ("OpenEXR",),
    "parquet": ("pyarrow",),
    "watch": ("watchfiles",),
    "ray": ("ray",),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
}
"""Each extra and the modules that it brings."""

Pixels = npt.NDArray[np.uint8]


def examine() -> dict[str, Any]:
    """All of it, as JSON types; `problems` has a line for each thing that will not work although it
    should."""
    problems: list[str] = []
    return {
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "formats": _formats(),
        "decoders": _decoders(),
        "cores": available_cores(),
        "memory_bytes": _memory(),
        "cache": _cache(problems),
        "bundled": _bundled(problems),
        "extras": {name: all(map(_is_there, modules)) for name, modules in EXTRAS.items()},
        "gpu": _gpu(),
        "problems": problems,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _memory() -> int | None:
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _formats() -> dict[str, bool]:
    """By name whether photos of it can be read."""
    formats = dict.fromkeys(("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM"), True)
    formats |= {
        name: bool(features.check(kind)) for name, kind in (("WebP", "webp"), ("AVIF", "avif"))
    }
    return {**formats, "HEIC": _is_there("pillow_heif"), "JPEG XL": _is_there("pillow_jxl")}


def photo_for_decoders() -> bytes:
    """A JPEG with 4:2:0 chroma, as most are, whose edges show how a decoder upsamples and
    rounds."""
    rows, columns = np.mgrid[:96, :128]
    waves = [128 + 110 * np.sin(rows / (3 + n) + columns / (5 - n)) for n in range(3)]
    pixels = np.stack(waves, -1).astype(np.uint8)
    pixels[24:48, 32:64] = (255, 0, 0)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85, subsampling="4:2:0")
    return out.getvalue()


def _by_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _by_torchvision(data: bytes) -> Pixels:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    pixels = decode_jpeg(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB
    )
    return np.asarray(pixels.permute(1, 2, 0).numpy())


def _decoders() -> list[dict[str, Any]]:
    """Each decoder of JPEG that is here, and how far its pixels are from Pillow's on one photo, in
    levels of 255."""
    data = photo_for_decoders()
    reference = _by_pillow(data).astype(np.int64)
    ways: tuple[tuple[str, str, Callable[[bytes], Pixels]], ...] = (
        ("pillow", "PIL", _by_pillow),
        ("opencv", "cv2", lambda data: by_opencv(data, "a JPEG")),
        ("torchvision", "torchvision", _by_torchvision),
    )
    rows = []
    for name, module, decode in ways:
        row: dict[str, Any] = {"name": name, "installed": _is_there(module), "version": None}
        if row["installed"]:
            try:
                apart = np.abs(decode(data).astype(np.int64) - reference)
                row |= {
                    "largest": int(apart.max()),
                    "mean": float(apart.mean()),
                    "differ": float((apart > 0).mean()),
                }
                row["version"] = str(getattr(sys.modules[module], "__version__", "")) or None
            except Exception as exc:  # whatever a package does when it is half installed
                row["error"] = first_line(exc)
        rows.append(row)
    rows[0]["library"] = (
        f"libjpeg-turbo {features.version('libjpeg_turbo')}"
        if features.check("libjpeg_turbo")
        else "libjpeg"
    )
    return rows


def _cache(problems: list[str]) -> dict[str, Any]:
    folder = cache_folder()
    state: dict[str, Any] = {"path": str(folder), "writable": True, "bytes": 0, "journals": 0}
    try:
        check_output_folder(folder)
    except VizcompError as exc:
        state["writable"] = False
        problems.append(
            f"{exc.message}: nothing is remembered for a later run, and no weights can be fetched"
        )
    with contextlib.suppress(OSError):
        files = [path for path in folder.rglob("*") if path.is_file()]
        state["bytes"] = sum(path.stat().st_size for path in files)
        state["journals"] = sum(path.suffix == ".sqlite" for path in files)
    return state


def _bundled(problems: list[str]) -> dict[str, str]:
    """The bundled networks by name, and whether they are what they were."""
    states = {
        row.id: str(cache.state(row, thorough=True)) for row in table.rows() if not row.sources
    }
    for name, state in states.items():
        if state != "bundled":
            problems.append(f"the bundled file of {name} is {state}: install vizcomp again")
    return states


def _gpu() -> dict[str, Any]:
    """What could compute beside the processor. djpeg and the codec need none."""
    devices: dict[str, Any] = {"driver": None, "onnxruntime": [], "torch": None}
    with contextlib.suppress(OSError):
        devices["driver"] = (
            Path("/proc/driver/nvidia/version")
            .read_text("utf-8", "replace")
            .partition("\n")[0][:200]
            or None
        )
    with contextlib.suppress(Exception):
        import onnxruntime

        devices["onnxruntime"] = [
            name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"
        ]
    with contextlib.suppress(Exception):
        import torch

        devices["torch"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return devices
