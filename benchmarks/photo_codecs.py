"""The codecs that the benchmarks compare, each named by a spec such as `jpeg:q=50` or
`djpeg:q=50,guide=depth`.

A codec is a function (path of the photo, pixels, depth map or None) -> bytes that Pillow decodes.
Specs:

    jpeg:q=50[,opt=1]          Pillow, 4:2:0; opt=1: optimised and progressive (fewer bytes)
    webp:q=25   avif:q=45      Pillow's defaults (AVIF on one thread)
    study                      the original study's d-JPEG
    flat:step=30[,chroma=45]   one quantisation step for all frequencies, optimised, progressive
    djpeg[:q=..,guide=..,strength=..,table=..,maps=model|given|reversed|flat]
                               vizcomp's own, default settings unless given

`maps` says where djpeg's depth comes from: `model`, the bundled network (the default, as for a
user); `given`, the ready-made DenseDepth map of the photo; `reversed`, that map upside down in
value; `flat`, one value.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from study_djpeg import study_djpeg

from vizcomp.files.find import InputFile

Pixels = npt.NDArray[np.uint8]
Codec = Callable[[Path, Pixels, "Pixels | None"], bytes]


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """`name:key=value,key=value` to its parts."""
    name, _, rest = spec.partition(":")
    values = dict(part.split("=", 1) for part in rest.split(",") if part)
    return name, values


def make_spec(name: str, values: dict[str, Any]) -> str:
    """The inverse of `parse_spec`."""
    return name + (
        ":" + ",".join(f"{key}={value}" for key, value in values.items()) if values else ""
    )


def with_quality(spec: str, quality: float) -> str:
    """The spec at another quality (`q`, or `step` for `flat`)."""
    name, values = parse_spec(spec)
    return make_spec(name, {**values, "step" if name == "flat" else "q": f"{quality:g}"})


def family(spec: str) -> str:
    """The spec without its quality: the codec whose settings form one curve."""
    name, values = parse_spec(spec)
    return make_spec(
        name, {key: value for key, value in values.items() if key not in ("q", "step")}
    )


def make_codec(spec: str) -> Codec:
    """The codec of a spec.

    Raises:
        ValueError: the codec is unknown or an option is wrong.
    """
    name, values = parse_spec(spec)
    if name in _MAKERS:
        try:
            return _MAKERS[name](**values)
        except TypeError as exc:
            raise ValueError(f"{spec}: {exc}") from exc
    raise ValueError(f"unknown codec {name!r}: one of {', '.join(_MAKERS)}")


def _save(pixels: Pixels, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def _jpeg(q: str = "50", opt: str = "0") -> Codec:
    extra = {"optimize": True, "progressive": True} if opt == "1" else {}
    return lambda path, pixels, depth: _save(
        pixels, "JPEG", quality=int(q), subsampling="4:2:0", **extra
    )


def _webp(q: str = "50") -> Codec:
    return lambda path, pixels, depth: _save(pixels, "WEBP", quality=float(q))


def _avif(q: str = "50") -> Codec:
    return lambda path, pixels, depth: _save(pixels, "AVIF", quality=int(q), max_threads=1)


def _flat(step: str, chroma: str | None = None) -> Codec:
    tables = [[round(float(step))] * 64, [round(float(chroma or step))] * 64]
    return lambda path, pixels, depth: _save(
        pixels, "JPEG", qtables=tables, subsampling="4:2:0", optimize=True, progressive=True
    )


def _study() -> Codec:
    def encode(path: Path, pixels: Pixels, depth: Pixels | None) -> bytes:
        if depth is None:
            raise ValueError(f"{path.name}: the study's method needs a depth map")
        return study_djpeg(pixels, depth)

    return encode


def _djpeg(maps: str = "model", **options: str) -> Codec:
    from vizcomp.djpeg.compress import compress
    from vizcomp.djpeg.settings import DjpegSettings

    if maps not in ("model", "given", "reversed", "flat"):
        raise ValueError(f"unknown maps {maps!r}")
    renamed = {"quality" if key == "q" else key: value for key, value in options.items()}
    settings = DjpegSettings(
        **{
            key: float(value) if key in ("quality", "strength", "min_saving") else value
            for key, value in renamed.items()
        }
    )

    def encode(path: Path, pixels: Pixels, depth: Pixels | None) -> bytes:
        from vizcomp.depth.kinds import Depth
        from vizcomp.photos.photo import load

        photo = load(path)
        known: Depth | None = None
        if "depth" in settings.guides:
            if maps == "model":
                known = network_depth(path)
            elif depth is None:
                raise ValueError(f"{path.name}: no depth map given")
            else:
                nearness = depth.astype(np.float32) / 255
                known = Depth(
                    {
                        "given": nearness,
                        "reversed": 1 - nearness,
                        "flat": np.full_like(nearness, 0.5),
                    }[maps]
                )
        looked = {name: text_importance(path) for name in settings.guides if name == "system:text"}
        return compress(photo, settings, depth=known, looked=looked).data

    return encode


@functools.lru_cache(maxsize=512)
def text_importance(path: Path) -> Any:
    """Where the text detector looks on a photo, as `vizcomp djpeg --guide system:text` has it."""
    from vizcomp.photos.photo import load

    return _text_system().importance(load(path).pixels)


@functools.cache
def _text_system() -> Any:
    from vizcomp.vision.systems import open_system

    return open_system("text")


@functools.lru_cache(maxsize=512)
def network_depth(path: Path) -> Any:
    """Depth of a photo by the bundled network; kept, since every setting of a sweep asks for the
    same."""
    from vizcomp.photos.photo import load

    photo = load(path)
    return _network()(photo, InputFile(path, Path(path.name)))


@functools.cache
def _network() -> Any:
    from vizcomp.depth.sources import open_depth

    return open_depth("compact", None, threads=1)


_MAKERS: dict[str, Callable[..., Codec]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "flat": _flat,
    "study": _study,
    "djpeg": _djpeg,
}
