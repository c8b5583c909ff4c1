"""vizcomp compresses images for the computer-vision system that will look at them.

The public names load on first use, so that `import vizcomp` costs nothing:

    >>> import vizcomp
    >>> small = vizcomp.compress("street.jpg", quality=40)  # or bytes, a PIL image, an array
    >>> small.save("small.jpg")
    >>> report = vizcomp.compress_files("photos/", "small/", quality=40)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vizcomp._version import __version__

if TYPE_CHECKING:
    from vizcomp.api.files import compress_files
    from vizcomp.api.single import Compressed, compress
    from vizcomp.api.vzc import Encoded, decode, encode
    from vizcomp.depth.kinds import Depth
    from vizcomp.depth.sources import open_depth
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.errors import VizcompError
    from vizcomp.evaluation.results import EvalSettings
    from vizcomp.evaluation.run import run_eval
    from vizcomp.files.find import find_inputs
    from vizcomp.fitting.policy import Policy
    from vizcomp.fitting.run import fit
    from vizcomp.neural.codec import NeuralCodec
    from vizcomp.neural.packs import VzcPack
    from vizcomp.photos.photo import Photo, load
    from vizcomp.vision.answers import compare
    from vizcomp.vision.callables import System
    from vizcomp.vision.systems import open_system

_HOMES = {
    "Compressed": "api.single",
    "Depth": "depth.kinds",
    "DjpegSettings": "djpeg.settings",
    "Encoded": "api.vzc",
    "EvalSettings": "evaluation.results",
    "NeuralCodec": "neural.codec",
    "Photo": "photos.photo",
    "Policy": "fitting.policy",
    "System": "vision.callables",
    "VizcompError": "errors",
    "VzcPack": "neural.packs",
    "compare": "vision.answers",
    "compress": "api.single",
    "compress_files": "api.files",
    "decode": "api.vzc",
    "encode": "api.vzc",
    "find_inputs": "files.find",
    "fit": "fitting.run",
    "load": "photos.photo",
    "open_depth": "depth.sources",
    "open_system": "vision.systems",
    "run_eval": "evaluation.run",
}

__all__ = [
    "Compressed",
    "Depth",
    "DjpegSettings",
    "Encoded",
    "EvalSettings",
    "NeuralCodec",
    "Photo",
    "Policy",
    "System",
    "VizcompError",
    "VzcPack",
    "__version__",
    "compare",
    "compress",
    "compress_files",
    "decode",
    "encode",
    "find_inputs",
    "fit",
    "load",
    "open_depth",
    "open_system",
    "run_eval",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "transforms":
        return importlib.import_module("vizcomp.transforms")
    if name in _HOMES:
        return getattr(importlib.import_module(f"vizcomp.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vizcomp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
