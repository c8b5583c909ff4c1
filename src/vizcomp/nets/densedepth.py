"""DenseDepth (Alhashim and Wonka, "High quality monocular depth estimation via transfer learning", 2018, arXiv 1812.11941).

A DenseNet encoder and a decoder that doubles its resolution four times, so the answer has half the size of the input. Files are
legacy Keras HDF5: `model_config` says which layers there are and how they hang together, weights lie under the layers' names. The
graph is built anew, in today's Keras, from the few kinds of layers that such a network is made of; nothing in a file is executed,
and a file with any other layer is refused. This is the only module that names TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError

Array = npt.NDArray[np.float32]

HINT = "give nyu.h5 of DenseDepth, or a file that its training saved with model.save"
STRIDE = 32  # sides are padded to multiples of this
TRAINED = 640 * 480  # pixels of the photos it was trained on
MOST = 2_000_000  # pixels: activations take about 1.5 kB for each
MOST_LAYERS = 4000
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
        ModelError: not HDF5, cut off, not of this architecture, or TensorFlow cannot be had.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        from vizcomp.downloads import digest

        config, arrays = _read(path)
        keras, tf = _frameworks(threads)
        layers = _layers(config, path)
        try:
            self._model = _build(layers, config, keras, tf, path)
        except (ValueError, TypeError, KeyError, IndexError) as exc:
            raise ModelError(f"{path}: its layers do not fit together: {str(exc).splitlines()[0]}", HINT) from exc
        _check_ends(self._model, path)
        _fill(self._model, arrays, path)
        self._tf = tf
        self._path = path
        self.parameters = int(self._model.count_params())
        self.fingerprint = digest(path)

    def __call__(self, images: npt.NDArray[np.uint8], *, flip: bool = False) -> Array:
        """Depth of photos of one size.

        Args:
            images: uint8 (N, H, W, 3) RGB, upright, of any size; padded to multiples of 32 inside.
            flip: take the mean with the mirrored photo's answer, as the paper evaluates.

        Returns:
            float32 (N, ceil(H / 2), ceil(W / 2)): metres where the network was trained on NYU Depth v2, large = far, 0.1 to 10.

        Raises:
            ValueError: no such array.
            ModelError: the answer is not finite.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise ValueError(f"photos are a uint8 array (N, H, W, 3), not {images.dtype} {images.shape}")
        found = np.stack([self._one(image) for image in images])
        if flip:
            mirrored = np.stack([self._one(image[:, ::-1])[:, ::-1] for image in images])
            found = np.asarray((found + mirrored) / 2, np.float32)
        return found

    def _one(self, image: npt.NDArray[np.uint8]) -> Array:
        height, width = image.shape[:2]
        more = ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
        padded = np.pad(image, more, mode="edge").astype(np.float32) / 255
        raw = np.asarray(self._model(self._tf.constant(padded[None]), training=False))[0, :, :, 0]
        if not np.isfinite(raw).all():
            raise ModelError(f"{self._path}: the network's answer is not finite", "its weights are damaged; get it again")
        with np.errstate(divide="ignore"):
            depth = np.clip(FARTHEST / raw, 10.0, FARTHEST) * METRES
        # a prediction below 0 has no meaning; clipped as the authors do, it is the nearest
        return np.ascontiguousarray(depth[: math.ceil(height / 2), : math.ceil(width / 2)], np.float32)


def working_size(height: int, width: int, size: str) -> tuple[int, int]:
    """Height and width at which a photo goes through.

    Args:
        size: "auto" (as many pixels as the training's photos, the aspect kept, never enlarged), "full" (as it is, up to
            `MOST` pixels) or "WIDTHxHEIGHT".

    Raises:
        ValueError: another size.
    """
    if size in ("auto", "full"):
        scale = min(1.0, math.sqrt((TRAINED if size == "auto" else MOST) / (height * width)))
        return max(1, round(height * scale)), max(1, round(width * scale))
    across, times, down = size.lower().partition("x")
    if not (times and across.isdigit() and down.isdigit()) or not 32 <= int(across) <= 8192 or not 32 <= int(down) <= 8192:
        raise ValueError(f"size {size!r} is not auto, full or WIDTHxHEIGHT")
    if int(across) * int(down) > MOST:
        raise ValueError(f"size {size} has more than {MOST:,} pixels")
    return int(down), int(across)


def _frameworks(threads: int) -> tuple[Any, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" not in sys.modules:
        with contextlib.suppress(Exception):
            # it and TensorFlow hold an LLVM each: loaded after TensorFlow, as torch may do later, it ends the process
            import triton  # noqa: F401
    try:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
        for limit in (tf.config.threading.set_intra_op_parallelism_threads, tf.config.threading.set_inter_op_parallelism_threads):
            try:
                limit(threads)
            except RuntimeError:  # it has been used already in this process
                break
        import keras
    except (ImportError, RuntimeError) as exc:
        raise ModelError(f"DenseDepth needs TensorFlow, which cannot be loaded: {exc}", "pip install tensorflow-cpu") from exc
    if keras.backend.backend() != "tensorflow":
        raise ModelError("DenseDepth needs Keras on TensorFlow, and Keras runs on another backend here", "unset KERAS_BACKEND")
    return keras, tf


# --- the file -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], dict[str, list[Array]]]:
    """The configuration, and the arrays of each layer in the file's own order."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as exc:
        raise ModelError(f"{path}: {exc.strerror or exc}", HINT) from exc
    if start != b"\x89HDF\r\n\x1a\n":
        raise ModelError(f"{path} is not HDF5: expected a legacy Keras file, found bytes that begin with {start!r}", HINT)
    try:
        import h5py
    except ImportError as exc:
        raise ModelError(f"DenseDepth needs h5py: {exc}", "pip install tensorflow-cpu") from exc
    try:
        with h5py.File(path, "r") as file:
            words = file.attrs.get("model_config")
            if words is None:
                raise ModelError(f"{path} has no model_config: expected a whole model, found weights or other data", HINT)
            config = json.loads(words)
            group = file["model_weights"]
            arrays = {}
            for name in [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs["layer_names"]]:
                inside = [n.decode() if isinstance(n, bytes) else str(n) for n in group[name].attrs.get("weight_names", ())]
                arrays[name] = [np.asarray(group[name][n], np.float32) for n in inside]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path} is cut off or damaged: {' '.join(str(exc).split())[:120]}", HINT) from exc
    return config, arrays


def _layers(config: Any, path: Path) -> list[dict[str, Any]]:
    try:
        if config["class_name"] not in ("Model", "Functional"):
            raise ModelError(
                f"{path} holds a {str(config['class_name'])[:40]}: expected a Model or Functional of DenseDepth", HINT
            )
        layers = list(config["config"]["layers"])
        unknown = [layer for layer in layers if layer["class_name"] not in _MAKERS]
        if unknown:
            raise ModelError(
                f"{path}: the layer {str(unknown[0]['config'].get('name'))[:60]} is a {str(unknown[0]['class_name'])[:40]}, "
                f"which is no part of DenseDepth: expected {', '.join(sorted(_MAKERS))}",
                HINT,
            )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path}: its model_config cannot be read: {exc!r}", HINT) from exc
    if len(layers) > MOST_LAYERS:
        raise ModelError(f"{path} has {len(layers):,} layers: expected about 600", HINT)
    return layers


# --- the graph ------------------------------------------------------------------------------------------------------


def _pair(value: Any) -> Any:
    """Sizes come as a number, as two, or as two pairs."""
    if isinstance(value, list | tuple):
        return tuple(_pair(each) for each in value)
    if not isinstance(value, int) or not 0 <= value <= 64:
        raise ValueError(f"{value!r} is no size of a layer")
    return value


def _only(config: dict[str, Any], **wanted: tuple[Any, ...]) -> None:
    for name, allowed in wanted.items():
        if name in config and config[name] not in allowed:
            raise ValueError(f"{name} is {config[name]!r}")


def _activation(value: Any) -> str:
    if value not in ("linear", "relu"):
        raise ValueError(f"the activation {str(value)[:40]!r} is no part of DenseDepth")
    return str(value)


def _convolution(k: Any, c: dict[str, Any]) -> Any:
    _only(c, data_format=("channels_last",), groups=(1,), dilation_rate=([1, 1], (1, 1)), padding=("same", "valid"))
    if not 1 <= int(c["filters"]) <= 8192:
        raise ValueError(f"{c['filters']} filters")
    return k.layers.Conv2D(
        int(c["filters"]), _pair(c["kernel_size"]), _pair(c["strides"]), c["padding"],
        activation=_activation(c["activation"]), use_bias=bool(c["use_bias"]),
    )  # fmt: skip


def _normalisation(k: Any, c: dict[str, Any]) -> Any:
    _only(c, axis=(3, -1, [3], [-1]))
    return k.layers.BatchNormalization(epsilon=float(c["epsilon"]), center=bool(c["center"]), scale=bool(c["scale"]))


def _leaky(k: Any, c: dict[str, Any]) -> Any:
    slope = c.get("alpha", c.get("negative_slope"))
    slope = slope.get("value") if isinstance(slope, dict) else slope  # a NumPy scalar in files of Keras 2.2
    return k.layers.LeakyReLU(negative_slope=float(slope))  # type: ignore[arg-type]


def _relu(k: Any, c: dict[str, Any]) -> Any:
    _only(c, max_value=(None,), threshold=(0, 0.0, None), negative_slope=(0, 0.0, None))
    return k.layers.ReLU()


def _pooling(kind: str) -> Callable[[Any, dict[str, Any]], Any]:
    def make(k: Any, c: dict[str, Any]) -> Any:
        _only(c, data_format=("channels_last",), padding=("same", "valid"))
        return getattr(k.layers, kind)(_pair(c["pool_size"]), _pair(c["strides"]), c["padding"])

    return make


def _padding(k: Any, c: dict[str, Any]) -> Any:
    _only(c, data_format=("channels_last",))
    return k.layers.ZeroPadding2D(_pair(c["padding"]))


def _join(k: Any, c: dict[str, Any]) -> Any:
    _only(c, axis=(3, -1))
    return k.layers.Concatenate(axis=-1)


def _upsampling(k: Any, c: dict[str, Any]) -> Any:
    """Keras' own layer, of the later code: pixel centres are kept."""
    _only(c, data_format=("channels_last",), interpolation=("nearest", "bilinear"))
    return k.layers.UpSampling2D(_pair(c["size"]), interpolation=c.get("interpolation", "nearest"))


def _aligned_upsampling(k: Any, c: dict[str, Any]) -> Any:
    """The layer of DenseDepth's own code: bilinear with aligned corners, unless its configuration says otherwise."""
    _only(c, data_format=("channels_last", None), align_corners=(True, False))
    size = _pair(c["size"])
    across = size if isinstance(size, tuple) else (size, size)
    if not c.get("align_corners", True):
        return k.layers.UpSampling2D(across, interpolation="bilinear")
    import tensorflow as tf

    class AlignedUpSampling2D(k.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            shape = tf.shape(x)
            return tf.compat.v1.image.resize_bilinear(x, (shape[1] * across[0], shape[2] * across[1]), align_corners=True)

        def compute_output_shape(self, shape: Any) -> Any:
            sides = [None if side is None else side * by for side, by in zip(shape[1:3], across, strict=True)]
            return (shape[0], *sides, shape[3])

    return AlignedUpSampling2D()


_MAKERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "InputLayer": lambda k, _c: k.Input((None, None, 3)),
    "Conv2D": _convolution,
    "BatchNormalization": _normalisation,
    "Activation": lambda k, c: k.layers.Activation(_activation(c["activation"])),
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "MaxPooling2D": _pooling("MaxPooling2D"),
    "AveragePooling2D": _pooling("AveragePooling2D"),
    "ZeroPadding2D": _padding,
    "Concatenate": _join,
    "UpSampling2D": _upsampling,
    "BilinearUpSampling2D": _aligned_upsampling,
}


def _build(layers: list[dict[str, Any]], config: dict[str, Any], keras: Any, tf: Any, path: Path) -> Any:
    """The graph; layers come in an order in which each stands after what it needs."""
    done: dict[str, Any] = {}
    own: dict[str, Any] = {}
    first = None
    for layer in layers:
        name, kind, words = str(layer["config"]["name"]), layer["class_name"], layer["config"]
        try:
            made = _MAKERS[kind](keras, words)
        except (ValueError, TypeError, KeyError) as exc:
            raise ModelError(f"{path}: the layer {name[:60]} ({kind}) is not as in DenseDepth: {exc}", HINT) from exc
        if kind == "InputLayer":
            if first is not None:
                raise ModelError(f"{path} has several inputs: expected one", HINT)
            first = done[name] = made
            continue
        nodes = layer["inbound_nodes"]
        if len(nodes) != 1:
            raise ModelError(f"{path}: the layer {name[:60]} is used {len(nodes)} times: expected once", HINT)
        inputs = [done[str(each[0])] for each in nodes[0]]
        done[name] = made(inputs if kind == "Concatenate" else inputs[0])
        own[name] = made
    outputs = config["config"]["output_layers"]
    last = str((outputs[0] if isinstance(outputs[0], list) else outputs)[0])
    model = keras.Model(first, done[last])
    model.by_name = own
    return model


def _check_ends(model: Any, path: Path) -> None:
    channels = model.output_shape[-1]
    if channels != 1:
        raise ModelError(f"{path} answers {channels} channels: expected one, the depth", HINT)
    try:
        found = tuple(int(side) for side in model.compute_output_shape((1, 64, 96, 3)))
    except (ValueError, TypeError) as exc:
        raise ModelError(f"{path}: the graph does not take 96x64 pixels: {exc}", HINT) from exc
    if found != (1, 32, 48, 1):
        raise ModelError(f"{path} answers {found[2]}x{found[1]} for 96x64 pixels: expected half the size", HINT)


def _fill(model: Any, arrays: dict[str, list[Array]], path: Path) -> None:
    for name, layer in model.by_name.items():
        wanted = [tuple(w.shape) for w in layer.weights]
        found = [a.shape for a in arrays.get(name, [])]
        if wanted != found:
            raise ModelError(f"{path}: the layer {name[:60]} has weights of {found}: expected {wanted}", HINT)
        if wanted:
            layer.set_weights(arrays[name])
