"""Safetensors files that anybody may have written: their words and their tensors, checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vizcomp.errors import ModelError, in_one_line
from vizcomp.files.foreign import read_object

MOST_WORDS = 1 << 20  # bytes of the metadata `vizcomp`; the bundled files have 2 kB


def read_tensors(
    path: Path, hint: str, *, what: str = "a model"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a training of vizcomp wrote about a file, {} where it says nothing, and its tensors by
    name, as arrays.

    Args:
        hint: what to try where it cannot be read; what: the file, in words.

    Raises:
        ModelError: it cannot be read, its words are no JSON object, or a weight is not a finite
            number.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not os.path.exists(path):
            raise ModelError(f"{path} is not there", hint)
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ModelError(f"{path} is not an ordinary file", hint)
        with safe_open(str(path), "np") as file:
            metadata = read_object(
                (file.metadata() or {}).get("vizcomp", "{}"), most_bytes=MOST_WORDS
            )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        for name, tensor in tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise ModelError(
                    f"{path}: {name[:80]!r} holds what is not a finite number",
                    "its weights are damaged",
                )
    except ModelError:
        raise
    except (
        OSError,
        SafetensorError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        LookupError,
    ) as exc:
        raise ModelError(f"{path} cannot be read as {what}: {in_one_line(exc)}", hint) from exc
    except MemoryError as exc:
        raise ModelError(f"{path} does not fit into memory", hint) from exc
    return metadata, tensors
