"""vizcomp compresses images for the computer-vision system that will look at them.

The public names load on first use, so that `import vizcomp` costs nothing:

    >>> import vizcomp
    >>> photo = vizcomp.load("street.jpg")
    >>> depth = vizcomp.open_depth("compact", None)
    >>> small = vizcomp.compress(photo, vizcomp.DjpegSettings(guide="detail"))
    >>> len(small.data) < photo.source_bytes
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vizcomp._version import __version__

if TYPE_CHECKING:
    from vizcomp.depth.kinds import Depth
    from vizcomp.depth.sources import open_depth
    from vizcomp.djpeg.compress import Compressed, compress
    from vizcomp.djpeg.settings import DjpegSettings
    from vizcomp.errors import VizcompError
    from vizcomp.evaluation.results import EvalSettings
    from vizcomp.evaluation.run import run_eval
    from vizcomp.files.find import find_inputs
    from vizcomp.fitting.policy import Policy
    from vizcomp.fitting.run import fit
    from vizcomp.neural.codec import NeuralCodec
    from vizcomp.neural.find import decode
    from vizcomp.neural.packs import VzcPack
    from vizcomp.photos.photo import Photo, load
    from vizcomp.vision.answers import compare
    from vizcomp.vision.callables import System
    from vizcomp.vision.systems import open_system

_HOMES = {
    "Compressed": "djpeg.compress",
    "Depth": "depth.kinds",
    "DjpegSettings": "djpeg.settings",
    "EvalSettings": "evaluation.results",
    "NeuralCodec": "neural.codec",
    "Photo": "photos.photo",
    "Policy": "fitting.policy",
    "System": "vision.callables",
    "VizcompError": "errors",
    "VzcPack": "neural.packs",
    "compare": "vision.answers",
    "compress": "djpeg.compress",
    "decode": "neural.find",
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
    "decode",
    "find_inputs",
    "fit",
    "load",
    "open_depth",
    "open_system",
    "run_eval",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"vizcomp.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'vizcomp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
