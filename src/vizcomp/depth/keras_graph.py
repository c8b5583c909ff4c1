"""The graph of a Keras file's configuration, built anew from the layers that DenseDepth has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vizcomp.depth.hdf5 import HINT
from vizcomp.errors import ModelError

MOST_LAYERS = 4000
MOST_NESTED = 8  # models inside models


def check_layers(config: Any, path: Path) -> None:
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


class KerasGraph:
    """Builds the graph of a configuration; a model inside a model is laid out flat.

    Attributes:
        made: (name of the layer's group in the file, its own name, the layer).
    """

    def __init__(self, keras: Any, path: Path) -> None:
        self._keras, self._path = keras, path
        self.made: list[tuple[str, str, Any]] = []

    def model(self, config: dict[str, Any]) -> Any:
        """The Keras model of a configuration.

        Raises:
            ModelError: not one input and one output, or a layer that is not as in DenseDepth.
            ValueError, TypeError, KeyError, IndexError, AttributeError: layers do not fit together.
        """
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
