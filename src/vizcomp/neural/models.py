"""Model files of the codec and their fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vizcomp.errors import ModelError
from vizcomp.graphs.codecs import codec_config, is_spectral
from vizcomp.vzc import coding
from vizcomp.weights import cache, table
from vizcomp.weights.tensors import read_tensors

MODELS = ("photo", "cifar", "cifar-label")
CONTEXT_PREFIX = "context."
# of a classifier that is in the codec's file; its words are under CLASSIFIER
CLASSIFIER_PREFIX = "classifier."
CLASSIFIER = "classifier_file"

# what the fingerprint has of a configuration: what a decoder needs
FIELDS: tuple[str, ...] = (
    "width",
    "decoder",
    "bits",
    "shared",
    "reconstruction",
    "residual_scaling",
    "native",
)
SPECTRAL_FIELDS: tuple[str, ...] = ("native", "zones", "decoder", "ladders", "steps", "finish")

MODEL_HINT = f"use {', '.join(MODELS)}, or a model.safetensors that vizcomp train wrote"


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says of itself, and its arrays by name; errors as `read_tensors`."""
    return read_tensors(path, MODEL_HINT)


def model_path(name: str | Path) -> Path:
    """The file of a codec: bundled, added by hand, or a path."""
    return (
        table.bundled_path(f"{name}.safetensors")
        if str(name) in MODELS
        else cache.added_model(str(name)) or Path(name)
    )


def fingerprint(
    config: Mapping[str, Any], weights: Mapping[str, Any], context: coding.ContextModel
) -> bytes:
    """Four bytes that name a codec: of the SHA-256 of its configuration, weights (in half
    precision) and context model.

    Only what a decoder needs goes in, so a model keeps its name when its encoder is trained
    further.

    Args:
        config: as `RecurrentConfig.to_dict` or `SpectralConfig.to_dict`.
        weights: arrays by name, the encoder's too.
    """
    digest = hashlib.sha256()
    fields = SPECTRAL_FIELDS if is_spectral(config) else FIELDS
    digest.update(json.dumps({k: config[k] for k in fields}, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        if name.startswith(("entrances.", "decoder.", "exit.", "finish.")):
            half = value.astype("<f2" if value.ndim >= 2 else "<f4")
            digest.update(f"{name} {half.shape}".encode() + half.tobytes())
    digest.update(context.fingerprint_bytes())
    return digest.digest()[:4]


def saved_fingerprint(path: Path) -> bytes:
    """`fingerprint` of a codec in a .safetensors file, without torch.

    Raises:
        ModelError: damaged, or no codec of vizcomp.
    """
    metadata, arrays = read_model(path)
    if metadata.get("kind") != "codec":
        raise ModelError(f"{path} holds no codec of vizcomp", MODEL_HINT)
    tables = {
        k.removeprefix(CONTEXT_PREFIX): v for k, v in arrays.items() if k.startswith(CONTEXT_PREFIX)
    }
    try:
        config = metadata["network"]
        context = (
            coding.ContextModel.from_arrays(tables)
            if tables
            else coding.ContextModel.flat(codec_config(config).bits)
        )
        return fingerprint(config, arrays, context)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise ModelError(f"{path} holds no codec of vizcomp", MODEL_HINT) from exc
