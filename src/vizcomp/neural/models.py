"""Model files of the codec and their fingerprints; told without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vizcomp.errors import ModelError
from vizcomp.vzc import coding
from vizcomp.weights.tensors import read_tensors

MODELS = ("photo", "cifar")
CONTEXT_PREFIX = "context."

MODEL_HINT = f"use {' or '.join(MODELS)}, or a model.safetensors that vizcomp train wrote"


def read_model(path: Path, framework: str = "pt") -> tuple[dict[str, Any], dict[str, Any]]:
    return read_tensors(path, framework, MODEL_HINT)


def fingerprint(network: Any, context: coding.ContextModel) -> bytes:
    """Four bytes that name a codec: of the SHA-256 of its configuration, weights (in half precision) and context model.

    Only what a decoder needs goes in, so a model keeps its name when its encoder is trained further.
    """
    arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    return _fingerprint(network.config.to_dict(), arrays, context)


def saved_fingerprint(path: Path) -> bytes:
    """`fingerprint` of a codec in a .safetensors file, without torch.

    Raises:
        ModelError: damaged, or no codec of vizcomp.
    """
    words, arrays = read_model(path, "np")
    if words.get("kind") != "codec":
        raise ModelError(f"{path} holds no codec of vizcomp", MODEL_HINT)
    tables = {k.removeprefix(CONTEXT_PREFIX): v for k, v in arrays.items() if k.startswith(CONTEXT_PREFIX)}
    try:
        config = words["network"]
        context = coding.ContextModel.from_arrays(tables) if tables else coding.ContextModel.flat(config["bits"])
        return _fingerprint(config, arrays, context)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise ModelError(f"{path} holds no codec of vizcomp", MODEL_HINT) from exc


def _fingerprint(config: dict[str, Any], arrays: dict[str, Any], context: coding.ContextModel) -> bytes:
    digest = hashlib.sha256()
    fields = ("width", "decoder", "bits", "shared", "reconstruction", "residual_scaling", "native")
    digest.update(json.dumps({k: config[k] for k in fields}, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        if name.startswith(("entrances.", "decoder.", "exit.")):
            half = value.astype("<f2" if value.ndim >= 2 else "<f4")
            digest.update(f"{name} {half.shape}".encode() + half.tobytes())
    digest.update(context.fingerprint_bytes())
    return digest.digest()[:4]
