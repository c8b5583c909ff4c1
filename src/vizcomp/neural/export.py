"""Codecs and classifiers of vizcomp as ONNX files that other programs run."""

from __future__ import annotations

import json
from pathlib import Path

from vizcomp._version import __version__
from vizcomp.errors import SettingsError
from vizcomp.graphs import classifiers, codecs
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import MODELS, read_model
from vizcomp.weights import cache

PARTS = ("decoder", "encoder")


def exported(
    name: str, *, part: str = "", iterations: int | None = None, offline: bool = False
) -> bytes:
    """A model as an ONNX file: of a codec its decoder or its encoder, all iterations in one graph;
    a classifier as a whole.

    `graphs.unrolled.recurrent_decoder`, `recurrent_encoder` and `graphs.classifiers.graph` say what
    goes in and what comes out. The bits are not the bytes of a .vzc file: these are coded besides.

    Args:
        name: a bundled model, one that `weights add` named, or the path of a model.safetensors.
        part: "decoder" or "encoder" of a codec; "": its decoder.
        iterations: of a codec; None: all that it has.
        offline: never touch the network.

    Raises:
        SettingsError: no such part, or so many iterations it has not.
        ModelError: no codec and no classifier of vizcomp.
        WeightsMissingError: a published classifier that could not be had.
    """
    if part and part not in PARTS:
        raise SettingsError(f"unknown `part` {part!r}", f"use {' or '.join(PARTS)}")
    if _is_classifier(name):
        if part or iterations is not None:
            raise SettingsError(
                f"{name} is a classifier: it has neither parts nor iterations",
                "omit `part` and `iterations`",
            )
        file = classifiers.read(name, offline=offline)
        names = json.dumps(dict(enumerate(file.classes)), ensure_ascii=False)
        return classifiers.graph(
            file, {"name": name, "names": names, "version": __version__}, seen=False
        )
    codec = NeuralCodec.load(name)
    many = codec.iterations if iterations is None else iterations
    if not 1 <= many <= codec.iterations:
        raise SettingsError(
            f"{many} iterations: model {name} has 1 to {codec.iterations}",
            "choose other `iterations`",
        )
    metadata = {
        "name": name,
        "model": codec.fingerprint.hex(),
        "part": part or "decoder",
        "block": str(codec.config.block),
        "network": json.dumps(codec.config.to_dict()),
        "version": __version__,
    }
    return codecs.exported(codec.config, codec.weights, part or "decoder", many, metadata)


def _is_classifier(name: str) -> bool:
    if name in MODELS:
        return False
    if name in (*classifiers.BUNDLED, *classifiers.PUBLISHED):
        return True
    metadata, _ = read_model(cache.added_model(name) or Path(name))
    return metadata.get("kind") == "classifier"
