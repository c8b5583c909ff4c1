"""DenseDepth's files, run by TensorFlow.

Alhashim and Wonka, "High quality monocular depth estimation via transfer learning", 2018, arXiv
1812.11941.

A DenseNet encoder and a decoder that doubles its resolution four times, so the answer has half the
size of the input. Files are legacy Keras HDF5: `model_config` says which layers there are and how
they hang together, weights lie under the layers' names. The graph is built anew, in today's Keras,
from the few kinds of layers that such a network is made of; nothing in a file is executed, and a
file with any other layer is refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.depth.hdf5 import HINT, Array, read_keras
from vizcomp.depth.keras_graph import KerasGraph, check_layers
from vizcomp.errors import MissingExtraError, ModelError

NEEDS = "TensorFlow, which DenseDepth needs,"

STRIDE = 32  # sides are padded to multiples of this
TRAINED = 640 * 480  # pixels of the photos it was trained on
MOST = 2_000_000  # pixels: activations take about 1.5 kB for each
FARTHEST = 1000.0  # the network's unit: 1000 is 10 m on NYU Depth v2
METRES = 0.01  # of that unit


class DenseDepth:
    """The network of a file.

    Args:
        path: legacy Keras HDF5 with `model_config`.
        threads: threads of TensorFlow; counts for the first network of a process.

    Attributes:
        parameters: how many.
        fingerprint: SHA-256 of the file, hexadecimal.

    Raises:
        ModelError: not HDF5, cut off, not of this architecture, or TensorFlow cannot be loaded.
        MissingExtraError: TensorFlow is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        from vizcomp.weights.transfer import digest

        need_tensorflow()
        config, arrays = read_keras(path)
        check_layers(config, path)
        keras, tf = _frameworks(threads)
        try:
            graph = KerasGraph(keras, path)
            self._model = graph.model(config)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as exc:
            raise ModelError(
                f"{path}: its layers do not fit together:"
                f" {(str(exc).splitlines() or [repr(exc)])[0][:200]}",
                HINT,
            ) from exc
        _check_ends(self._model, path)
        _fill(graph.made, arrays, path)
        # As one function: TensorFlow then gives up each layer's answer when the last of its readers
        # has had it.
        self._run = tf.function(
            lambda photos: self._model(photos, training=False),
            input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)],
        )
        self._path = path
        self.parameters = int(self._model.count_params())
        self.fingerprint = digest(path)

    def __call__(self, images: npt.NDArray[np.uint8], *, flip: bool = False) -> Array:
        """Depth of photos of one size.

        Args:
            images: uint8 (N, H, W, 3) RGB, upright, of any size; padded to multiples of 32 inside.
            flip: take the mean with the mirrored photo's answer, as the paper evaluates.

        Returns:
            float32 (N, ceil(H / 2), ceil(W / 2)): metres where the network was trained on NYU Depth
            v2, large = far, 0.1 to 10.

        Raises:
            ValueError: no such array.
            ModelError: the answer is not finite.
        """
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[3] != 3
            or 0 in images.shape
        ):
            raise ValueError(
                f"photos are a uint8 array (N, H, W, 3), not {images.dtype} {images.shape}"
            )
        maps = np.stack([self._one(image) for image in images])
        if flip:
            mirrored = np.stack([self._one(image[:, ::-1])[:, ::-1] for image in images])
            maps = np.asarray((maps + mirrored) / 2, np.float32)
        return maps

    def _one(self, image: npt.NDArray[np.uint8]) -> Array:
        height, width = image.shape[:2]
        more = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        padded = np.pad(image, more, mode="edge").astype(np.float32) / 255
        raw = self._run(padded[None]).numpy()[0, :, :, 0]
        if not np.isfinite(raw).all():
            raise ModelError(
                f"{self._path}: the network's answer is not finite",
                "its weights are damaged; get it again",
            )
        with np.errstate(divide="ignore"):
            depth = np.clip(FARTHEST / raw, 10.0, FARTHEST) * METRES
        # a prediction below 0 has no meaning; clipped as the authors do, it is the nearest
        return np.ascontiguousarray(
            depth[: math.ceil(height / 2), : math.ceil(width / 2)], np.float32
        )


def working_size(height: int, width: int, size: str) -> tuple[int, int]:
    """Height and width at which a photo goes through.

    Args:
        size: "auto" (as many pixels as the training's photos, the aspect kept, never enlarged),
            "full" (as it is, up to `MOST` pixels) or "WIDTHxHEIGHT".

    Raises:
        ValueError: another size.
    """
    if size in ("auto", "full"):
        scale = min(1.0, math.sqrt((TRAINED if size == "auto" else MOST) / (height * width)))
        return max(1, round(height * scale)), max(1, round(width * scale))
    across, times, down = size.lower().partition("x")
    if (
        not (times and across.isdigit() and down.isdigit())
        or not 32 <= int(across) <= 8192
        or not 32 <= int(down) <= 8192
    ):
        raise ValueError(f"size {size!r} is not auto, full or WIDTHxHEIGHT")
    if int(across) * int(down) > MOST:
        raise ValueError(f"size {size} has more than {MOST:,} pixels")
    return int(down), int(across)


def need_tensorflow() -> None:
    """Whether its packages are there, without loading them: before a file is fetched for it.

    Raises:
        MissingExtraError: they are not.
    """
    for package in ("tensorflow", "h5py"):
        try:
            installed = importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):
            installed = False
        if not installed:
            raise MissingExtraError(NEEDS, "nyu")


def _frameworks(threads: int) -> tuple[Any, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" not in sys.modules:
        with contextlib.suppress(Exception):
            # it and TensorFlow hold an LLVM each: loaded after TensorFlow, as torch may do later,
            # it ends the process
            import triton  # noqa: F401
    try:
        with _silent():
            import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
        for limit in (
            tf.config.threading.set_intra_op_parallelism_threads,
            tf.config.threading.set_inter_op_parallelism_threads,
        ):
            try:
                limit(threads)
            except RuntimeError:  # it has been used already in this process
                break
        import keras
    except ModuleNotFoundError as exc:
        raise MissingExtraError(NEEDS, "nyu") from exc
    except (ImportError, RuntimeError) as exc:
        raise ModelError(
            f"DenseDepth needs TensorFlow, which cannot be loaded: {exc}",
            "pip install 'vizcomp[nyu]'",
        ) from exc
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "DenseDepth needs Keras on TensorFlow, and Keras runs on another backend here",
            "unset KERAS_BACKEND",
        )
    return keras, tf


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error: TensorFlow's libraries greet there before any setting of theirs
    counts."""
    try:
        sys.stderr.flush()
        before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError):  # it is closed: nothing to keep silent
        yield
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def check_file(path: Path) -> None:
    """Whether a file is one of DenseDepth, as far as can be told without TensorFlow: its form and
    its layers.

    Raises:
        ModelError: not HDF5, cut off, or with layers that DenseDepth does not have.
    """
    config, _arrays = read_keras(path)
    check_layers(config, path)


def _check_ends(model: Any, path: Path) -> None:
    channels = model.output_shape[-1]
    if channels != 1:
        raise ModelError(f"{path} answers {channels} channels: expected one, the depth", HINT)
    try:
        shape = tuple(int(side) for side in model.compute_output_shape((1, 64, 96, 3)))
    except (ValueError, TypeError) as exc:
        raise ModelError(f"{path}: the graph does not take 96x64 pixels: {exc}", HINT) from exc
    if shape != (1, 32, 48, 1):
        raise ModelError(
            f"{path} answers {shape[2]}x{shape[1]} for 96x64 pixels: expected half the size", HINT
        )


def _fill(
    built: list[tuple[str, str, Any]], arrays: dict[str, dict[str, Array]], path: Path
) -> None:
    for group, name, layer in built:
        wanted = [tuple(w.shape) for w in layer.weights]
        inside = arrays.get(group, {})
        if group == name:
            values = list(inside.values())
        # a nested model's arrays lie in one group, trainable ones first: their names say whose they
        # are
        else:
            values = [a for w in layer.weights if (a := _of(inside, name, w.name)) is not None]
        shapes = [a.shape for a in values]
        if wanted != shapes:
            raise ModelError(
                f"{path}: the layer {name[:60]} has weights of {shapes}: expected {wanted}", HINT
            )
        if not all(np.isfinite(value).all() for value in values):
            raise ModelError(
                f"{path}: the layer {name[:60]} has weights that are not finite", "get it again"
            )
        if wanted:
            layer.set_weights(values)


def _of(inside: dict[str, Array], layer: str, variable: str) -> Array | None:
    """The array of one variable of a layer; None where there is none.

    The shortest name that ends so: of layers `bn` and `conv1/bn` each has its own, with or without
    the model's name in front.
    """
    names = [n for n in inside if f"/{n.partition(':')[0]}".endswith(f"/{layer}/{variable}")]
    return inside[min(names, key=len)] if names else None
