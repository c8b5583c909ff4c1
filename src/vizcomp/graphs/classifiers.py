"""Classifiers by name: their files read and checked, and run by ONNX Runtime.

A file is safetensors; its metadata `vizcomp` is JSON with the architecture, its configuration
(normalisation included), the names of the classes, and what the training measured. Weights may be
stored in half precision; they run in float32. The published Inception v3 is a state dict of torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import InputError, ModelError, first_line
from vizcomp.graphs.architectures import (
    DOUBT,
    PRESETS,
    Config,
    InceptionConfig,
    classified,
    configured,
)
from vizcomp.graphs.layers import Layers
from vizcomp.graphs.onnx_file import Graph
from vizcomp.graphs.session import Session
from vizcomp.weights import cache, table
from vizcomp.weights.state_dict import read_state_dict
from vizcomp.weights.tensors import read_tensors

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
BUNDLED = ("inception", "watcher")
PUBLISHED = ("inception-v3",)
CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
PART = 32  # images that go through together: more do not fit the processor's caches
LEAST_CALIBRATED = 0.7  # accuracy below which a calibration says nothing
# by the year of PyTorch_CIFAR10's weights
DEVIATIONS = {"2019": (0.2023, 0.1994, 0.2010), "2021": (0.2471, 0.2435, 0.2616)}


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierFile:
    """A classifier as its file has it.

    Attributes:
        architecture: one of `architectures.ARCHITECTURES`.
        weights: float32, by the names of the torch modules: what the architecture has and no more.
        classes: names, in the order of the logits.
        words: the file's metadata.
    """

    architecture: str
    config: Config
    weights: Mapping[str, Array]
    classes: tuple[str, ...] = ()
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The weights that a classifier has: names and shapes."""
    layers = Layers()
    classified(layers, "", config)
    return layers.shapes


def file_of(name: str | Path, *, offline: bool = False) -> Path:
    """The file of a classifier: bundled, published (fetched where it is not in the cache), added by
    hand, or a path.

    Raises:
        WeightsMissingError: a published one that could not be had.
    """
    if str(name) in BUNDLED:
        return table.bundled_path(f"{name}.safetensors")
    if str(name) in PUBLISHED:
        return cache.obtain(str(name), offline=offline, check=check_published)
    return cache.added_model(str(name)) or Path(name)


def read(name: str | Path, *, offline: bool = False) -> ClassifierFile:
    """A classifier's file.

    Args:
        name: a bundled name (`inception`, `watcher`), a published one (`inception-v3`), one that
            `weights add` gave, or the path of a .safetensors file.
        offline: never touch the network.

    Raises:
        ModelError: no such file, damaged, or no classifier of vizcomp.
        WeightsMissingError: a published one that could not be had.
    """
    if str(name) in PUBLISHED:
        return read_published(file_of(name, offline=offline), year_of(str(name)))
    hint = (
        f"use {' or '.join(BUNDLED)}, or a model.safetensors that vizcomp train --kind classifier"
        " wrote"
    )
    path = file_of(name)
    about, tensors = read_tensors(path, hint, what="weights")
    if about.get("kind") != "classifier":
        raise ModelError(f"{path} holds no classifier of vizcomp", hint)
    return from_arrays(about, tensors, str(path), hint)


def from_arrays(
    about: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], where: str, hint: str = ""
) -> ClassifierFile:
    """A classifier from what its file says of itself and the arrays in it.

    Args:
        where: the file, for messages.

    Raises:
        ModelError: they do not fit each other.
    """
    try:
        architecture = str(about.get("architecture"))
        config = configured(architecture, dict(about.get("network", {})))
        if {n: v.shape for n, v in tensors.items()} != shapes(config):
            raise ModelError(f"{where}: the weights do not fit the architecture they name", hint)
        weights = {n: np.asarray(v, np.float32) for n, v in tensors.items()}
        return ClassifierFile(
            architecture, config, weights, tuple(map(str, about.get("classes", ()))), dict(about)
        )
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, OverflowError) as exc:
        # the words are the file's: anything may stand there
        raise ModelError(f"{where}: its configuration is invalid: {first_line(exc)}", hint) from exc


def read_published(path: Path, year: str) -> ClassifierFile:
    """PyTorch_CIFAR10's Inception v3 from its state dict; nothing in the file is executed.

    Args:
        year: of the weights, a key of `DEVIATIONS`: that says how their input was normalised.

    Raises:
        ModelError: no state dict, or not of this network; lists what is missing, extra or of
            another shape.
    """
    config = dataclasses.replace(PRESETS["full"], std=DEVIATIONS[year])
    hint = "give inception_v3.pt of PyTorch_CIFAR10"
    wanted = shapes(config)
    arrays = _without_prefix(read_state_dict(path, hint))
    weights = {n: v for n, v in arrays.items() if not n.endswith("num_batches_tracked")}
    wrong = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "extra": sorted(weights.keys() - wanted.keys()),
        "of another shape": [
            f"{n} {weights[n].shape} for {shape}"
            for n, shape in wanted.items()
            if n in weights and weights[n].shape != shape
        ],
    }
    if any(wrong.values()):
        said = [
            f"{what}:"
            f" {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            for what, names in wrong.items()
            if names
        ]
        raise ModelError(f"{path} is not Inception v3 for CIFAR-10; {'; '.join(said)}", hint)
    weights = {n: np.asarray(v, np.float32) for n, v in weights.items()}
    if damaged := next((n for n, v in weights.items() if not np.isfinite(v).all()), ""):
        raise ModelError(
            f"{path}: {damaged!r} holds what is not a finite number",
            "its weights are damaged; get it again",
        )
    return ClassifierFile(
        "inception-full", config, weights, CIFAR_CLASSES, {"architecture": "inception-full"}
    )


def _without_prefix(state: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A state dict without what a wrapper (DataParallel, Lightning) put before each name:
    "module.", "model."."""
    first = "Conv2d_1a_3x3.conv.weight"
    before = next((n.removesuffix(first) for n in state if n.endswith(first)), "")
    return {n.removeprefix(before): v for n, v in state.items()}


def check_published(path: Path) -> None:
    """Whether a file is PyTorch_CIFAR10's Inception v3.

    Raises:
        ModelError: as `read_published`.
    """
    read_published(path, "2021")


def year_of(name: str) -> str:
    """The normalisation that is kept with the cached copy of a published classifier; that of 2021
    where nobody knows."""
    remark = str(cache.recorded(name).get("words", ""))
    return remark if remark in DEVIATIONS else "2021"


def graph(
    file: ClassifierFile, metadata: Mapping[str, str] | None = None, *, seen: bool = True
) -> bytes:
    """A classifier as an ONNX file.

    Its input is `pixels`, uint8 (N, H, W, 3) RGB; its outputs are `logits`, float32 (N, classes),
    and, where wanted, `seen`, what the last layer takes the mean or the maximum of, float32 (N, c,
    h, w). It is not asked about a mirror image: `Classifier` does that.
    """
    made = Graph(file.architecture)
    node, constant = made.node, made.constant
    x = made.input("pixels", "uint8", ("n", "h", "w", 3))
    x = node("Div", node("Transpose", node("Cast", x, to=1), perm=(0, 3, 1, 2)), constant(255.0))
    mean, std = (
        np.asarray(each, np.float32)[:, None, None] for each in (file.config.mean, file.config.std)
    )
    x = node("Div", node("Sub", x, constant(mean)), constant(std))
    features, logits = classified(Layers(made, file.weights), x, file.config)
    made.output(logits, "logits", "float32", ("n", file.config.classes))
    if seen:
        made.output(features, "seen", "float32", ("n", "channels", "rows", "columns"))
    return made.to_bytes(metadata)


class Classifier:
    """A classifier, ready to answer.

    Attributes:
        classes: names, in the order of the logits.
        mirrors: whether it takes the mean over the mirror image by itself, where it is in doubt.
    """

    def __init__(self, file: ClassifierFile, *, threads: int = 1) -> None:
        self.classes = file.classes
        self.mirrors = isinstance(file.config, InceptionConfig) and file.config.mirror
        self._last = file.weights["fc.weight"]
        self._session = Session(lambda: graph(file), threads=threads)

    @classmethod
    def load(cls, name: str | Path, *, offline: bool = False, threads: int = 1) -> Classifier:
        """By name: see `read`."""
        return cls(read(name, offline=offline), threads=threads)

    def logits(self, images: Pixels) -> Array:
        """uint8 (N, H, W, 3) RGB to float32 (N, classes)."""
        logits = self._through(images)
        if self.mirrors and len(images):
            first = np.partition(logits, (-2, -1), axis=1)
            unsure = np.flatnonzero(first[:, -1] - first[:, -2] < DOUBT)
            if len(unsure):
                logits[unsure] = (logits[unsure] + self._through(images[unsure, :, ::-1])) / 2
        return logits

    def _through(self, images: Pixels) -> Array:
        parts = [
            self._session.run(["logits"], {"pixels": np.ascontiguousarray(images[at : at + PART])})[
                0
            ]
            for at in range(0, len(images), PART)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self._last)), np.float32)

    def importance(self, image: Pixels) -> Array:
        """Where it looks for its best class: uint8 (H, W, 3) to float32 (h, w), 0 and more.

        Class activation maps (Zhou et al. 2016): what the last layer sees, weighed as for that
        class. Grad-CAM (Selvaraju et al. 2017) gives the same map but for a factor, since nothing
        but a mean or a maximum stands between.
        """
        best = int(self.logits(image[None])[0].argmax())
        (seen,) = self._session.run(["seen"], {"pixels": np.ascontiguousarray(image[None])})
        heat: Array = np.maximum(np.tensordot(self._last[best], seen[0], 1), 0)
        return heat


def calibrate(
    name: str,
    images: Pixels,
    labels: npt.NDArray[Any],
    *,
    opened: Callable[[Path, str], Classifier] | None = None,
) -> dict[str, float]:
    """Chooses the normalisation of a published classifier by its accuracy, and keeps it with the
    cached copy.

    Args:
        images: uint8 (N, 32, 32, 3).
        labels: (N,), in the order of CIFAR-10's classes.
        opened: the classifier of a path and a year, in place of the file's.

    Returns:
        Accuracy of each year.
    """
    path = cache.obtain(name, offline=True)
    opened = opened or (lambda path, year: Classifier(read_published(path, year)))
    figures = {
        year: float((opened(path, year).logits(images).argmax(1) == labels).mean())
        for year in DEVIATIONS
    }
    before = year_of(name)
    # alike: as it was
    cache.note(name, words=max(figures, key=lambda year: (figures[year], year == before)))
    return figures


def calibration_images(path: Path, most: int = 1000) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Images to calibrate on, evenly chosen from a data set's test part, or from all of it where it
    has none.

    Returns:
        uint8 (N, 32, 32, 3), and int64 (N,) labels in the order of CIFAR-10's classes, whatever the
        order in the data.

    Raises:
        InputError: nothing there, or classes that CIFAR-10 does not have.
    """
    from vizcomp.datasets.read import read_labelled

    try:
        data = read_labelled(path, part="test", size=32)
    except InputError:
        data = read_labelled(path, part="all", size=32)
    if strange := [c for c in data.classes if c not in CIFAR_CLASSES]:
        raise InputError(
            f"{path} has the class {strange[0]}, which CIFAR-10 does not have",
            f"its classes are {', '.join(CIFAR_CLASSES)}",
        )
    numbers = np.array([CIFAR_CLASSES.index(c) for c in data.classes], np.int64)
    count = min(most, len(data))
    chosen = np.arange(count) * len(data) // max(1, count)
    return data.images[chosen], numbers[data.labels[chosen]]
