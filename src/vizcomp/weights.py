"""Weight files: one row for each that comes with the package.

A row says what a file is, where it comes from and what may be done with it; its model card in `docs/models/` says the
rest. Nothing is unpickled: a file is ONNX or safetensors.
"""

from __future__ import annotations

import dataclasses
import os
from importlib.resources import as_file, files
from pathlib import Path

from vizcomp.errors import WeightsMissingError


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One weight file.

    Attributes:
        id: the name by which it is asked for.
        what: what it does, one line.
        file: its name in the package.
        sha256: of the file, in hexadecimal.
        licence: of the weights.
        paper: where the method is from.
        normalisation: what the network expects of its input.
        accuracy: what was measured, on what.
        card: its model card, in the repository.
    """

    id: str
    what: str
    file: str
    sha256: str
    licence: str
    paper: str
    normalisation: str
    accuracy: str
    card: str


BUNDLED: tuple[WeightFile, ...] = (
    WeightFile(
        id="compact-depth",
        what="depth of any photo, large = near, with a confidence",
        file="compact_depth.onnx",
        sha256="586d01a22bce52cb6fd29a17a8e03e5184fd325d52d81f9a327835409667d186",
        licence="MIT",
        paper="own network; targets from Alhashim and Wonka, High quality monocular depth estimation, 2018",
        normalisation="uint8 RGB, long side 128, padded to multiples of 16; scaled inside the network",
        accuracy="trained on all 250 street photos; the same recipe without 50 of them: mean rank correlation 0.42 on those 50",
        card="docs/models/compact-depth.md",
    ),
)


def bundled_path(name: str) -> Path:
    """Path of a file that comes with the package.

    Raises:
        WeightsMissingError: the package was installed without it.
    """
    with as_file(files("vizcomp").joinpath("bundled", name)) as path:  # the package is always unpacked: the path stays valid
        if not path.is_file() and name not in {row.file for row in BUNDLED}:
            stem = name.removesuffix(".safetensors")
            raise WeightsMissingError(
                f"the model {stem} does not come with this version", "train one with vizcomp train, and give the path of its file"
            )
        if not path.is_file():
            raise WeightsMissingError(f"{name} is missing from the installed package", "install vizcomp again")
        return path


def cache_folder() -> Path:
    """Where downloaded and added weights lie: `VIZCOMP_CACHE`, or the user's cache folder. It may not exist yet."""
    if given := os.environ.get("VIZCOMP_CACHE"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("vizcomp"))


def model_folder() -> Path:
    """Where codecs are looked for by fingerprint, besides the bundled ones."""
    return cache_folder() / "models"
