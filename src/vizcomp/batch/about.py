"""What a report says of the vision systems of a run."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from vizcomp._version import __version__
from vizcomp.batch.judges import guide_systems, system_by_name
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.photos.opencv import check_decoder
from vizcomp.vision.system import reading_of

# By the file of a system's class, the packages whose versions can change its answers.
_RUN_BY = {
    "onnx_systems": ("onnxruntime",),
    "tflite_systems": ("ai-edge-litert",),
    "script_systems": ("torch",),
    "text_system": ("rapidocr", "onnxruntime"),
    "torch_systems": ("torch", "torchvision", "onnxruntime"),
}
_ALWAYS = ("numpy", "pillow")


def systems_of(settings: DjpegSettings | None, batch: BatchSettings) -> list[dict[str, Any]]:
    """Each system that verifies, watches or guides, as `about_system`, with its `roles`: "verify",
    "watch", "guide".

    Raises:
        VizcompError: as `vision.systems.open_system`.
    """
    guides = guide_systems(settings) if settings is not None else []
    roles = {"verify": batch.verify, "watch": batch.watch_with, "guide": guides}
    names = dict.fromkeys(name for some in roles.values() for name in some)
    return [
        {
            **about_system(name, batch.offline, batch.decoder),
            "roles": [role for role, some in roles.items() if name in some],
        }
        for name in names
    ]


def about_system(name: str, offline: bool = False, decoder: str = "pillow") -> dict[str, Any]:
    """`name`, `fingerprint`, `kind`, `reading`, and `versions` of vizcomp and of the packages that
    the answers depend on."""
    system = system_by_name(name, offline)
    runners = _RUN_BY.get(type(system).__module__.rpartition(".")[2], ())
    versions = {"vizcomp": __version__, **_versions((*runners, *_ALWAYS))}
    if decoded_by := check_decoder(decoder):
        kind, _, version = decoded_by.partition(" ")
        versions[kind] = version
    return {
        "name": name,
        "fingerprint": system.fingerprint,
        "kind": system.kind,
        "reading": reading_of(system),
        "versions": versions,
    }


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
