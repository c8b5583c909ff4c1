"""DenseDepth's files, run: the only file that names TensorFlow.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.depth.hdf5 import HINT, Array, read_keras
from vizcomp.errors import MissingExtraError, ModelError

NEEDS = "TensorFlow, which DenseDepth needs,"

STRIDE = 32  # sides are padded to multiples of this
TRAINED = 640 * 480  # pixels of the photos it was trained on
MOST = 2_000_000  # pixels: activations take about 1.5 kB for each
MOST_LAYERS = 4000
MOST_NESTED = 8  # models inside models
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
        _check_layers(config, path)
        keras, tf = _frameworks(threads)
        try:
            graph = _Graph(keras, path)
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
    _check_layers(config, path)


def _check_layers(config: Any, path: Path) -> None:
    """Kinds of layers, those of nested models included.

    Raises:
        ModelError: no graph of layers, too many of them, or one that DenseDepth does not have.
    """
    try:
        if config["class_name"] not in _MODELS:
            raise ModelError(
                f"{path} holds a {str(config['class_name'])[:40]}: expected a Model or Functional"
                " of DenseDepth",
                HINT,
            )
        layers = list(_flat(config))
        unknown = [layer for layer in layers if _kind(layer) not in _MAKERS]
        if unknown:
            raise ModelError(
                f"{path}: the layer {str(unknown[0]['config'].get('name'))[:60]} is a"
                f" {_kind(unknown[0])[:40]}, which is no part of DenseDepth: expected"
                f" {', '.join(sorted(_MAKERS))}",
                HINT,
            )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path}: its model_config cannot be read: {exc!r}", HINT) from exc
    if len(layers) > MOST_LAYERS:
        raise ModelError(f"{path} has {len(layers):,} layers: expected about 600", HINT)


def _flat(model: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    if depth > MOST_NESTED:
        raise KeyError("models nested too deep")
    for layer in model["config"]["layers"]:
        if layer["class_name"] in _MODELS:
            yield from _flat(layer, depth + 1)
        else:
            yield layer


def _kind(layer: dict[str, Any]) -> str:
    # a class that was registered has its package before it
    return str(layer["class_name"]).rpartition(">")[2]


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
    _only(
        c,
        data_format=("channels_last",),
        groups=(1,),
        dilation_rate=([1, 1], (1, 1)),
        padding=("same", "valid"),
    )
    if not 1 <= int(c["filters"]) <= 8192:
        raise ValueError(f"{c['filters']} filters")
    return k.layers.Conv2D(
        int(c["filters"]), _pair(c["kernel_size"]), _pair(c["strides"]), c["padding"],
        activation=_activation(c["activation"]), use_bias=bool(c["use_bias"]),
    )  # fmt: skip


def _normalisation(k: Any, c: dict[str, Any]) -> Any:
    _only(c, axis=(3, -1, [3], [-1]))
    return k.layers.BatchNormalization(
        epsilon=float(c["epsilon"]), center=bool(c["center"]), scale=bool(c["scale"])
    )


def _leaky(k: Any, c: dict[str, Any]) -> Any:
    slope = c.get("alpha", c.get("negative_slope"))
    # a NumPy scalar in files of Keras 2.2
    slope = slope.get("value") if isinstance(slope, dict) else slope
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
    _only(c, data_format=("channels_last", None), interpolation=("nearest", "bilinear"))
    return _resizing(k, c, c.get("interpolation", "nearest"))


def _aligned_upsampling(k: Any, c: dict[str, Any]) -> Any:
    """The layer of DenseDepth's own code: bilinear with aligned corners, unless its configuration
    says otherwise."""
    _only(c, data_format=("channels_last", None), align_corners=(True, False))
    return _resizing(k, c, "aligned" if c.get("align_corners", True) else "bilinear")


def _resizing(k: Any, c: dict[str, Any], how: str) -> Any:
    """(N, H, W, C) to (N, a H, b W, C); Keras' own layer knows no aligned corners, and no sizes
    that are known later."""
    import tensorflow as tf

    size = _pair(c["size"])
    across = size if isinstance(size, tuple) else (size, size)
    if len(across) != 2 or not all(isinstance(side, int) and side > 0 for side in across):
        raise ValueError(f"{size!r} is no factor")

    class Resizing(k.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            sides = tf.shape(x)[1:3] * tf.constant(across)
            if how == "nearest":
                return tf.raw_ops.ResizeNearestNeighbor(
                    images=x, size=sides, half_pixel_centers=True
                )
            aligned = how == "aligned"
            return tf.raw_ops.ResizeBilinear(
                images=x, size=sides, align_corners=aligned, half_pixel_centers=not aligned
            )

        def compute_output_shape(self, shape: Any) -> Any:
            sides = [
                None if side is None else side * by
                for side, by in zip(shape[1:3], across, strict=True)
            ]
            return (shape[0], *sides, shape[3])

    return Resizing()


_MODELS = ("Model", "Functional")
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


class _Graph:
    """Builds the graph of a configuration; a model inside a model is laid out flat.

    Attributes:
        made: (name of the layer's group in the file, its own name, the layer).
    """

    def __init__(self, keras: Any, path: Path) -> None:
        self._keras, self._path = keras, path
        self.made: list[tuple[str, str, Any]] = []

    def model(self, config: dict[str, Any]) -> Any:
        photo = self._keras.Input((None, None, 3))
        inputs = _references(config["config"]["input_layers"])
        if len(inputs) != 1:
            raise ModelError(f"{self._path} has {len(inputs)} inputs: expected one", HINT)
        outputs = self._lay_out(config["config"], [photo], "")
        if len(outputs) != 1:
            raise ModelError(
                f"{self._path} has {len(outputs)} outputs: expected one, the depth", HINT
            )
        return self._keras.Model(photo, outputs[0])

    def _lay_out(self, config: dict[str, Any], inputs: list[Any], group: str) -> list[Any]:
        """The tensors that a model answers; layers come in an order in which each stands after what
        it needs."""
        names = [name for name, _index in _references(config["input_layers"])]
        done: dict[str, list[Any]] = {
            name: [tensor] for name, tensor in zip(names, inputs, strict=True)
        }
        for layer in config["layers"]:
            name, kind, words = str(layer["config"]["name"]), _kind(layer), layer["config"]
            if kind == "InputLayer":
                if name not in done:
                    raise ModelError(f"{self._path}: the input {name[:60]} leads nowhere", HINT)
                continue
            nodes = layer["inbound_nodes"]
            if len(nodes) != 1:
                raise ModelError(
                    f"{self._path}: the layer {name[:60]} is used {len(nodes)} times: expected"
                    " once",
                    HINT,
                )
            given = [done[before][index] for before, index in _node(nodes[0])]
            if kind in _MODELS:
                done[name] = self._lay_out(words, given, group or name)
                continue
            try:
                one = _MAKERS[kind](self._keras, words)
            except (ValueError, TypeError, KeyError) as exc:
                raise ModelError(
                    f"{self._path}: the layer {name[:60]} ({kind}) is not as in DenseDepth: {exc}",
                    HINT,
                ) from exc
            done[name] = [one(given if kind == "Concatenate" else given[0])]
            self.made.append((group or name, name, one))
        return [done[name][index] for name, index in _references(config["output_layers"])]


def _references(value: Any) -> list[tuple[str, int]]:
    """Layers and which of their answers: one [name, node, index] or a list of such."""
    each = [value] if isinstance(value[0], str) else value
    return [(str(one[0]), int(one[2])) for one in each]


def _node(node: Any) -> list[tuple[str, int]]:
    """What a layer is given: of Keras 2 a list of references, of Keras 3 its arguments, with
    references somewhere inside."""
    if isinstance(node, list):
        return _references(node)
    inputs: list[tuple[str, int]] = []

    def search(value: Any, depth: int) -> None:
        if depth > MOST_NESTED:
            raise ValueError("arguments nested too deep")
        if isinstance(value, list):
            for one in value:
                search(one, depth + 1)
        elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            inputs.extend(_references(value["config"]["keras_history"]))

    search(node["args"], 0)
    return inputs


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
